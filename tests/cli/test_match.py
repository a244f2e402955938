import json

import pytest

from crystalvae.cli import main
from tests.cli.conftest import table
from tests.conftest import REFERENCE

NAMES = ("rutile", "quartz", "nacl", "cscl")


@pytest.fixture
def known(tmp_path):
    folder = tmp_path / "known"
    folder.mkdir()
    for name in NAMES:
        REFERENCE[name][0].to(filename=str(folder / f"{name}.cif"))
    return folder


def run(predictions, known, out, *more):
    arguments = ["match", str(predictions), str(known), "-o", str(out)]
    assert main([*arguments, "--workers", "1", *more]) == 0
    return json.loads((out / "summary.json").read_text())


def test_a_supercell_of_itself_matches(known, tmp_path):
    folder = tmp_path / "predicted"
    folder.mkdir()
    for name in NAMES[:3]:
        structure = REFERENCE[name][0] * (1, 1, 2)
        structure.to(filename=str(folder / f"{name}.cif"))
    summary = run(folder, known, tmp_path / "out")
    assert summary["first"]["match_rate"] == 3 / 4
    assert summary["first"]["match_rate_valid"] == 3 / 4
    assert summary["first"]["rmse"] == pytest.approx(0, abs=1e-4)
    assert summary["without_prediction"] == 1


def test_every_file_is_accounted_for(known, tmp_path):
    folder = tmp_path / "predicted"
    folder.mkdir()
    REFERENCE["quartz"][0].to(filename=str(folder / "rutile_0.cif"))
    REFERENCE["rutile"][0].to(filename=str(folder / "rutile_10.cif"))
    (folder / "rutile_2.cif").write_text("nothing")
    (folder / "quartz.cif").write_text("nothing")
    REFERENCE["nacl"][0].to(filename=str(folder / "other.cif"))
    summary = run(folder, known, tmp_path / "out", "--no-polymorphs")
    assert summary["predictions"] == 5
    assert summary["unreadable_predictions"] == 2
    assert summary["of_no_reference"] == 1
    assert summary["without_prediction"] == 2
    assert summary["first"]["match_rate"] == 0
    assert summary["best_of_3"]["match_rate"] == 1 / 4
    rows = {row["material_id"]: row for row in table(tmp_path / "out")}
    assert rows["rutile"]["nearest"] == "2"
    assert set(rows) == set(NAMES)


def test_what_reconstruct_writes_can_be_matched_again(model_dir, known, tmp_path):
    again = tmp_path / "again"
    arguments = ["reconstruct", model_dir, str(known), "-o", str(again), "--greedy"]
    assert main([*arguments, "--workers", "1", "--no-progress"]) == 0
    written = json.loads((again / "summary.json").read_text())
    cifs = tmp_path / "cifs"
    cifs.mkdir()
    for path in again.glob("*.cif"):
        path.rename(cifs / path.name)
    assert list(cifs.iterdir())
    summary = run(cifs, known, tmp_path / "out")
    assert summary["first"]["match_rate"] == written["match_rate"]


def test_names_that_do_not_fit_are_explained(known, tmp_path, capsys):
    folder = tmp_path / "predicted"
    folder.mkdir()
    REFERENCE["nacl"][0].to(filename=str(folder / "a.cif"))
    out = tmp_path / "out"
    assert main(["match", str(folder), str(known), "-o", str(out)]) == 1
    assert "named after" in capsys.readouterr().err
    assert not out.exists()
