import csv

import numpy as np
import pytest
import torch

from crystalvae.cli import main
from crystalvae.crystal import AsymmetricUnit
from crystalvae.design import walk
from crystalvae.design.walk import (
    DESCRIPTORS,
    interpolate,
    latent_axes,
    walk_axis,
)
from crystalvae.errors import DataError
from crystalvae.screening.uniqueness import default_matcher
from tests.cli.conftest import table
from tests.conftest import REFERENCE


@pytest.fixture(scope="module")
def ends():
    return [AsymmetricUnit.from_structure(REFERENCE[n][0]) for n in ("nacl", "rutile")]


@pytest.fixture(scope="module")
def axes(shipped, prototypes):
    crystals = [prototypes[row] for row in range(0, len(prototypes), 3)]
    planted = {"unknown": np.full(len(crystals), np.nan)}
    first = latent_axes(shipped, crystals, num=3, beta=0.3)
    means = shipped.encode(crystals, 0.3).mu
    planted["planted"] = ((means - first.centre) @ first.directions[1]).numpy()
    return latent_axes(shipped, crystals, num=3, beta=0.3, properties=planted)


def test_a_walk_begins_and_ends_where_it_should(shipped, ends):
    found = interpolate(shipped, *ends, steps=5)
    assert len(found) == 5
    for crystal, end in zip((found[0], found[-1]), ends):
        assert default_matcher().fit(crystal.to_structure(), end.to_structure())


def test_there_and_back_is_the_same_walk(shipped, ends):
    there = interpolate(shipped, *ends, steps=4, refine={"passes": 0})
    back = interpolate(shipped, *ends[::-1], steps=4, refine={"passes": 0})
    assert [c and c.formula for c in there] == [c and c.formula for c in back[::-1]]


def test_axes_are_orthonormal_and_ordered(axes):
    gram = axes.directions @ axes.directions.T
    torch.testing.assert_close(gram, torch.eye(3), atol=1e-5, rtol=0)
    share = axes.share.tolist()
    assert share == sorted(share, reverse=True)
    assert 0 < sum(share) <= 1


def test_a_property_along_an_axis_is_found(axes):
    assert axes.meaning["planted"][1] == pytest.approx(1)
    assert set(axes.meaning) == {*DESCRIPTORS, "planted", "unknown"}
    assert np.isnan(axes.meaning["unknown"]).all()
    for name in {*axes.meaning} - {"unknown"}:
        assert (np.abs(axes.meaning[name]) <= 1 + 1e-9).all()


def test_spreads_are_those_of_the_encodings(shipped, prototypes):
    crystals = [prototypes[row] for row in range(0, len(prototypes), 5)]
    axes = latent_axes(shipped, crystals, num=4, beta=0.3)
    means = shipped.encode(crystals, 0.3).mu
    along = (means - axes.centre) @ axes.directions.T
    torch.testing.assert_close(along.std(0), axes.spread, rtol=1e-3, atol=0)
    whole = means.var(0).sum()
    torch.testing.assert_close(along.var(0) / whole, axes.share, rtol=1e-3, atol=0)


def test_a_walk_goes_along_its_axis_only(shipped, axes, ends, monkeypatch):
    seen = []
    monkeypatch.setattr(walk, "_decode", lambda model, z, *rest: seen.append(z))
    walk_axis(shipped, axes, 1, start=ends[0], steps=5, beta=0.3, reach=2.0)
    away = seen[0] - shipped.encode([ends[0]], 0.3).mu
    expected = torch.linspace(-2, 2, 5)[:, None] * axes.spread[1] * axes.directions[1]
    torch.testing.assert_close(away, expected, atol=1e-4, rtol=1e-3)
    walk_axis(shipped, axes, 1, steps=3, beta=0.3, reach=2.0)
    torch.testing.assert_close(seen[1][1], axes.centre)


def test_equal_crystals_have_no_axes(shipped, ends):
    with pytest.raises(DataError, match="no axes"):
        latent_axes(shipped, [ends[0]] * 3, beta=0.3)
    axes = latent_axes(shipped, [*ends, ends[0]], num=5, beta=0.3)
    assert len(axes.share) == 1


def test_the_middle_of_a_walk_is_its_start(shipped, axes, ends):
    found = walk_axis(shipped, axes, 0, start=ends[1], steps=3, beta=0.05, reach=1e-6)
    for crystal in found:
        assert crystal.composition == ends[1].composition


def test_walk_command(shipped, ends, tmp_path, capsys):
    files = [tmp_path / f"{end.formula}.cif" for end in ends]
    for file, end in zip(files, ends):
        file.write_text(end.to_cif())
    out = tmp_path / "out"
    command = ["walk", "mp_20", *map(str, files)]
    assert main([*command, "-o", str(out), "--steps", "4", "--device", "cpu"]) == 0
    rows = table(out)
    assert [float(row["share"]) for row in rows] == pytest.approx(
        [0, 1 / 3, 2 / 3, 1], abs=1e-4
    )
    assert [rows[0]["formula"], rows[-1]["formula"]] == ["NaCl", "TiO2"]
    assert {row["file"] for row in rows if row["file"]} == {
        file.name for file in out.glob("*.cif")
    }
    capsys.readouterr()
    folder = [*command[:2], str(tmp_path), str(files[0]), "-o", str(tmp_path / "no")]
    assert main(folder) == 1
    assert "give a file of one" in capsys.readouterr().err


def test_axes_command(shipped, prototypes, ends, tmp_path):
    start = tmp_path / "start.cif"
    start.write_text(ends[1].to_cif())
    out = tmp_path / "out"
    command = ["axes", "mp_20", str(prototypes.path), "-o", str(out), "-n", "60"]
    options = ["--axes", "2", "--steps", "3", "--start", str(start), "--device", "cpu"]
    assert main([*command, *options]) == 0
    with (out / "axes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert {"density", "size"} <= set(rows[0])
    assert len(table(out)) == 2 * 3
    assert (out / "axes.png").read_bytes()[:4] == b"\x89PNG"
