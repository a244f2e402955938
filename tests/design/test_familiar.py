import logging

import pytest

from crystalvae.design.familiar import beyond_training, unseen_elements
from crystalvae.design.sample import draw_checked
from crystalvae.generation import Constraints

CARD = {"trained_on": {"max_atoms": 6, "elements": ["Na", "Cl", "Ti", "O"]}}


@pytest.fixture
def model(tiny_model):
    tiny_model.card = dict(CARD)
    return tiny_model


def test_elements_that_were_never_seen_are_not_drawn(model):
    assert len(unseen_elements(model)) == 118 - 4
    kept, _ = draw_checked(
        model, 20, raw=True, constraints=Constraints(max_atoms=6), seed=3
    )
    assert {z for d in kept for z in d.crystal.composition} <= {8, 11, 17, 22}
    wanted = Constraints(elements=frozenset({12, 16}), max_atoms=6)
    kept, _ = draw_checked(model, 5, raw=True, constraints=wanted)
    assert {z for d in kept for z in d.crystal.composition} <= {12, 16}


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"min_atoms": 7}, "at most 6 atoms, not 7"),
        ({"composition": {11: 4, 17: 4}}, "at most 6 atoms, not 8"),
        ({"composition": {12: 1, 8: 1}}, "no crystal with Mg"),
        ({"elements": frozenset({12, 16})}, "no crystal with Mg, S"),
        ({"required": frozenset({3})}, "no crystal with Li"),
    ],
)
def test_what_is_beyond_the_training_is_said(model, limits, said, caplog):
    assert said in beyond_training(model, Constraints(**limits))
    with caplog.at_level(logging.WARNING):
        draw_checked(model, 1, raw=True, constraints=Constraints(**limits))
    assert said in caplog.text


def test_what_the_training_had_is_not_mentioned(model, tiny_model):
    known = Constraints({11: 1, 17: 1}, frozenset({11, 17, 12}), None, 2, 6)
    assert beyond_training(model, known) is None
    tiny_model.card = {}
    assert beyond_training(tiny_model, Constraints(min_atoms=500)) is None
    assert unseen_elements(tiny_model) == []
