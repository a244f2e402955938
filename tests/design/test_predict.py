import math
import multiprocessing
import time

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols

from crystalvae.crystal import AsymmetricUnit
from crystalvae.design.alike import Listed
from crystalvae.design.analogues import Analogues
from crystalvae.design.predict import predict
from crystalvae.design.ranking import (
    NAT,
    OFTEN,
    distinct_ranked,
    log_likelihoods,
    most_drawn,
    num_free,
    scores_of_draws,
)
from crystalvae.errors import ConfigError
from crystalvae.generation import Constraints, SamplingOptions, generate
from crystalvae.screening.uniqueness import ReferenceIndex, is_known
from tests.conftest import REFERENCE

CELLS = [{8: 3, 22: 1, 38: 1}, {11: 1, 17: 1}, {6: 4}]


def same(first, second):
    return (
        first.number == second.number
        and first.wyckoffs.tolist() == second.wyckoffs.tolist()
        and first.atomic_numbers.tolist() == second.atomic_numbers.tolist()
        and np.allclose(first.frac_coords, second.frac_coords, atol=1e-5)
        and np.allclose(first.lattice, second.lattice, rtol=1e-5)
    )


def test_each_crystal_has_its_own_composition(tiny_model):
    found = predict(tiny_model, CELLS, 3)
    assert [len(own) for own in found] == [3, 3, 3]
    for cell, own in zip(CELLS, found):
        assert all(c.composition == cell for c in own if c is not None)
    assert sum(c is not None for own in found for c in own) >= 6


def test_processes_change_no_prediction(tiny_model):
    options = {"seed": 1, "batch_size": 4}
    alone = predict(tiny_model, CELLS, 3, num_workers=1, **options)
    several = predict(tiny_model, CELLS, 3, num_workers=2, **options)
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not multiprocessing.active_children()
    for own, others in zip(alone, several):
        for crystal, other in zip(own, others):
            assert crystal is other is None or same(crystal, other)


def test_one_composition_is_decoded_as_the_constraint_does(tiny_model):
    z = torch.randn(6, tiny_model.config.latent.dim)
    options = SamplingOptions(restarts=0)
    cell = CELLS[0]
    limits = Constraints(composition=cell)
    one = generate(tiny_model, z, beta=1.0, options=options, constraints=limits)
    other = generate(tiny_model, z, beta=1.0, options=options, compositions=[cell] * 6)
    pairs = [(a, b) for a, b in zip(one.crystals(), other.crystals()) if a is not None]
    assert pairs
    for first, second in pairs:  # sites that collide are drawn again, at random
        assert first.number == second.number
        np.testing.assert_allclose(first.lattice, second.lattice, rtol=1e-4)


def test_a_composition_does_not_depend_on_its_company(tiny_model):
    z = torch.zeros(3, tiny_model.config.latent.dim)
    options = SamplingOptions(restarts=0)

    def decode(cells):
        found = generate(
            tiny_model, z[: len(cells)], beta=1.0, options=options, compositions=cells
        )
        return found.crystals()

    for cell, crystal in zip(CELLS, decode(CELLS)):
        alone = decode([cell])[0]
        assert (alone is None) == (crystal is None)
        if crystal is not None:  # sites that collide are drawn again, at random
            assert alone.number == crystal.number
            np.testing.assert_allclose(alone.lattice, crystal.lattice, rtol=1e-4)


def test_the_seed_decides(tiny_model):
    first, second = (predict(tiny_model, CELLS, 2, seed=5) for _ in range(2))
    for own, again in zip(first, second):
        assert all(a is None or same(a, b) for a, b in zip(own, again))


def test_analogues_come_first_and_change_nothing_where_there_are_none(tiny_model):
    salt = AsymmetricUnit.from_structure(REFERENCE["nacl"][0])
    known = Analogues([salt])
    cells = [CELLS[1], CELLS[0]]
    found = predict(tiny_model, cells, 3, analogues=known)
    assert [len(own) for own in found] == [3, 3]
    assert same(found[0][0], salt)
    for cell, own in zip(cells, found):
        assert all(c.composition == cell for c in own if c is not None)
    without = predict(tiny_model, CELLS[:1], 2)
    neither = predict(tiny_model, CELLS[:1], 2, analogues=known)
    for one, other in zip(without[0], neither[0]):
        assert one is None or same(one, other)


def test_too_large_a_composition_is_refused(tiny_model):
    with pytest.raises(ConfigError, match="too large"):
        predict(tiny_model, [{6: 1000}], 1)


@pytest.mark.parametrize(
    ("name", "free"),
    [("nacl", 1), ("rutile", 3), ("wurtzite", 4), ("polar", 9), ("triclinic", 18)],
)
def test_free_numbers_by_hand(name, free):
    assert num_free(AsymmetricUnit.from_structure(REFERENCE[name][0])) == free


def test_likelihoods_follow_their_crystals(tiny_model, crystals):
    scores = log_likelihoods(tiny_model, [*crystals, None])
    assert scores[-1] == -np.inf
    assert np.isfinite(scores[:-1]).all()
    again = log_likelihoods(tiny_model, crystals[::-1], batch_size=2)
    np.testing.assert_allclose(scores[-2::-1], again, rtol=1e-4)


def test_equal_crystals_are_one_prediction(tiny_model, crystals):
    by_formula = {crystal.formula: crystal for crystal in crystals}
    salt, other = by_formula["NaCl"], by_formula["CsCl"]
    drawn = [salt, None, other, salt]
    ranked, fallen = distinct_ranked(tiny_model, drawn, num_workers=1)
    assert sorted((p.crystal.formula, p.count) for p in ranked) == [
        ("CsCl", 1),
        ("NaCl", 2),
    ]
    assert ranked[0].score >= ranked[1].score
    assert all(drawn[p.draw] is p.crystal for p in ranked)
    assert {k: n for k, n in fallen.items() if n} == {"incomplete": 1, "duplicate": 1}


def estimated(energy_of):
    """Estimates of energies above the hull that a function gives."""

    def columns(model, crystals, **_):
        return [{"e_above_hull_estimate": energy_of(c)} for c in crystals]

    return columns


def test_what_is_expected_to_be_unstable_comes_later(tiny_model, monkeypatch, crystals):
    by_formula = {crystal.formula: crystal for crystal in crystals}
    pair = [by_formula["NaCl"], by_formula["CsCl"]]
    plain, _ = distinct_ranked(tiny_model, pair, num_workers=1)
    first, second = (item.crystal for item in plain)
    gap = plain[0].score - plain[1].score
    monkeypatch.setattr(tiny_model, "stability", object())
    for share, order in ((0.9, [first, second]), (1.1, [second, first])):
        energies = {id(first): gap * NAT * share, id(second): 0.0}
        monkeypatch.setattr(
            "crystalvae.design.ranking.estimate_columns",
            estimated(lambda crystal, e=energies: e[id(crystal)]),
        )
        found, _ = distinct_ranked(tiny_model, pair, num_workers=1)
        assert [item.crystal for item in found] == order
        assert [item.likelihood for item in found] == pytest.approx(
            log_likelihoods(tiny_model, order), abs=1e-3
        )


def test_the_simplest_of_what_matches_stands_for_it(tiny_model, monkeypatch):
    structure = REFERENCE["perovskite"][0]
    cubic = AsymmetricUnit.from_structure(structure)
    bent = structure.copy()
    bent.apply_strain([0.0, 0.0, 0.01])
    tetragonal = AsymmetricUnit.from_structure(bent, symprec=1e-3)
    assert tetragonal.number != cubic.number
    for likelihoods, expected in (([3.0, 0.0], cubic), ([9.0, 0.0], tetragonal)):
        monkeypatch.setattr(
            "crystalvae.design.ranking.log_likelihoods",
            lambda *_, values=likelihoods, **__: values,
        )
        (found,), _ = distinct_ranked(tiny_model, [tetragonal, cubic], num_workers=1)
        assert found.crystal is expected
        assert found.count == 2
        assert found.score == likelihoods[0] + OFTEN * math.log(2)


def test_what_is_drawn_often_is_ranked_higher(tiny_model, monkeypatch):
    salt, blende = (
        AsymmetricUnit.from_structure(REFERENCE[name][0]) for name in ("nacl", "cscl")
    )
    draws = [[blende, salt, salt, None, salt], [blende] * 5]
    values = [3.0, 0.0, 0.0, -math.inf, 0.0, *[1.0] * 5]
    found = scores_of_draws(tiny_model, draws, values, num_workers=1)
    often = OFTEN * math.log(3)
    assert found[:3] == [3.0, often, often]
    assert found[3] == -math.inf
    assert found[5:] == [1.0 + OFTEN * math.log(5)] * 5
    monkeypatch.setattr(
        "crystalvae.design.ranking.log_likelihoods",
        lambda _, crystals, **__: [3.0 if c is blende else 0.0 for c in crystals],
    )
    ranked, _ = distinct_ranked(tiny_model, draws[0], num_workers=1)
    assert [item.count for item in ranked] == [3, 1]


def test_the_most_frequent_comes_first_once(tiny_model):
    rutile, nacl, cscl = (
        AsymmetricUnit.from_structure(REFERENCE[name][0])
        for name in ("rutile", "nacl", "cscl")
    )
    wider = AsymmetricUnit.from_structure(
        REFERENCE["nacl"][0].apply_strain(0.02, inplace=False)
    )
    draws = [[cscl, None, nacl, wider, nacl], [rutile], [None, None]]
    first, second, third = most_drawn(tiny_model, draws, num_workers=1)
    assert [c.number for c in first] == [225, 221]
    likeliest = max([nacl, wider], key=lambda c: log_likelihoods(tiny_model, [c])[0])
    assert first[0] is likeliest
    assert second == [rutile]
    assert third == []


def test_of_many_draws_the_distinct_ones_are_kept(tiny_model):
    some = predict(tiny_model, CELLS, 4, draws=12, num_workers=1)
    assert [len(own) for own in some] == [4, 4, 4]
    for cell, own in zip(CELLS, some):
        present = [c for c in own if c is not None]
        assert all(c.composition == cell for c in present)
        ranked, _ = distinct_ranked(tiny_model, present, num_workers=1)
        assert all(item.count == 1 for item in ranked)


def test_nothing_drawn_is_nothing_ranked(tiny_model):
    assert log_likelihoods(tiny_model, [None]) == [-np.inf]
    assert most_drawn(tiny_model, [[None], []], num_workers=1) == [[], []]
    assert distinct_ranked(tiny_model, [None])[0] == []


def test_listed_structures_are_not_predicted_again(tiny_model):
    cell = CELLS[1]
    salt = AsymmetricUnit.from_structure(REFERENCE["nacl"][0])
    free = predict(tiny_model, [cell], 12, temperature=2.0)[0]
    drawn = [crystal for crystal in free if crystal is not None]
    assert len({crystal.number for crystal in drawn}) > 1
    listed = ReferenceIndex([salt, drawn[0]])
    other = predict(
        tiny_model, [cell], 12, temperature=2.0, unlisted=Listed(listed, True)
    )[0]
    kept = [crystal for crystal in other if crystal is not None]
    assert 0 < len(kept) < len(drawn)
    assert not any(is_known(kept, listed, num_workers=1))
    again = predict(
        tiny_model,
        [cell],
        3,
        analogues=Analogues([salt]),
        unlisted=[REFERENCE["nacl"][0]],
    )[0]
    assert not any(is_known([c for c in again if c], ReferenceIndex([salt])))


def test_a_formula_is_a_composition(tiny_model):
    one = predict(tiny_model, [CELLS[1]], 3)[0]
    other = predict(tiny_model, [formula_of(CELLS[1])], 3)[0]
    assert [str(c) for c in one] == [str(c) for c in other]
    with pytest.raises(ConfigError, match="formula"):
        predict(tiny_model, ["NaCl0.5"], 1)


def formula_of(composition):
    return "".join(f"{chemical_symbols[z]}{n}" for z, n in composition.items())


def test_a_listed_analogue_leaves_its_place_to_a_draw(tiny_model):
    salt = AsymmetricUnit.from_structure(REFERENCE["nacl"][0])
    listed = ReferenceIndex([salt])
    own = predict(
        tiny_model, [CELLS[1]], 12, temperature=2.0, unlisted=Listed(listed, True)
    )[0]
    both = predict(
        tiny_model,
        [CELLS[1]],
        12,
        temperature=2.0,
        unlisted=Listed(listed, True),
        analogues=Analogues([salt]),
    )[0]
    assert sum(c is not None for c in both) == sum(c is not None for c in own) > 0
