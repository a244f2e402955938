import numpy as np
import pytest

from crystalvae.cli import main
from crystalvae.data.packed import PackedDataset
from crystalvae.data.prepare import prepare
from crystalvae.data.prototypes import prototype_crystals
from crystalvae.data.table import PropertyTable
from crystalvae.errors import ConfigError, DataError
from crystalvae.screening.uniqueness import formula_key
from crystalvae.training.split import split


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "cifs"
    path.mkdir()
    for number, (name, crystal) in enumerate(list(prototype_crystals())[::60]):
        (path / f"c{number}.cif").write_text(crystal.to_cif(name=name))
    return path


def table(tmp_path, text, name="id_prop.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_numbers_come_from_a_table_beside_the_files(folder, tmp_path):
    path = table(tmp_path, "file,gap,note\nc0.cif,1.5,good\nc2,2.5,\nc3,inf,x\n")
    report = prepare(folder, tmp_path / "out", num_workers=1, properties=path)
    found = PackedDataset(tmp_path / "out")
    gaps = dict(zip(found.material_ids, found.properties["gap"].tolist()))
    assert (gaps["c0"], gaps["c2"]) == (1.5, 2.5)
    assert sum(map(np.isfinite, gaps.values())) == report.known["gap"] == 2
    assert set(found.properties) == {"gap"}


def test_another_table_is_another_data_set(folder, tmp_path):
    out = tmp_path / "out"
    for value in (1.0, 2.0):
        path = table(tmp_path, f"id,gap\nc0,{value}\n")
        prepare(folder, out, num_workers=1, properties=path)
        assert np.nanmax(PackedDataset(out).properties["gap"]) == value


def test_a_table_without_header_is_that_of_cgcnn(tmp_path):
    found = PropertyTable(
        table(tmp_path, "c0,1.5,7\nc1.cif,2,\nPOSCAR.1,3\nPOSCAR.2,4\n")
    )
    assert found("c0") == {"property": 1.5, "property_2": 7}
    assert found("c1") == found("c1.cif") == {"property": 2}
    assert found("POSCAR.1") == {"property": 3}
    assert found("POSCAR.2") == {"property": 4}
    assert found("other") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("id,gap\na,1\na.cif,2\n", "twice"),
        ("id,gap\na,high\n", "holds no number"),
    ],
)
def test_a_wrong_table_is_explained(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        PropertyTable(table(tmp_path, text))


def test_a_table_of_other_structures_is_refused(folder, tmp_path):
    path = table(tmp_path, "id,gap\nx,1\n")
    with pytest.raises(DataError, match="names none of the structures"):
        prepare(folder, tmp_path / "out", num_workers=1, properties=path)
    assert not list(tmp_path.glob("out*"))


def test_whole_formulas_are_held_out_with_their_numbers(folder, tmp_path, capsys):
    (folder / "copy.cif").write_text((folder / "c0.cif").read_text())
    (folder / "broken.cif").write_text("data_x\n")
    names = [file.stem for file in sorted(folder.glob("*.cif"))]
    lines = [f"{name},{number}" for number, name in enumerate(names)]
    path = table(tmp_path, "\n".join(["id,size", *lines]))
    out = tmp_path / "mine"
    command = ["prepare", str(folder), "-o", str(out), "--properties", str(path)]
    assert main([*command, "--hold-out", "0.3", "--no-progress"]) == 0
    assert f"are in {out}_val" in capsys.readouterr().out
    parts = PackedDataset(out), PackedDataset(tmp_path / "mine_val")
    assert 0.2 < len(parts[1]) / (len(parts[0]) + len(parts[1])) < 0.4
    formulas = [{formula_key(c.composition) for c in part} for part in parts]
    assert not formulas[0] & formulas[1]
    for part in parts:
        for name, size in zip(part.material_ids, part.properties["size"]):
            assert names[int(size)] == name
    ids = [*parts[0].material_ids, *parts[1].material_ids]
    assert sorted(ids) == sorted(set(names) - {"broken"})
    assert "broken" in (out / "refused.csv").read_text()


@pytest.mark.parametrize("share", [0, 1, -0.5, float("nan")])
def test_an_impossible_share_is_refused_before_anything_is_read(share, tmp_path):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split(tmp_path / "nothing", share)
