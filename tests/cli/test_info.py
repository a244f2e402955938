import json
import re

import pytest
from ase.data import chemical_symbols

from crystalvae.cli import main
from crystalvae.cli.info import LABEL, WIDTH
from crystalvae.pretrained import load_model, shipped_models


def printed(capsys, *arguments):
    assert main(["info", *arguments]) == 0
    return capsys.readouterr().out


def by_label(text):
    """Label → text of each line, lines that go on joined."""
    found, label = {}, ""
    for line in text.splitlines():
        assert len(line) <= WIDTH
        assert line[LABEL - 1] == " " != line[LABEL]
        label = line[:LABEL].strip() or label
        found[label] = f"{found.get(label, '')} {line[LABEL:]}".strip()
    return found


@pytest.mark.parametrize("name", shipped_models())
def test_a_shipped_model_is_described_in_words(name, capsys):
    card = load_model(name, "cpu").card
    text = printed(capsys, name)
    assert not set(text) & set('{}[]"')
    lines = by_label(text)
    assert len(lines) <= 18
    assert lines["what it is"] == card["summary"]
    assert lines["trained on"] == "; ".join(card["training_sets"])
    assert str(card["trained_on"]["max_atoms"]) in lines["largest size"]
    assert f"{card['sampling']['beta']:g} to sample" in lines["beta"]
    assert "decoder" in lines["networks"]
    match = 100 * card["metrics"]["reconstruction"]["match_rate"]
    assert f"{match:.1f} % match" in lines["reconstruction"]
    elements = card["trained_on"]["elements"]
    number = re.match(r"[0-9]+", lines["elements"])
    assert int(number.group()) == len(elements) if number else elements == ["C"]
    beside = {"refiner": "refiner", "stability": "stability", "properties": "property"}
    for stem, what in beside.items():
        missing = not (shipped_models()[name] / f"{stem}.json").exists()
        assert (f"no {what}" in lines["networks"]) == missing


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        (["O", "Li"], "O, Li"),
        (chemical_symbols[1:14], "13, H to Al"),
        (chemical_symbols[1:10] + chemical_symbols[11:15], "13, H to Si without Ne"),
        (chemical_symbols[41:54], f"13: {', '.join(chemical_symbols[41:54])}"),
        (None, None),
    ],
)
def test_elements_are_said_in_short(elements, said, tiny_model, tmp_path, capsys):
    tiny_model.card = {"trained_on": {"elements": elements}} if elements else {}
    tiny_model.save_pretrained(tmp_path)
    assert by_label(printed(capsys, str(tmp_path))).get("elements") == said


def test_json_is_the_whole_card(tiny_model, tmp_path, capsys):
    tiny_model.card = {"summary": "some", "run": {"data": {}}, "metrics": {"x": [1.5]}}
    tiny_model.save_pretrained(tmp_path)
    assert json.loads(printed(capsys, str(tmp_path), "--json")) == tiny_model.card
    assert "metrics" not in printed(capsys, str(tmp_path))


def test_without_a_model_the_shipped_are_listed(capsys):
    assert json.loads(printed(capsys, "--json")).keys() == shipped_models().keys()
    lines = printed(capsys).splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_models())


def test_a_run_is_told_from_what_it_began_with(tiny_model, tmp_path, capsys):
    tiny_model.card = {
        "run": {"data": {"train": [{"path": "../runs/mine"}]}, "init": "mp_20"},
        "crystals": 257,
        "step": 160,
        "epoch": 40,
        "validation": {"val_loss": -10.234},
    }
    tiny_model.save_pretrained(tmp_path)
    said = by_label(printed(capsys, str(tmp_path)))["trained on"]
    expected = "mine (257 crystals), starting from mp_20, 160 steps (40 passes)"
    assert said == f"{expected}, validation loss -10.23"
