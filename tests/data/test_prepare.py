import csv
import errno
import json

import numpy as np
import pytest

from crystalvae.data import prepare as module
from crystalvae.data.jobs import open_work
from crystalvae.data.packed import PackedDataset, pack, write_packed
from crystalvae.data.prepare import prepare
from crystalvae.data.prototypes import PROTOTYPES, prototype_crystals
from crystalvae.errors import ConfigError, DataError
from crystalvae.screening.base import Candidate
from crystalvae.screening.distance import check_distance
from crystalvae.symmetry.spglib_wrapper import space_group_number
from tests.data.test_readers import good_cif, torture


def arrays(path):
    return {f.name: f.read_bytes() for f in sorted(path.glob("*.npy"))}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "set.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif", "gap"])
        for name, crystal in list(prototype_crystals())[::150]:
            writer.writerow([name, crystal.to_cif(), len(name)])
        writer.writerow(["broken", "data_x\n_cell_length_a 3\n", 1])
    return path


def test_every_entry_is_accounted_for(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    expected = torture(folder)
    (folder / "good.cif").write_text(good_cif())
    report = prepare(folder, tmp_path / "out", num_workers=1)
    assert report.total == len(expected) + 1
    assert report.converted == 1
    with (tmp_path / "out/refused.csv").open() as file:
        refused = {row["material_id"]: row["reason"] for row in csv.DictReader(file)}
    assert set(refused) == set(expected)
    assert json.loads((tmp_path / "out/report.json").read_text())["converted"] == 1


def test_result_does_not_depend_on_workers_or_interruption(
    table, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "CHUNK", 10)
    report = prepare(table, tmp_path / "one", num_workers=1)
    assert report.refused[0][0] == "broken"
    prepare(table, tmp_path / "two", num_workers=2)
    assert arrays(tmp_path / "one") == arrays(tmp_path / "two")

    real = module.write_shard

    def interrupted(path, *rest):
        if path.name == "shard-000002.npz":
            raise KeyboardInterrupt
        real(path, *rest)

    monkeypatch.setattr(module, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(table, tmp_path / "three", num_workers=1)
    shards = tmp_path / "three.shards"
    before = {p.name: p.stat().st_mtime_ns for p in shards.glob("shard-*.npz")}
    assert before
    assert not (tmp_path / "three").exists()
    written = []
    monkeypatch.setattr(
        module,
        "write_shard",
        lambda path, *rest: (written.append(path.name), real(path, *rest)),
    )
    prepare(table, tmp_path / "three", num_workers=1)
    assert not set(written) & set(before)
    assert arrays(tmp_path / "one") == arrays(tmp_path / "three")
    assert not shards.exists()


def test_large_cells_are_refused_if_asked(table, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 20)
    report = prepare(table, tmp_path / "out", num_workers=1, max_atoms=6)
    assert 0 < report.converted < report.total - 1
    assert any("max-atoms" in reason for *_, reason in report.refused)


def test_packed_dataset_gives_the_crystals_back(crystals, tmp_path):
    write_packed(
        tmp_path / "set",
        pack(crystals),
        [str(i) for i in range(len(crystals))],
        {"gap": np.arange(len(crystals), dtype=float)},
    )
    dataset = PackedDataset(tmp_path / "set")
    assert len(dataset) == len(crystals)
    for one, other in zip(dataset, crystals):
        assert one.composition == other.composition
        np.testing.assert_allclose(one.lattice, other.lattice, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(one.frac_coords, other.frac_coords, atol=1e-6)
    assert dataset.properties["gap"][3] == 3


@pytest.mark.parametrize("file", ["dataset.json", "distance.npy", "material_ids.txt"])
def test_damaged_dataset_is_refused(crystals, tmp_path, file):
    path = tmp_path / "set"
    write_packed(path, pack(crystals), ["x"] * len(crystals), {})
    content = (path / file).read_bytes()
    (path / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="set"):
        PackedDataset(path)


def test_nothing_usable_is_an_error(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.cif").write_text("nonsense")
    with pytest.raises(DataError, match="no usable structure"):
        prepare(tmp_path / "in", tmp_path / "out", num_workers=1)


def test_prototypes_are_many_and_always_the_same():
    one, other = dict(prototype_crystals()), dict(prototype_crystals())
    assert list(one) == list(other)
    assert len(one) >= 5000
    assert len({name.rsplit("-", 1)[0] for name in one}) >= 20


@pytest.mark.parametrize("prototype", PROTOTYPES, ids=lambda p: p.name)
def test_prototype_has_its_group_and_no_overlap(prototype):
    members = [
        crystal
        for name, crystal in prototype_crystals()
        if name.startswith(f"{prototype.name}-")
    ]
    for crystal in members[:: max(1, len(members) // 5)]:
        lattice, coords, species, _ = crystal.expand_primitive()
        assert space_group_number(lattice, coords, species, 1e-3) == prototype.number
        assert check_distance(Candidate(lattice, coords, species)).passed


def test_round_trip_of_real_crystals(shared_data, tmp_path):
    report = prepare(
        shared_data / "carbon_24/val.csv.gz", tmp_path / "set", num_workers=1
    )
    assert report.converted == report.total


@pytest.mark.parametrize("name", ["two\rlines", "two\r\nlines", "two\u2028lines"])
def test_names_of_several_lines_are_one(tmp_path, name):
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(
            [["material_id", "cif"], [name, good_cif()], ["b", good_cif()]]
        )
    prepare(table, tmp_path / "set", num_workers=1)
    names = PackedDataset(tmp_path / "set").material_ids
    assert [one.split() for one in names] == [["two", "lines"], ["b"]]


def test_a_tolerance_of_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="symprec"):
        prepare(tmp_path, tmp_path / "out", symprec=0)


def test_an_output_that_is_a_file_is_named(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        prepare(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("text", ['{"key"', "[]", "7", '{"other": 1}', ""])
def test_a_damaged_state_is_another_key(tmp_path, text):
    work = tmp_path / "work"
    open_work(work, "a")
    (work / "done").write_text("1")
    open_work(work, "a")
    assert (work / "done").exists()
    (work / "state.json").write_text(text)
    open_work(work, "a")
    assert not (work / "done").exists()
    open_work(work, "a")


def test_a_full_disk_costs_a_packed_set_nothing(tmp_path, monkeypatch):
    """The data set that was there stays, and nothing half-written does."""
    arrays = pack([crystal for _, crystal in prototype_crystals()][:2])
    write_packed(tmp_path / "known", arrays, ["one", "other"], {})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("crystalvae.data.packed.save_columns", full)
    with pytest.raises(DataError, match=r"known .*No space left.*free some disk space"):
        write_packed(tmp_path / "known", arrays, ["one", "other"], {})
    assert [path.name for path in tmp_path.iterdir()] == ["known"]
    assert PackedDataset(tmp_path / "known").material_ids == ["one", "other"]


def test_a_full_disk_at_the_end_keeps_what_was_converted(table, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("crystalvae.data.packing.save_columns", full)
        with pytest.raises(DataError, match=r"No space left.*to go on"):
            prepare(table, tmp_path / "set", num_workers=1)
    assert not (tmp_path / "set.partial").exists()
    monkeypatch.setattr(module, "write_shard", full)
    assert prepare(table, tmp_path / "set", num_workers=1).converted


def test_what_another_verb_made_is_not_replaced(table, tmp_path):
    arrays = pack([crystal for _, crystal in prototype_crystals()][:2])
    write_packed(tmp_path / "set", arrays, ["a", "b"], {}, {"made_by": "energies"})
    with pytest.raises(DataError, match="made by prepare"):
        prepare(table, tmp_path / "set", num_workers=1)
    assert len(PackedDataset(tmp_path / "set")) == 2


def test_chunks_of_another_size_are_not_gone_on_with(table, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "CHUNK", 20)
    with monkeypatch.context() as patched:
        patched.setattr(module, "merge_shards", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(table, tmp_path / "set", num_workers=1)
    monkeypatch.setattr(module, "CHUNK", 10)
    report = prepare(table, tmp_path / "set", num_workers=1)
    ids = PackedDataset(tmp_path / "set").material_ids
    assert len(ids) == len(set(ids)) == report.converted
