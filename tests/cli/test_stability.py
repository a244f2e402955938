import argparse
import json

import numpy as np
import pytest
from ase.io import read
from pymatgen.core import Structure

from crystalvae.cli import VERBS, _how_to_go_on, main
from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.packed import PackedDataset, pack, write_packed
from crystalvae.data.prototypes import prototype_crystals
from crystalvae.decoder import DecoderConfig
from crystalvae.model import CrystalVAE
from crystalvae.pretrained import shipped_models
from crystalvae.stability.score import stability_estimates
from crystalvae.training.config import Source
from crystalvae.training.data import load_sources
from tests.cli.conftest import table
from tests.conftest import REFERENCE
from tests.stability.test_network import tiny_network

ALONE = ["--workers", "1", "--no-progress"]
SMALL = ["--num-atoms", "1-6", *ALONE]


@pytest.fixture
def judging_dir(tiny_model, tmp_path):
    tiny_model.stability = tiny_network()
    tiny_model.save_pretrained(tmp_path / "judging")
    return str(tmp_path / "judging")


def probabilities(path):
    return [float(row["stable_probability"]) for row in table(path)]


def test_only_what_is_likely_to_be_stable_is_written(judging_dir, tmp_path):
    command = ["sample", judging_dir, "-n", "16", *SMALL]
    assert main([*command, "-o", str(tmp_path / "all")]) == 0
    every = sorted(probabilities(tmp_path / "all"))
    frames = read(tmp_path / "all" / "crystals.extxyz", ":")
    assert sorted(f.info["stable_probability"] for f in frames) == every
    limit = every[8]
    assert every[0] < limit < every[-1]
    out = tmp_path / "likely"
    assert main([*command, "-o", str(out), "--likely-stable", str(limit)]) == 0
    assert len(probabilities(out)) == 16
    assert min(probabilities(out)) >= limit - 1e-4
    summary = json.loads((out / "summary.json").read_text())
    assert summary["fallen"]["likely_stable"] > 0
    assert summary["likely_stable"] == pytest.approx(limit)


def test_known_crystals_are_left_out(judging_dir, tmp_path):
    command = ["sample", judging_dir, "-n", "8", *SMALL]
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*command, "-o", str(first)]) == 0
    assert main([*command, "-o", str(second), "--unlisted", str(first)]) == 0
    summary = json.loads((second / "summary.json").read_text())
    assert summary["fallen"]["unlisted"] >= 7
    assert str(first) in summary["note"]
    third = tmp_path / "third"
    both = ["--unlisted", str(first), "--unlisted", str(second)]
    assert main([*command, "-o", str(third), *both]) == 0
    summary = json.loads((third / "summary.json").read_text())
    assert summary["fallen"]["unlisted"] >= 14
    assert summary["unlisted"] == f"{first}, {second}"


def test_screening_ranks_by_the_estimate(judging_dir, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("rutile", "nacl", "wurtzite", "quartz"):
        REFERENCE[name][0].to(str(folder / f"{name}.cif"))
    command = ["screen", str(folder), "--estimate", judging_dir, *ALONE]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    rows = [row for row in table(tmp_path / "out") if row["rank"]]
    values = [float(row["stable_probability"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Ranked by stable_probability" in page
    assert main([*command, "-o", str(tmp_path / "dense"), "--rank-by", "density"]) == 0
    rows = [row for row in table(tmp_path / "dense") if row["rank"]]
    dense = [float(row["density_value"]) for row in rows]
    assert dense == sorted(dense, reverse=True)
    assert all(row["stable_probability"] for row in rows)


def test_relatives_of_crystals_are_judged(judging_dir, tmp_path):
    known, more = tmp_path / "known", tmp_path / "more"
    built = list(prototype_crystals())[::40]
    write_packed(known, pack([c for _, c in built]), [name for name, _ in built], {})
    command = ["substitute", str(known), "-n", "20", "-o", str(more), *ALONE]
    assert main([*command, "--estimate", judging_dir]) == 0
    relatives = PackedDataset(more)
    network = CrystalVAE.from_pretrained(judging_dir).stability
    judged = stability_estimates(network, list(relatives))
    assert relatives.properties["stable_probability"] == pytest.approx(
        [estimate.probability for estimate in judged], abs=1e-3
    )
    limit = float(np.median(relatives.properties["e_above_hull_estimate"]))
    source = Source(path="more", at_most={"e_above_hull_estimate": limit})
    chosen = load_sources([source], tmp_path, DecoderConfig())
    assert 0 < len(chosen.store) < len(relatives)
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []


def test_a_model_without_the_network_says_so(model_dir, tmp_path, capsys):
    cif = tmp_path / "nacl.cif"
    cif.write_text(AsymmetricUnit.from_structure(REFERENCE["nacl"][0]).to_cif())
    out = tmp_path / "out"
    for verb, more in (("sample", []), ("neighbors", [str(cif)])):
        command = [verb, model_dir, *more, "-o", str(out), "--likely-stable", "0.5"]
        assert main(command) == 1
        assert "train-stability" in capsys.readouterr().err
        assert not out.exists()


def test_who_starts_from_a_model_keeps_its_network(judging_dir, tmp_path):
    model = CrystalVAE.from_pretrained(judging_dir, "cpu")
    model.save_pretrained(tmp_path / "again")
    again = CrystalVAE.from_pretrained(tmp_path / "again", "cpu")
    assert again.stability is not None
    model.stability = None
    model.save_pretrained(tmp_path / "again")
    assert not list((tmp_path / "again").glob("stability*"))


def test_every_training_can_go_on():
    trainings = [verb for verb in VERBS if verb.startswith("train")]
    assert len(trainings) == 4
    for verb in trainings:
        assert "--resume" in _how_to_go_on(argparse.Namespace(verb=verb))


def test_what_is_far_from_relaxed_gets_no_estimate(tmp_path):
    if "mp_20" not in shipped_models():
        pytest.skip("no shipped weights")
    salt = REFERENCE["nacl"][0]
    (tmp_path / "in").mkdir()
    for name, stretch in (("dense", 0.8), ("near", 0.97), ("own", 1.0)):
        other = salt.copy()
        other.scale_lattice(salt.volume * stretch**3)
        other.to(str(tmp_path / "in" / f"{name}.cif"))
    out = str(tmp_path / "out")
    command = ["screen", str(tmp_path / "in"), "-o", out, *ALONE, "--checks", "volume"]
    assert main([*command, "--estimate", "mp_20"]) == 0
    rows = {row["name"]: row for row in table(tmp_path / "out")}
    assert float(rows["dense"]["residual"]) > 4
    assert rows["dense"]["stable_probability"] == ""
    for name in ("near", "own"):
        assert float(rows[name]["stable_probability"]) > 0.8
        assert float(rows[name]["residual"]) < 2
    assert [name for name, row in rows.items() if row["rank"]] == ["own"]
    assert "the same as own" in rows["dense"]["notes"]


def test_slabs_and_sheets_get_no_bulk_estimate(tmp_path):
    if "mp_20" not in shipped_models():
        pytest.skip("no shipped weights")
    (tmp_path / "in").mkdir()
    salt = REFERENCE["nacl"][0].to_conventional()
    for name, height in (("slab", 18.0), ("bulk", 0.0)):
        lattice = salt.lattice.matrix.copy()
        lattice[2, 2] += height
        cell = Structure(
            lattice, salt.species, salt.cart_coords, coords_are_cartesian=True
        )
        cell.to(str(tmp_path / "in" / f"{name}.cif"))
    command = ["screen", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *ALONE]
    assert main([*command, "--estimate", "mp_20"]) == 0
    rows = {row["name"]: row for row in table(tmp_path / "out")}
    assert float(rows["slab"]["vacuum"]) == pytest.approx(18 + 5.64 / 2, abs=0.3)
    assert rows["slab"]["stable_probability"] == rows["bulk"]["vacuum"] == ""
    assert float(rows["bulk"]["stable_probability"]) > 0.8
