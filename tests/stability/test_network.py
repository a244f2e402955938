import math

import numpy as np
import pytest
import torch

from crystalvae.crystal import AsymmetricUnit
from crystalvae.refinement.score import refiner_inputs
from crystalvae.stability.network import (
    HIGHEST,
    OFFSET,
    HullEnergy,
    StabilityConfig,
    StabilityNetwork,
    logarithm,
)
from crystalvae.stability.pretrained import load_stability, save_stability
from crystalvae.stability.score import stability_estimates
from crystalvae.training.stability import area_under_curve
from tests.conftest import REFERENCE
from tests.refinement.conftest import without_symmetry

TINY = StabilityConfig(
    dim=16,
    num_layers=2,
    message_dim=8,
    num_radial=8,
    num_channels=4,
    num_neighbors=16,
    hidden_dim=16,
)


def tiny_network():
    torch.manual_seed(2)
    return StabilityNetwork(TINY).eval()


def test_the_median_is_as_likely_exceeded_as_not():
    found = HullEnergy(torch.tensor([-2.5, -1.0, 0.2]), torch.tensor([0.3, 0.1, 1.0]))
    for i, median in enumerate(found.median().tolist()):
        assert found.probability_below(median)[i] == pytest.approx(0.5, abs=1e-5)


def test_the_loss_is_that_of_a_density():
    found = HullEnergy(torch.tensor([-1.2]), torch.tensor([0.4]))
    energy = torch.linspace(0, HIGHEST, 20001, dtype=torch.double)
    density = (-found.loss(energy)).exp() / (energy + OFFSET)
    below = torch.trapezoid(density, energy)
    expected = found.probability_below(HIGHEST) - found.probability_below(0.0)
    assert float(below) == pytest.approx(float(expected), abs=1e-5)
    limit = energy <= 0.1
    share = torch.trapezoid(density[limit], energy[limit])
    expected = found.probability_below(0.1) - found.probability_below(0.0)
    assert float(share) == pytest.approx(float(expected), abs=1e-3)


def test_energies_outside_are_clipped():
    assert logarithm(torch.tensor([-1.0])).exp() == pytest.approx(OFFSET)
    assert logarithm(torch.tensor([50.0])).exp() == pytest.approx(HIGHEST + OFFSET)
    assert HullEnergy(torch.tensor([-9.0]), torch.ones(1)).median() == 0


@pytest.mark.parametrize("name", ["rutile", "quartz", "perovskite"])
def test_the_graph_of_all_atoms_gives_the_same(name):
    if name not in REFERENCE:
        pytest.skip(f"no {name} among the references")
    crystal = AsymmetricUnit.from_structure(REFERENCE[name][0])
    plain, _, _ = without_symmetry(crystal)
    first, second = stability_estimates(tiny_network(), [crystal, plain])
    assert first.e_above_hull == pytest.approx(second.e_above_hull, abs=1e-4)
    assert first.probability == pytest.approx(second.probability, abs=1e-4)


def test_neighbours_in_a_batch_do_not_matter():
    crystals = [AsymmetricUnit.from_structure(s) for s, _ in REFERENCE.values()]
    network = tiny_network()
    together = stability_estimates(network, crystals)
    alone = [stability_estimates(network, [crystal])[0] for crystal in crystals]
    for one, other in zip(together, alone):
        assert one.e_above_hull == pytest.approx(other.e_above_hull, abs=1e-4)
    assert len({round(one.e_above_hull, 5) for one in together}) > len(crystals) / 2


def test_what_is_no_number_is_none():
    crystal = AsymmetricUnit.from_structure(REFERENCE["nacl"][0])
    network = tiny_network()
    with torch.no_grad():
        network.head[-1].bias.fill_(math.nan)
    assert stability_estimates(network, [crystal]) == [None]
    assert stability_estimates(network, []) == []


def test_a_saved_network_comes_back(tmp_path):
    network = tiny_network()
    network.card = {"epoch": 2}
    save_stability(network, tmp_path)
    loaded = load_stability(tmp_path)
    assert loaded.card == {"epoch": 2}
    assert loaded.config == TINY
    crystals = [AsymmetricUnit.from_structure(REFERENCE["rutile"][0])]
    graph = network.graph(*refiner_inputs(crystals))
    before, after = network(graph).location, loaded(graph).location
    torch.testing.assert_close(before, after, atol=2e-3, rtol=2e-3)
    assert load_stability(tmp_path / "nothing") is None


def test_area_under_the_curve_by_hand():
    score = torch.tensor([0.9, 0.8, 0.3, 0.3])
    positive = torch.tensor([True, False, True, False])
    assert area_under_curve(score, positive) == pytest.approx((2 + 0.5) / 4)
    assert area_under_curve(-score, positive) == pytest.approx(1 - 2.5 / 4)
    rng = np.random.default_rng(0)
    many, which = torch.tensor(rng.random(4000)), torch.tensor(rng.random(4000) < 0.3)
    assert area_under_curve(many, which) == pytest.approx(0.5, abs=0.03)
    assert math.isnan(area_under_curve(score, torch.ones(4, dtype=torch.bool)))
