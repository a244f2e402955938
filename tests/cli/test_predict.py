import json

import pytest

from crystalvae.cli import main
from crystalvae.data.prototypes import prototype_crystals
from tests.cli.conftest import table
from tests.conftest import REFERENCE


def test_a_formula_is_predicted_and_ranked(model_dir, tmp_path):
    out = tmp_path / "out"
    arguments = ["predict", model_dir, "--formula", "NaCl", "-n", "12", "-o", str(out)]
    arguments += ["--num-atoms", "2-5", "--workers", "1", "--no-progress"]
    assert main(arguments) == 0
    rows = table(out)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["cells"] == [2, 4]
    assert summary["written"] == len(rows) == len(list(out.glob("*.cif")))
    drawn = sum(int(row["times_drawn"]) for row in rows)
    fallen = {k: n for k, n in summary["fallen"].items() if k != "duplicate"}
    assert drawn + sum(fallen.values()) == 24
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert {row["formula"] for row in rows} == {"NaCl"}


def test_several_formulas_may_share_a_cell(tiny_model, tmp_path):
    tiny_model.card = {"trained_on": {"max_atoms": 7, "elements": ["Na", "Cl"]}}
    tiny_model.save_pretrained(tmp_path / "model")
    arguments = ["predict", str(tmp_path / "model"), "-n", "9", "--workers", "1"]
    for formula, cells in (("NaCl", [2, 4, 6]), ("Na3Cl2", [5]), ("Na", [1, 2, 3, 4])):
        out = tmp_path / formula
        assert main([*arguments, "--formula", formula, "-o", str(out)]) == 0
        summary = json.loads((out / "summary.json").read_text())
        assert summary["cells"] == cells
        cut = {"NaCl": "8 and more", "Na3Cl2": "10 and more"}.get(formula)
        assert ("left_out" in summary) is (cut is not None)
        assert cut is None or cut in summary["left_out"]


def test_a_prediction_names_the_crystal_whose_structure_it_has(model_dir, tmp_path):
    known, out = tmp_path / "known", tmp_path / "out"
    known.mkdir()
    REFERENCE["nacl"][0].to(str(known / "salt.cif"))
    arguments = ["predict", model_dir, "--formula", "KBr", "-n", "4", "-o", str(out)]
    arguments += ["--analogues", str(known), "--workers", "1", "--no-progress"]
    assert main(arguments) == 0
    named = sorted(row["analogue_of"] for row in table(out))
    assert named[-1] == "NaCl (salt)"
    assert set(named[:-1]) <= {""}


def test_known_structures_are_all_counted(model_dir, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, crystal in list(prototype_crystals())[:900:300]:
        (folder / f"{name}.cif").write_text(crystal.to_cif())
    (folder / "broken.cif").write_text("nothing")
    out = tmp_path / "out"
    arguments = ["predict", model_dir, str(folder), "-n", "2", "-o", str(out)]
    assert main([*arguments, "--workers", "1", "--no-progress"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["structures"], summary["unusable"]) == (4, 1)
    first, best = summary["first"], summary["best_of_2"]
    assert first["match_rate"] <= best["match_rate"] <= 3 / 4
    assert first["match_rate"] <= first["metre"] <= best["metre"]
    assert best["crmse"] <= first["crmse"] <= 0.5
    assert {row["material_id"] for row in table(out) if row["error"]} == {"broken"}
    assert len(list(out.glob("*_0[01].cif"))) == len(list(out.glob("*.cif")))
    assert "best_of_2: match_rate" in capsys.readouterr().out
    again = tmp_path / "again"
    arguments = ["predict", model_dir, str(folder), "-n", "1", "-o", str(again)]
    arguments += ["--analogues", str(folder), "--workers", "1", "--no-progress"]
    assert main([*arguments, "--no-cifs", "--no-polymorphs"]) == 0
    known = json.loads((again / "summary.json").read_text())["first"]
    assert known["match_rate"] == 3 / 4
    assert known["rmse"] == pytest.approx(0, abs=1e-4)
    assert "metre" not in known
    assert not list(again.glob("*.cif"))
    arguments[arguments.index(str(again))] = str(tmp_path / "other")
    assert main([*arguments, "--no-cifs", "--unlisted", str(folder)]) == 0
    other = json.loads((tmp_path / "other" / "summary.json").read_text())["first"]
    assert other["match_rate"] < known["match_rate"]
    assert other["match_rate"] == 0 or other["rmse"] > 0.1  # by a wider tolerance


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "either --formula or"),
        (["--formula", "NaCl", "-n", "0"], "-n must be"),
        (["--formula", "NaCl", "-n", "5", "--draws", "4"], "at least -n"),
        (["--formula", "Na0.5Cl"], "not integral"),
        (["--formula", "NaCl", "--num-atoms", "3"], "no multiple"),
        (
            ["--formula", "NaCl", "--num-atoms", "2", "--formula-units", "1"],
            "not both",
        ),
        (["--formula", "NaCl", "--no-cifs"], "go with structures"),
        (["--formula", "NaCl", "--limit", "3"], "go with structures"),
    ],
)
def test_user_errors_are_explained(options, message, model_dir, tmp_path, capsys):
    arguments = ["predict", model_dir, "-o", str(tmp_path / "a"), *options]
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
