import csv
import json
import os

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from crystalvae.cli import main
from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.packed import PackedDataset, pack, write_packed
from crystalvae.data.prototypes import prototype_crystals
from crystalvae.design.database import write_database
from crystalvae.errors import ConfigError, DataError
from crystalvae.screening import campaign as module
from crystalvae.screening.base import ENERGY, PROBABILITY, Candidate
from crystalvae.screening.campaign import funnel, screen
from crystalvae.screening.checks import first_failure, run_checks
from crystalvae.screening.fingerprint import (
    NearestKnown,
    average_minimum_distances,
    reference_fingerprints,
)
from tests.data.test_readers import good_cif, torture

ABSURD = {
    "sliver": (np.diag([0.4, 10, 10]), ["Si"], [[0, 0, 0]]),
    "argon": (np.eye(3) * 5.3, ["Ar"], [[0, 0, 0]]),
    "promethium": (
        np.eye(3) * 5.5,
        ["Pm", "Cl"],
        [[0, 0, 0], [0.5, 0.5, 0.5]],
    ),
    "xenon_fluoride": (
        np.diag([4.3, 4.3, 7.0]),
        ["Xe", "F", "F"],
        [[0, 0, 0], [0, 0, 0.28], [0, 0, 0.72]],
    ),
}


def absurd_files(folder):
    """Structures that broke evaluators: name → whether they can be read."""
    for name, (lattice, species, coords) in ABSURD.items():
        text = str(CifWriter(Structure(lattice, species, coords)))
        (folder / f"{name}.cif").write_text(text)
    grid = np.stack(np.meshgrid(*[np.arange(18)] * 3, indexing="ij"), -1)
    coords = grid.reshape(-1, 3)[:5000] / 18
    big = Structure(np.eye(3) * 45, ["Cu"] * 5000, coords)
    (folder / "big.cif").write_text(str(CifWriter(big)))
    many = [*_elements(100), *_elements(90)]
    coords = grid[:6, :6, :6].reshape(-1, 3)[: len(many)] / 6
    zoo = Structure(np.eye(3) * 20, many, coords)
    (folder / "zoo.cif").write_text(str(CifWriter(zoo)))
    header = good_cif().replace("Na", "Q1")
    (folder / "dummy.cif").write_text(header)
    (folder / "dangling.cif").symlink_to(folder / "nowhere.cif")
    (folder / "utf16.cif").write_bytes(good_cif().encode("utf-16"))
    zero = good_cif().replace("_cell_length_a", "_cell_length_a 0\n_old")
    (folder / "zero.cif").write_text(zero)


def _elements(count):
    from ase.data import chemical_symbols

    return chemical_symbols[1 : count + 1]


def rows_of(directory):
    with (directory / "table.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def known(tmp_path):
    crystals = [crystal for _, crystal in list(prototype_crystals())[::40]]
    names = [f"known-{i}" for i in range(len(crystals))]
    write_packed(tmp_path / "known", pack(crystals), names, {})
    return PackedDataset(tmp_path / "known")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "in"
    path.mkdir()
    for name, crystal in list(prototype_crystals())[::160]:
        (path / f"{name}.cif").write_text(crystal.to_cif())
    return path


def test_a_thousand_files_are_accounted_for(folder, tmp_path):
    absurd_files(folder)
    torture(folder)
    text = good_cif()
    while len(list(folder.iterdir())) < 1000:
        number = len(list(folder.iterdir()))
        (folder / f"copy{number}.cif").write_text(text)
    out = tmp_path / "out"
    assert main(["screen", str(folder), "-o", str(out), "--no-progress"]) == 0
    rows = {row["name"]: row for row in rows_of(out)}
    assert set(rows) == {path.stem for path in folder.iterdir()}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["structures"] == 1000
    passed = [row for row in rows.values() if row["passed"] == "True"]
    assert summary["survivors"] == len(passed) == len(list(out.glob("*.cif")))
    copies = [row for name, row in rows.items() if name.startswith("copy")]
    assert sum(row["unique"] == "True" for row in copies) <= 1
    wrong = ("utf16", "zero", "dummy", "truncated", "disordered", "directory")
    for name in (*wrong, "dangling"):
        assert rows[name]["error"], name
    assert rows["sliver"]["error"] or rows["sliver"]["passed"] == "False"
    for name in ("argon", "promethium", "xenon_fluoride", "zoo"):
        assert not rows[name]["error"], rows[name]
    assert not (out / module.WORK).exists()


def test_known_crystals_and_copies_do_not_survive(known, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    crystals = [crystal for _, crystal in list(prototype_crystals())[20::80]]
    formulas = {crystal.formula for crystal in known}
    fresh = [
        crystal
        for crystal in crystals
        if crystal.formula not in formulas
        and first_failure(run_checks(Candidate.of(crystal))) is None
    ][:5]
    old = [known[i] for i in range(5)]
    for place, crystal in enumerate([*fresh, *old, fresh[0]]):
        stretched = crystal.to_structure(primitive=False)
        stretched.to(filename=str(folder / f"{place:02d}.cif"))
    found = screen(folder, tmp_path / "out", reference=known, num_workers=1)
    assert {found.inspected[p].record.name for p in found.survivors} == {
        f"{i:02d}" for i in range(len(fresh))
    }
    repeated = found.inspected[-1].record.results["unique"]
    assert repeated.passed is False
    assert repeated.message == "the same as 00"
    for place in range(len(fresh), len(fresh) + len(old)):
        assert found.nearest[place][0] < 1e-3
        verdict = found.inspected[place].record.results["novel"]
        assert verdict.passed is False
        assert verdict.message.startswith("the same as known-")
    distances = [found.nearest[place][0] for place in found.survivors]
    assert distances == sorted(distances, reverse=True)
    steps = funnel(found)
    assert steps[0] == ("structures", len(fresh) + 6)
    assert steps[-1] == ("novel", len(fresh))


def test_an_interrupted_screening_goes_on(folder, tmp_path, monkeypatch):
    from crystalvae.screening import engine

    monkeypatch.setattr(engine, "CHUNK", 10)
    whole = screen(folder, tmp_path / "whole", num_workers=1)
    real = module._Shards.save

    def interrupted(self, number, results):
        if number == 2:
            raise KeyboardInterrupt
        real(self, number, results)

    monkeypatch.setattr(module._Shards, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        screen(folder, tmp_path / "out", num_workers=1)
    saved = []
    monkeypatch.setattr(
        module._Shards,
        "save",
        lambda self, number, r: (saved.append(number), real(self, number, r)),
    )
    again = screen(folder, tmp_path / "out", num_workers=1)
    assert 0 not in saved
    assert 2 in saved
    assert [i.record.row() for i in again.inspected] == [
        i.record.row() for i in whole.inspected
    ]


def test_a_cluster_gives_the_same(folder, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("crystalvae.screening.engine.CHUNK", 2)
    here = screen(folder, tmp_path / "here", num_workers=1)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        there = screen(folder, tmp_path / "there", scheduler=cluster.scheduler_address)
    assert [i.record.row() for i in here.inspected] == [
        i.record.row() for i in there.inspected
    ]


@pytest.mark.parametrize("rank_by", ["density", "volume"])
def test_ranks_also_by_what_was_not_checked(folder, tmp_path, rank_by):
    found = screen(
        folder, tmp_path / "out", names=["distance"], rank_by=rank_by, num_workers=1
    )
    crystals = [found.inspected[place].crystal for place in found.survivors]
    values = [
        c.density if rank_by == "density" else c.volume / c.num_atoms for c in crystals
    ]
    assert len(set(values)) > 2
    assert values == sorted(values, reverse=True)


def test_wrong_wishes_are_explained(folder, tmp_path):
    with pytest.raises(ConfigError, match="known are"):
        screen(folder, tmp_path / "a", names=["beauty"], num_workers=1)
    with pytest.raises(ConfigError, match="cannot rank by"):
        screen(folder, tmp_path / "b", rank_by="beauty", num_workers=1)
    (tmp_path / "full").write_text("a file")
    with pytest.raises(DataError, match="cannot write"):
        screen(folder, tmp_path / "full", num_workers=1)


def test_of_copies_the_best_is_kept_and_the_best_comes_first(tmp_path):
    """Copies by name: a blown-up one first, the true one last."""
    for name, stretch in (("a", 1.06), ("b", 0.97), ("c", 1.0)):
        salt = Structure.from_spacegroup(
            "Fm-3m",
            Lattice.cubic(5.64 * stretch),
            ["Na", "Cl"],
            [[0, 0, 0], [0.5, 0.5, 0.5]],
        )
        CifWriter(salt).write_file(tmp_path / f"{name}.cif")
    diamond = Structure.from_spacegroup(
        "Fd-3m", Lattice.cubic(3.57), ["C"], [[0, 0, 0]]
    )
    CifWriter(diamond).write_file(tmp_path / "d.cif")

    def estimates(crystals):
        lengths = [c.lattice[0, 0] for c in crystals]
        return [{"stable_probability": float(np.exp(-abs(a - 5.64)))} for a in lengths]

    def names(found):
        return [found.inspected[place].record.name for place in found.survivors]

    def run(**options):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        return screen(tmp_path, out, num_workers=1, **options)

    assert set(names(run())) == {"a", "d"}
    found = run(estimates=estimates)
    assert names(found) == ["c", "d"]
    assert found.ranked_by == "stable_probability"
    assert "the same as c" in found.inspected[0].record.results["unique"].message
    lowest = [
        names(run(estimates=estimates, rank_by="num_sites", highest=high))
        for high in (False, True)
    ]
    assert lowest == [["d", "c"], ["c", "d"]]


def test_what_an_attempt_wrote_before_is_cleared(folder, tmp_path):
    out = tmp_path / "out"
    arguments = ["screen", str(folder), "-o", str(out), "--workers", "1"]
    assert main([*arguments, "--database", str(tmp_path / "absent" / "no.db")]) == 1
    assert (out / ".work").is_dir()
    before = {path.name for path in out.glob("*.cif")}
    (out / "mine.cif").write_text("")
    assert main([*arguments, "--top", "1", "--rank-by", "density"]) == 0
    after = {path.name for path in out.glob("*.cif")} - {"mine.cif"}
    assert len(before) > 1
    assert len(after) == 1
    assert (out / "mine.cif").exists()


def test_nothing_left_can_be_ranked_by_what_the_input_had(tmp_path):
    from ase import Atoms
    from ase.io import write

    frame = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 0.6]], cell=[3, 3, 3], pbc=True)
    frame.info["energy_x"] = -1.0
    write(tmp_path / "in.extxyz", [frame])
    arguments = ["screen", str(tmp_path / "in.extxyz"), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--rank-by", "energy_x", "--workers", "1"]) == 0
    assert (tmp_path / "out" / "report.html").exists()


def test_database_and_report(folder, tmp_path, known):
    import ase.db

    target, out = tmp_path / "found.db", tmp_path / "out"
    arguments = ["screen", str(folder), "-o", str(out), "--database", str(target)]
    arguments += ["--reference", str(known.path), "--no-progress", "--top", "5"]
    arguments += ["--workers", "1"]
    assert main(arguments) == 0
    with ase.db.connect(target) as database:
        rows = list(database.select())
    written = sorted(out.glob("*.cif"))
    assert len(rows) == len(written) <= 5
    assert {row.material_id for row in rows} == {path.stem for path in written}
    page = (out / "report.html").read_text()
    assert "http://" not in page.split("</script>")[-1]
    for row in rows:
        assert row.material_id.split("-", 1)[1] in page


@pytest.mark.parametrize("name", ["1000042", "1e5", "0.5", "nan", "True", "mp-1"])
def test_texts_that_look_like_numbers_enter_a_database(tmp_path, crystals, name):
    import ase.db

    target = str(tmp_path / "found.db")
    rows = [{"nearest_known": name, "rank": 1}]
    write_database(target, crystals[:1], [name], rows)
    with ase.db.connect(target) as database:
        (row,) = database.select()
    assert str(row.material_id).removeprefix("id:") == name
    assert str(row.nearest_known).removeprefix("id:") == name


def test_fingerprint_is_that_of_the_authors(crystals):
    amd = pytest.importorskip("amd")
    for crystal in crystals:
        lattice, coords, _, _ = crystal.expand_primitive()
        cell = amd.PeriodicSet(
            motif=np.ascontiguousarray(coords @ lattice),
            cell=np.ascontiguousarray(lattice),
        )
        np.testing.assert_allclose(
            average_minimum_distances(crystal), amd.AMD(cell, 100), atol=1e-5
        )


def test_fingerprint_does_not_depend_on_the_cell_and_is_continuous(crystals):
    rng = np.random.default_rng(0)
    for crystal in crystals:
        structure = crystal.to_structure()
        own = average_minimum_distances(crystal)
        structure.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]])
        other = AsymmetricUnit.from_structure(structure, symprec=0.01)
        np.testing.assert_allclose(average_minimum_distances(other), own, atol=1e-3)
        moves = rng.normal(size=(len(structure), 3))
        moves *= 0.02 / np.linalg.norm(moves, axis=1, keepdims=True)
        moved = Structure(
            structure.lattice,
            structure.species,
            structure.cart_coords + moves,
            coords_are_cartesian=True,
        )
        shifted = AsymmetricUnit.from_structure(moved, symprec=1e-4)
        change = np.abs(average_minimum_distances(shifted) - own).max()
        assert 0 < change <= 0.04 + 1e-3


def test_nearest_known_is_the_nearest(known, crystals):
    fingerprints = reference_fingerprints(known, num_workers=1)
    assert (known.path / "fingerprints.npy").exists()
    found = NearestKnown(fingerprints)
    ours = np.stack([average_minimum_distances(c) for c in crystals])
    distance, row = found(ours, num_workers=1)
    full = np.abs(ours[:, None] - fingerprints[None]).max(-1)
    np.testing.assert_allclose(distance, full.min(1), rtol=1e-5)
    reached = full[np.arange(len(row)), row]
    np.testing.assert_allclose(reached, full.min(1), rtol=1e-5)


def test_copper_has_twelve_neighbours():
    copper = AsymmetricUnit.from_structure(
        Structure.from_spacegroup(225, Lattice.cubic(3.61), ["Cu"], [[0, 0, 0]])
    )
    found = average_minimum_distances(copper)
    np.testing.assert_allclose(found[:12], 3.61 / np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(found[12:18], 3.61, rtol=1e-6)


def test_nothing_is_novel_that_was_not_compared(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.cif").write_text(good_cif())
    campaign = screen(folder, tmp_path / "out", num_workers=1)
    assert "unique" in dict(funnel(campaign))
    assert "novel" not in dict(funnel(campaign))


def test_an_edited_file_is_screened_again(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "a.cif"
    path.write_text(good_cif())
    first = screen(folder, tmp_path / "out", num_workers=1)
    os.utime(path, ns=(1, 1))
    path.write_text(good_cif().replace("Na", "Li"))
    again = screen(folder, tmp_path / "out", num_workers=1)
    formulas = [c.inspected[0].record.formula for c in (first, again)]
    assert formulas[0] != formulas[1]


def test_equal_probabilities_are_told_apart_by_the_energy(folder, tmp_path):
    def estimates(crystals):
        return [
            {PROBABILITY: 1.0, ENERGY: 0.001 * (place * 7 % 11)}
            for place in range(len(crystals))
        ]

    names = ["volume", "density", "distance"]
    found = screen(
        folder, tmp_path / "out", names=names, estimates=estimates, num_workers=1
    )
    energies = [found.extra[place][ENERGY] for place in found.survivors]
    assert energies == sorted(energies)
    assert len(set(energies)) > 5
