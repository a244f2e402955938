import math

import numpy as np
import pytest
import torch

from crystalvae.batch import CrystalStore
from crystalvae.benchmark.matching import match_distances
from crystalvae.design.invert import Found, SearchOptions, _Free, _refine, invert
from crystalvae.design.reconstruct import encoding_gaps
from crystalvae.model import CrystalVAE
from tests.conftest import tiny_config


def test_free_numbers_rebuild_the_crystal(crystals):
    for crystal in crystals:
        free = _Free(crystal)
        again = free.build(free.values)
        np.testing.assert_allclose(again.lattice, crystal.lattice, atol=1e-9)
        offset = again.frac_coords - crystal.frac_coords
        np.testing.assert_allclose(offset - np.round(offset), 0, atol=1e-9)


def test_disturbed_crystals_return_to_their_encoding(crystals):
    torch.manual_seed(0)
    model = CrystalVAE(tiny_config(dim=64)).eval()
    z = model.encode(crystals).mu
    beta = model.beta_tensor(None, len(crystals))
    rng = np.random.default_rng(0)
    disturbed = []
    for row, crystal in enumerate(crystals):
        free = _Free(crystal)
        moved = free.build(free.values + 0.01 * rng.normal(size=len(free.values)))
        start = float((model.encode([moved]).mu[0] - z[row]).norm())
        disturbed.append((row, Found(moved, start)))
    refined = list(_refine(model, disturbed, z, beta, SearchOptions()))
    before = match_distances(
        [found.crystal.to_structure() for _, found in disturbed],
        [crystal.to_structure() for crystal in crystals],
    )
    after = match_distances(
        [found.crystal.to_structure() for _, found in refined],
        [crystal.to_structure() for crystal in crystals],
    )
    for (_, start), (_, end) in zip(disturbed, refined):
        assert end.distance <= start.distance
    assert np.mean(after) < 0.2 * np.mean(before)


def test_the_answer_is_the_nearest_of_what_was_drawn(tiny_model, crystals):
    z = tiny_model.encode(crystals).mu
    one = invert(tiny_model, z, search=SearchOptions(rounds=0))
    more = invert(tiny_model, z, search=SearchOptions(rounds=2, draws=3))
    assert len(one) == len(more) == len(crystals)
    for first, second in zip(one, more):
        if first is not None:
            assert second.distance <= first.distance
    for row, found in enumerate(more):
        if found is not None:
            alone = CrystalStore.from_crystals([found.crystal])
            again = float((tiny_model.encode_store(alone).mu[0] - z[row]).norm())
            assert again == pytest.approx(found.distance, rel=1e-2, abs=1e-3)


def test_only_a_crystal_itself_has_its_encoding(tiny_model, crystals):
    others = [*crystals[1:], crystals[0]]
    assert encoding_gaps(tiny_model, crystals, crystals) == pytest.approx(
        [0.0] * len(crystals), abs=1e-4
    )
    assert min(encoding_gaps(tiny_model, crystals, others)) > 0.01
    gaps = encoding_gaps(tiny_model, crystals[:2], [None, crystals[1]])
    assert gaps[0] == math.inf
    assert gaps[1] < 1e-3
    assert encoding_gaps(tiny_model, crystals[:1], [None]) == [math.inf]
