import csv
import json
import os
import re
import subprocess
import sys

import pytest
from pymatgen.core import Structure

from crystalvae.cli import main
from crystalvae.data.packed import PackedDataset, pack, write_packed
from crystalvae.data.prototypes import prototype_crystals
from crystalvae.design.output import unused_name
from crystalvae.errors import CheckpointError
from crystalvae.pretrained import find_model, shipped_models
from tests.cli.conftest import table
from tests.data.test_readers import good_cif, torture


def test_sample_writes_what_it_says(model_dir, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["-n", "6", "--raw", "--num-atoms", "2-8", "--no-progress"]
    assert main(["sample", model_dir, "-o", str(out), *options]) == 0
    summary = json.loads((out / "summary.json").read_text())
    files = sorted(out.glob("*.cif"))
    assert len(files) == summary["written"] == len(table(out))
    assert "crystals in" in capsys.readouterr().out
    for file, row in zip(files, table(out), strict=True):
        assert row["file"] == file.name
        assert 2 <= int(row["num_primitive_atoms"]) <= 8
        conventional = Structure.from_file(file)
        assert len(conventional) % int(row["num_primitive_atoms"]) == 0
    assert (out / "crystals.extxyz").exists()
    again = tmp_path / "again"
    assert main(["sample", model_dir, "-o", str(again), *options]) == 0
    assert [f.read_text() for f in files] == [
        f.read_text() for f in sorted(again.glob("*.cif"))
    ]


def test_only_what_passes_is_written(model_dir, tmp_path):
    out = tmp_path / "out"
    arguments = ["sample", model_dir, "-n", "3", "-o", str(out), "--num-atoms", "1-6"]
    asked = ["--elements", "Na,Cl,Pb", "--exclude", "Pb", "--space-group", "1-9,R-3m"]
    assert main([*arguments, *asked, "--no-progress"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["draws"] == summary["written"] + sum(summary["fallen"].values())
    assert all(row["distance_ok"] != "False" for row in table(out))
    assert not any("Pb" in row["formula"] for row in table(out))
    assert {int(row["space_group"]) for row in table(out)} <= {*range(1, 10), 166}
    assert summary["asked"]["exclude"] == "Pb"


def test_reconstruct_gives_one_cif_an_input(model_dir, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    groups = {}
    for name, crystal in list(prototype_crystals())[:900:300]:
        (folder / f"{name}.cif").write_text(crystal.to_cif())
        groups[name] = crystal.number
    (folder / "broken.cif").write_text("nothing")
    out = tmp_path / "out"
    arguments = ["reconstruct", model_dir, str(folder), "-o", str(out)]
    assert main([*arguments, "--no-progress", "--workers", "1"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["structures"] == 4
    assert summary["unusable"] == 1
    rows = {row["material_id"]: row for row in table(out)}
    assert "broken" in rows
    assert rows["broken"]["error"]
    written = {path.stem for path in out.glob("*.cif")}
    complete = {i for i, row in rows.items() if not row["error"]}
    assert written == complete
    assert all(float(rows[name]["encoding_distance"]) > 0.1 for name in complete)
    prepared, again = str(tmp_path / "prepared"), tmp_path / "again"
    assert main(["prepare", str(folder), "-o", prepared, "--workers", "1"]) == 0
    arguments = ["reconstruct", model_dir, prepared, "-o", str(again)]
    assert main([*arguments, "--no-progress", "--workers", "1"]) == 0
    for row in [*table(again), *(rows[name] for name in complete)]:
        right = int(row["space_group"]) == groups[row["material_id"]]
        assert row["group_right"] == str(right)


def test_validate_accounts_for_every_input(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    expected = torture(folder)
    (folder / "good.cif").write_text(good_cif())
    out = tmp_path / "out"
    assert main(["validate", str(folder), "-o", str(out), "--workers", "1"]) == 0
    rows = {row["name"]: row for row in table(out)}
    assert set(rows) == set(expected) | {"good"}
    assert rows["good"]["passed"] == "True"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["unreadable"] == len(expected)
    assert "unreadable" in capsys.readouterr().out


def test_prepare_and_train_from_the_command_line(tmp_path, capsys):
    source = tmp_path / "set.csv"
    with source.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif"])
        for name, crystal in list(prototype_crystals())[::300]:
            writer.writerow([name, crystal.to_cif()])
    data = tmp_path / "packed"
    arguments = ["prepare", str(source), "-o", str(data), "--workers", "1"]
    assert main([*arguments, "--no-progress"]) == 0
    assert "0 refused" in capsys.readouterr().out
    config = tmp_path / "run.toml"
    config.write_text(
        '[data]\ntrain = [{ path = "packed" }]\nval = [{ path = "packed" }]\n'
        '[model.encoder]\nname = "gated"\noptions = { dim = 16, num_layers = 1 }\n'
        "[model.latent]\ndim = 8\n[model.decoder]\ndim = 32\nnum_layers = 1\n"
        "[training]\nepochs = 1\nbatch_size = 8\n"
    )
    run = tmp_path / "run"
    arguments = ["train", str(config), "-o", str(run), "--accelerator", "cpu"]
    assert main([*arguments, "--no-progress"]) == 0
    assert main(["info", str(run / "best")]) == 0
    assert re.search("latent +8 dimensions", capsys.readouterr().out)


def source_file(folder):
    path = folder / "a_file"
    path.write_text("")
    return path


def test_substitutes_train_beside_the_crystals(tmp_path, capsys):
    known = tmp_path / "known"
    built = list(prototype_crystals())[::40]
    crystals = [crystal for _, crystal in built]
    write_packed(known, pack(crystals), [name for name, _ in built], {})
    arguments = ["substitute", str(known), "-o", str(tmp_path / "more"), "-n", "30"]
    assert main([*arguments, "--workers", "1", "--no-progress"]) == 0
    assert "one element away" in capsys.readouterr().out
    relatives = PackedDataset(tmp_path / "more")
    assert 1 <= len(relatives) <= 30
    listed = {tuple(crystal.composition.items()) for crystal in crystals}
    assert not {tuple(c.composition.items()) for c in relatives} & listed
    again = [*arguments, "--workers", "1", "--no-progress", "--seed", "4"]
    assert main(again) == 0  # replaces its own work, nothing else
    for output in (known, tmp_path, source_file(tmp_path) / "a"):
        assert main(["substitute", str(known), "-o", str(output)]) == 1
        assert "unexpected" not in capsys.readouterr().err
    assert len(PackedDataset(known)) == len(crystals)


CONTRADICTION = ["--require", "O", "--exclude", "Pb,O"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "nothing", "-o", "{tmp}/a"], "no model 'nothing'"),
        (["sample", "{model}", "-n", "0", "-o", "{tmp}/a"], "must be at least 1"),
        (["sample", "{model}", "-o", "{tmp}"], "not empty"),
        (["sample", "{model}", "-o", "{tmp}/a", "--elements", "Qq"], "no element"),
        (["sample", "{model}", "-o", "{tmp}/a", "--space-group", "400"], "230"),
        (["sample", "{model}", "-o", "{tmp}/a", "--space-group", "R-4m"], "mean R-3m"),
        (["sample", "{model}", "-o", "{tmp}/a", "--num-atoms", "9-2"], "empty range"),
        (["sample", "{model}", "-o", "{tmp}/a", "--num-atoms", "4-"], "a range A-B"),
        (["sample", "{model}", "-o", "{tmp}/a", *CONTRADICTION], "O is required"),
        (["validate", "{tmp}/none.csv", "-o", "{tmp}/a"], "no file"),
        (["validate", "{tmp}/empty", "-o", "{tmp}/a"], "holds no"),
        (["prepare", "{tmp}/empty", "-o", "{tmp}/a"], "holds no"),
        (["train", "{tmp}/none.toml", "-o", "{tmp}/a"], "no config file"),
        (["datasets", "fetch", "mp20"], "no data set"),
        (["datasets", "fetch", "alex_mp_20", "-o", "{tmp}/a"], "git-lfs"),
    ],
)
def test_user_errors_are_one_line_and_code_1(
    arguments, message, model_dir, tmp_path, capsys
):
    (tmp_path / "empty").mkdir()
    filled = [a.format(tmp=tmp_path, model=model_dir) for a in arguments]
    assert main(filled) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_wrong_usage_is_code_2():
    with pytest.raises(SystemExit) as caught:
        main(["sample"])
    assert caught.value.code == 2


def test_interruption_is_code_130(monkeypatch, model_dir, tmp_path, capsys):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("crystalvae.design.sample.draw_checked", interrupt)
    assert main(["sample", model_dir, "-o", str(tmp_path / "a")]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_full_disk_leaves_no_half_file(monkeypatch, model_dir, tmp_path, capsys):
    def full(path, text, *_args, **_kwargs):
        path.write_bytes(text[: len(text) // 2].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    out = tmp_path / "out"
    code = main(["sample", model_dir, "-n", "2", "--raw", "-o", str(out)])
    assert code == 1
    assert "disk space" in capsys.readouterr().err
    assert not list(out.iterdir())


def test_fetch_makes_the_built_in_set_and_lists(tmp_path, capsys):
    assert main(["datasets", "list"]) == 0
    assert "mpts_52" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [[], ["tradeoff"]])
def test_help_can_be_read_on_any_terminal(verb):
    done = subprocess.run(
        [sys.executable, "-m", "crystalvae", *verb, "--help"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"usage" in done.stdout


def test_help_is_quick_and_quiet():
    code = (
        "import sys; from crystalvae.cli import build_parser; build_parser();"
        "sys.exit('torch' in sys.modules or 'pymatgen' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert not done.stdout


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_a_shipped_card_names_no_path_of_a_machine(name):
    for file in find_model(name).glob("*.json"):
        assert not re.search(r'"(/|[A-Z]:)', file.read_text())


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_shipped_models_sample(name, tmp_path):
    out = tmp_path / "out"
    assert main(["sample", name, "-n", "8", "-o", str(out), "--no-progress"]) == 0
    for path in out.glob("*.cif"):
        assert len(Structure.from_file(path)) > 0


def test_an_output_directory_does_not_hide_a_shipped_model(tmp_path, monkeypatch):
    shipped = shipped_models()
    if "perov_5" not in shipped:
        pytest.skip("no weights in this checkout")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "perov_5").mkdir()
    assert find_model("perov_5") == shipped["perov_5"]
    run = tmp_path / "run"
    (run / "best").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="best"):
        find_model(run)


@pytest.mark.parametrize(
    "options",
    [
        ["--top-p", "0"],
        ["--temperature", "nan"],
        ["--temperature", "-1"],
        ["--beta", "0"],
        ["--seed", "9" * 20],
        ["--part-temperature", "count=-1"],
    ],
)
def test_numbers_out_of_range_are_wrong_usage(options, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["sample", "x", "-o", str(tmp_path / "a"), *options])
    assert stopped.value.code == 2
    assert options[0] in capsys.readouterr().err


def test_an_unknown_device_is_one_line(model_dir, tmp_path, capsys):
    out = str(tmp_path / "a")
    assert main(["sample", model_dir, "-o", out, "--device", "foo"]) == 1
    assert "no device 'foo'" in capsys.readouterr().err


def test_names_of_files_fit_on_a_disk():
    used = set()
    first, second = (unused_name("ü" * 300 + "\n/x", used) for _ in range(2))
    assert first != second
    assert max(len(name.encode()) for name in used) <= 250
    assert not any("/" in name or "\n" in name for name in used)
