import json
import shutil

import pytest
from ase.io import read
from pymatgen.core import Structure

from crystalvae.cli import main
from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.packed import pack, write_packed
from crystalvae.model import CrystalVAE
from crystalvae.refinement.score import residuals
from tests.cli.conftest import table
from tests.conftest import REFERENCE
from tests.refinement.conftest import tiny_refiner

CONFIG = """
[data]
train = [{ path = "packed" }]
val = [{ path = "packed" }]

[refiner]
dim = 16
num_layers = 1
message_dim = 8
num_radial = 8
num_channels = 2
num_neighbors = 8

[training]
epochs = 1
batch_size = 4
"""


@pytest.fixture
def refined_dir(tiny_model, tmp_path):
    tiny_model.refiner = tiny_refiner()
    tiny_model.card["refinement"] = {"passes": 2, "noise": 0.1, "strain": 0.01}
    tiny_model.save_pretrained(tmp_path / "refined")
    return str(tmp_path / "refined")


def sample(model, output, *options):
    base = ["-n", "6", "--raw", "--num-atoms", "2-6", "--no-progress"]
    assert main(["sample", model, "-o", str(output), *base, *options]) == 0
    return json.loads((output / "summary.json").read_text())


def test_the_card_says_how_draws_are_refined(refined_dir, tmp_path):
    summary = sample(refined_dir, tmp_path / "out")
    assert summary["refine"]["passes"] == 2
    assert summary["refine"]["noise"] == 0.1
    plain = sample(refined_dir, tmp_path / "plain", "--refine", "passes=0")
    assert plain["refine"]["passes"] == 0
    rows, plain_rows = (table(tmp_path / name) for name in ("out", "plain"))
    for name in ("formula", "space_group"):
        assert [row[name] for row in rows] == [row[name] for row in plain_rows]
    written = [
        [file.read_text() for file in sorted((tmp_path / name).glob("*.cif"))]
        for name in ("out", "plain")
    ]
    assert written[0] != written[1]


def test_without_a_refiner_it_is_one_line(model_dir, tmp_path, capsys):
    arguments = ["sample", model_dir, "-o", str(tmp_path / "out"), "-n", "2"]
    assert main([*arguments, "--refine", "passes=3"]) == 1
    assert "train-refiner" in capsys.readouterr().err


def test_predict_refines_as_well(refined_dir, tmp_path):
    known = tmp_path / "nacl.cif"
    REFERENCE["nacl"][0].to(str(known))
    written = []
    for name, options in (("out", []), ("plain", ["--refine", "passes=0"])):
        out = tmp_path / name
        arguments = ["predict", refined_dir, str(known), "-n", "3", "-o", str(out)]
        assert main([*arguments, "--no-progress", *options]) == 0
        summary = json.loads((out / "summary.json").read_text())
        assert summary["refine"]["passes"] == (0 if options else 2)
        written.append([file.read_text() for file in sorted(out.glob("*.cif"))])
    assert len(written[0]) == len(written[1]) > 0
    assert written[0] != written[1]


def test_a_trained_refiner_is_copied_beside_a_model(
    model_dir, tmp_path, crystals, capsys
):
    packed = tmp_path / "packed"
    write_packed(packed, pack(crystals), [str(i) for i in range(len(crystals))], {})
    config = tmp_path / "refiner.toml"
    config.write_text(CONFIG)
    run = tmp_path / "run"
    arguments = ["train-refiner", str(config), "-o", str(run), "--no-progress"]
    assert main([*arguments, "--device", "cpu"]) == 0
    assert "best refiner" in capsys.readouterr().out
    for file in (run / "best").iterdir():
        shutil.copy(file, model_dir)
    assert CrystalVAE.from_pretrained(model_dir, "cpu").refiner is not None
    sample(model_dir, tmp_path / "out", "--refine", "passes=1")
    assert main([*arguments, "--set", "training.epoch=2"]) == 1
    assert "did you mean 'epochs'" in capsys.readouterr().err


def test_tables_and_frames_say_the_residual(refined_dir, tmp_path):
    out = tmp_path / "out"
    command = ["sample", refined_dir, "-n", "5", "-o", str(out), "--num-atoms", "1-6"]
    assert main([*command, "--no-progress", "--workers", "1"]) == 0
    rows = table(out)
    values = [float(row["residual"]) for row in rows]
    assert len(values) > 1
    frames = read(out / "crystals.extxyz", ":")
    assert [frame.info["residual"] for frame in frames] == values
    files = [Structure.from_file(out / row["file"]) for row in rows]
    crystals = [AsymmetricUnit.from_structure(structure) for structure in files]
    refiner = CrystalVAE.from_pretrained(refined_dir).refiner
    assert values == pytest.approx(residuals(refiner, crystals), rel=0.05)


def test_any_structures_are_ranked_by_a_model_s_residual(refined_dir, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("rutile", "nacl", "wurtzite"):
        REFERENCE[name][0].to(str(folder / f"{name}.cif"))
    (folder / "broken.cif").write_text("nothing")
    out = tmp_path / "out"
    command = ["screen", str(folder), "-o", str(out), "--no-progress", "--workers", "1"]
    assert main([*command, "--estimate", refined_dir]) == 0
    rows = [row for row in table(out) if row["rank"]]
    assert sorted(row["name"] for row in rows) == ["nacl", "rutile", "wurtzite"]
    values = [float(row["residual"]) for row in rows]
    assert values == sorted(values)
    crystals = [AsymmetricUnit.from_structure(REFERENCE[r["name"]][0]) for r in rows]
    refiner = CrystalVAE.from_pretrained(refined_dir).refiner
    assert values == pytest.approx(residuals(refiner, crystals), rel=2e-3)
    summary = json.loads((out / "summary.json").read_text())
    assert refined_dir in summary["rank_by"]


def test_a_model_without_a_refiner_ranks_nothing(model_dir, tmp_path, capsys):
    REFERENCE["nacl"][0].to(str(tmp_path / "nacl.cif"))
    command = ["screen", str(tmp_path / "nacl.cif"), "-o", str(tmp_path / "out")]
    assert main([*command, "--estimate", model_dir]) == 1
    assert "no network that judges" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
