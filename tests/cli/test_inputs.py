import logging

import pytest

from crystalvae.cli.inputs import encodable_inputs
from crystalvae.crystal import AsymmetricUnit
from crystalvae.errors import DataError
from tests.conftest import REFERENCE

NAMES = ("nacl", "rutile", "perovskite", "calcite")


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        crystal = AsymmetricUnit.from_structure(REFERENCE[name][0])
        (tmp_path / f"{name}.cif").write_text(crystal.to_cif())
    return str(tmp_path)


def decode(monkeypatch, change):
    monkeypatch.setattr(
        "crystalvae.design.reconstruct.reconstruct",
        lambda model, crystals: [change(crystal) for crystal in crystals],
    )


@pytest.mark.parametrize("most", [2, 5, 6, 9, 10])
def test_size_is_the_reason_where_it_is_beyond_the_training(
    most, folder, tiny_model, monkeypatch, caplog
):
    tiny_model.card = {"trained_on": {"max_atoms": most}}
    small = REFERENCE["nacl"][0]
    kept = AsymmetricUnit.from_structure(small).composition
    decode(monkeypatch, lambda c: c if c.composition == kept else None)
    with caplog.at_level(logging.WARNING):
        names, _, refused = encodable_inputs(tiny_model, folder)
    assert names == ["nacl"]
    assert refused.keys() == set(NAMES) - {"nacl"}
    for name, reason in refused.items():
        crystal = AsymmetricUnit.from_structure(REFERENCE[name][0])
        size = crystal.num_primitive_atoms
        of_size = (
            f"{crystal.formula} has {size} atoms in the primitive cell, and this model "
            f"was trained on at most {most}"
        )
        assert (reason == of_size) == (size > most)
        assert ("too unlike" in reason) == (size <= most)


def test_what_is_found_again_is_used_whatever_its_size(folder, tiny_model, monkeypatch):
    tiny_model.card = {"trained_on": {"max_atoms": 1}}
    decode(monkeypatch, lambda crystal: crystal)
    names, _, refused = encodable_inputs(tiny_model, folder)
    assert sorted(names) == sorted(NAMES)
    assert not refused


def test_a_model_that_does_not_say_its_size_names_none(folder, tiny_model, monkeypatch):
    decode(monkeypatch, lambda _: None)
    with pytest.raises(DataError, match="too unlike"):
        encodable_inputs(tiny_model, folder)


def test_more_than_can_be_emitted_is_named_by_its_size(folder, tiny_model):
    tiny_model.card = {"trained_on": {"max_atoms": 1}}
    object.__setattr__(tiny_model.config.decoder, "max_sites", 0)
    with pytest.raises(DataError, match="was trained on at most 1"):
        encodable_inputs(tiny_model, folder)
    tiny_model.card = {}
    with pytest.raises(DataError, match="emits up to 0"):
        encodable_inputs(tiny_model, folder)
