import dataclasses

import numpy as np
import pytest
from pymatgen.core import Structure

from crystalvae.benchmark.prediction import (
    compare,
    draw_distances,
    polymorph_distances,
    prediction_metrics,
)
from crystalvae.crystal import AsymmetricUnit
from tests.conftest import REFERENCE

NAN = float("nan")


def unit(name):
    return AsymmetricUnit.from_structure(REFERENCE[name][0])


def caesium_chloride_of_sodium():
    """NaCl as it would be in the structure of CsCl."""
    crystal = unit("cscl")
    species = np.where(crystal.atomic_numbers == 55, 11, crystal.atomic_numbers)
    order = np.argsort(crystal.wyckoffs, kind="stable")
    return dataclasses.replace(crystal, atomic_numbers=species[order])


def test_metrics_by_hand():
    own = np.array([[NAN, 0.1], [0.2, 0.05], [NAN, NAN]])
    nearest = np.array([[NAN, 0.1], [0.2, 0.05], [0.3, NAN]])
    one, both = (prediction_metrics(own, nearest, count) for count in (1, 2))
    assert one["match_rate"] == pytest.approx(1 / 3)
    assert one["rmse"] == pytest.approx(0.2)
    assert one["metre"] == pytest.approx(2 / 3)
    assert one["crmse"] == pytest.approx((0.5 + 0.2 + 0.3) / 3)
    assert both["match_rate"] == pytest.approx(2 / 3)
    assert both["rmse"] == pytest.approx((0.1 + 0.05) / 2)
    assert both["metre"] == pytest.approx(1)
    assert both["crmse"] == pytest.approx((0.1 + 0.05 + 0.3) / 3)
    low, high = both["match_rate_interval"]
    assert low <= both["match_rate"] <= high


def test_nothing_matched():
    metrics = prediction_metrics(np.full((2, 3), NAN), np.full((2, 3), NAN))
    assert (metrics["match_rate"], metrics["rmse"]) == (0, None)
    assert (metrics["metre"], metrics["crmse"]) == (0, 0.5)


def test_a_polymorph_may_be_hit_by_what_was_drawn_for_the_other():
    rock_salt, other = unit("nacl"), caesium_chloride_of_sodium()
    assert rock_salt.composition == other.composition
    references = [rock_salt.to_structure(), other.to_structure()]
    draws = [[references[1]], [references[0]]]
    own = draw_distances(draws, references, num_workers=1)
    assert np.isnan(own).all()
    nearest = polymorph_distances(draws, references, "aa", own, num_workers=1)
    np.testing.assert_allclose(nearest, 0, atol=1e-6)
    apart = polymorph_distances(draws, references, "ab", own, num_workers=1)
    assert np.isnan(apart).all()


def test_order_and_cell_of_polymorphs_do_not_matter():
    rock_salt, other = unit("nacl"), caesium_chloride_of_sodium()
    first, second = rock_salt.to_structure(), other.to_structure()
    second = Structure.from_sites(sorted(second, key=lambda s: -s.specie.Z))
    first = Structure.from_sites(sorted(first, key=lambda s: s.specie.Z))
    for known in (second, second * (2, 1, 1)):
        found = compare([[second], [first]], [first, known], num_workers=1)
        assert found.metrics["first"]["match_rate"] == 0
        assert found.metrics["first"]["metre"] == 1


def test_same_draw_twice_hits_one_polymorph():
    rock_salt, other = unit("nacl"), caesium_chloride_of_sodium()
    found = compare([[rock_salt], [rock_salt]], [rock_salt, other], num_workers=1)
    assert found.metrics["first"]["match_rate"] == 0.5
    assert found.metrics["first"]["metre"] == 0.5
    assert found.metrics["first"]["crmse"] == pytest.approx(0.25, abs=1e-6)


def test_every_structure_and_draw_counts():
    rutile, quartz = unit("rutile"), unit("quartz")
    draws = [[None, rutile, rutile], [None, None, rutile]]
    scores = [-1.0, 0.0, -2.0, 3.0, 1.0, 2.0]
    found = compare(draws, [rutile, quartz], scores=scores, unusable=2, num_workers=1)
    assert found.metrics["first"]["match_rate"] == 0
    assert found.metrics["ranked_first"]["match_rate"] == 1 / 4
    assert found.metrics["best_of_3"]["match_rate"] == 1 / 4
    assert found.metrics["best_of_3"]["rmse"] == pytest.approx(0, abs=1e-6)
    assert [row["matches"] for row in found.rows] == [2, 0]
    assert [row["ranked_first"] for row in found.rows] == [1, 0]
    assert found.rows[0]["nearest"] == 1
