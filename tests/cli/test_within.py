import argparse
import json
import math

import pytest

from crystalvae.cli import main
from crystalvae.cli.options import shown_windows, windows
from crystalvae.pretrained import shipped_models
from tests.cli.conftest import table
from tests.cli.test_stability import ALONE, SMALL
from tests.conftest import REFERENCE
from tests.properties.test_network import tiny_properties


@pytest.fixture
def knowing_dir(tiny_model, tmp_path):
    tiny_model.properties = tiny_properties()
    tiny_model.save_pretrained(tmp_path / "knowing")
    return str(tmp_path / "knowing")


def estimates(path, name="gap"):
    return [float(row[f"{name}_estimate"]) for row in table(path)]


def test_windows_are_read_and_shown():
    text = "band_gap=1:3,energy=:-1, e_above_hull = 0.1:"
    found = windows(text)
    assert found == {
        "band_gap": (1.0, 3.0),
        "energy": (-math.inf, -1.0),
        "e_above_hull": (0.1, math.inf),
    }
    again = ",".join(f"{k}={v}" for k, v in shown_windows(found).items())
    assert windows(again) == found
    for wrong in ("gap=1", "gap=:", "gap=3:1", "gap=a:2", "gap", "gap=1:2,gap=1:3"):
        with pytest.raises(argparse.ArgumentTypeError, match="gap"):
            windows(wrong)


def test_only_what_is_estimated_within_is_written(knowing_dir, tmp_path):
    command = ["sample", knowing_dir, "-n", "16", *SMALL]
    assert main([*command, "-o", str(tmp_path / "all")]) == 0
    every = sorted(estimates(tmp_path / "all"))
    low, high = every[4], every[11]
    assert every[0] < low < high < every[-1]
    out = tmp_path / "some"
    assert main([*command, "-o", str(out), "--within", f"gap={low}:{high}"]) == 0
    found = estimates(out)
    assert len(found) == 16
    assert low - 1e-4 <= min(found) <= max(found) <= high + 1e-4
    summary = json.loads((out / "summary.json").read_text())
    assert summary["fallen"]["gap_within"] > 0
    assert windows("gap=" + summary["within"]["gap"])["gap"] == pytest.approx(
        (low, high), rel=1e-5
    )


def test_screening_keeps_what_is_within(knowing_dir, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("rutile", "nacl", "wurtzite", "calcite", "cscl"):
        REFERENCE[name][0].to(str(folder / f"{name}.cif"))
    command = ["screen", str(folder), *ALONE]
    judge = ["--estimate", knowing_dir]
    assert main([*command, *judge, "-o", str(tmp_path / "all")]) == 0
    rows = table(tmp_path / "all")
    middle = sorted(estimates(tmp_path / "all"))[2]
    out = tmp_path / "some"
    more = [*judge, "--within", f"gap=:{middle + 1e-3}"]
    assert main([*command, *more, "-o", str(out)]) == 0
    kept = {row["name"] for row in table(out) if row["rank"]}
    assert kept == {r["name"] for r in rows if float(r["gap_estimate"]) <= middle}
    assert 0 < len(kept) < len(rows)
    page = (out / "report.html").read_text()
    assert "estimated gap" in page
    assert "the estimate is at most" in page
    assert " ± " in page
    summary = json.loads((out / "summary.json").read_text())
    assert summary["funnel"]["gap_within"] == len(kept)
    capsys.readouterr()
    assert main([*command, "--within", "gap=1:2", "-o", str(tmp_path / "no")]) == 1
    assert "needs an --estimate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ("mass=1:2", "cannot estimate 'mass'; it knows gap, energy"),
        ("gap=20:", "gap goes from 0 to 8"),
        ("e_above_hull=:0.1", "train-stability"),
    ],
)
def test_what_cannot_be_judged_is_refused_first(
    knowing_dir, tmp_path, capsys, window, message
):
    out = tmp_path / "out"
    command = ["sample", knowing_dir, "-o", str(out), "--within", window, *ALONE]
    assert main(command) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_of_copies_one_that_is_within_is_kept(knowing_dir, tmp_path):
    folder, every = tmp_path / "in", tmp_path / "all"
    folder.mkdir()
    for percent in (-8, 0, 8):
        cell = REFERENCE["wurtzite"][0].copy()
        cell.apply_strain(percent / 100)
        cell.to(str(folder / f"wurtzite{percent}.cif"))
    command = ["screen", str(folder), "--estimate", knowing_dir, *ALONE]
    assert main([*command, "-o", str(every)]) == 0
    gaps = sorted(estimates(every))
    assert gaps[0] < gaps[1] < gaps[2]
    for gap in (gaps[0], gaps[2]):
        out = tmp_path / f"{gap}"
        window = f"gap={gap - 6e-5}:{gap + 6e-5}"
        assert main([*command, "-o", str(out), "--within", window]) == 0
        kept = [row for row in table(out) if row["rank"]]
        assert [float(row["gap_estimate"]) for row in kept] == [gap]


def test_a_model_without_the_network_says_so(model_dir, tmp_path, capsys):
    command = ["sample", model_dir, "-o", str(tmp_path / "out"), "--within", "gap=1:2"]
    assert main(command) == 1
    assert "train-properties" in capsys.readouterr().err


def test_salts_have_gaps_and_metals_none(tmp_path):
    if "mp_20" not in shipped_models():
        pytest.skip("no shipped weights")
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("nacl", "calcite", "cu", "fe"):
        REFERENCE[name][0].to(str(folder / f"{name}.cif"))
    out = tmp_path / "out"
    command = ["screen", str(folder), "--estimate", "mp_20", "-o", str(out), *ALONE]
    assert main(command) == 0
    gap = {r["name"]: float(r["band_gap_estimate"]) for r in table(out)}
    assert gap["nacl"] > 3.5
    assert gap["calcite"] > 3.5
    assert gap["cu"] < 0.2 > gap["fe"]
    energy = "formation_energy_per_atom_estimate"
    formed = {r["name"]: float(r[energy]) for r in table(out)}
    assert formed["calcite"] < formed["nacl"] < -1.5
    assert formed["cu"] == pytest.approx(0, abs=0.15)
