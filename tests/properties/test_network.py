import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crystalvae.conditions import Axes, Quantity
from crystalvae.config import from_dict
from crystalvae.crystal import AsymmetricUnit
from crystalvae.errors import ConfigError
from crystalvae.properties.network import (
    PropertyConfig,
    PropertyEstimates,
    PropertyNetwork,
)
from crystalvae.properties.pretrained import load_properties, save_properties
from crystalvae.properties.score import property_estimates
from tests.conftest import REFERENCE
from tests.refinement.conftest import without_symmetry
from tests.stability.test_network import TINY

GAP = Quantity("gap", low=0.0, high=8.0, scale=0.1)
ENERGY = Quantity("energy", low=-4.0, high=1.0)
CONFIG = PropertyConfig(**dataclasses.asdict(TINY), quantities=[GAP, ENERGY])


def tiny_properties():
    torch.manual_seed(4)
    return PropertyNetwork(CONFIG).eval()


@given(st.floats(0, 8, width=32), st.floats(-4, 1, width=32))
def test_places_on_an_axis_are_those_of_values(gap, energy):
    axes = Axes([GAP, ENERGY])
    values = torch.tensor([[gap, energy]])
    place = axes(values)
    assert ((place >= 0) & (place <= 1)).all()
    torch.testing.assert_close(axes.values(place), values, atol=1e-4, rtol=1e-4)


def test_small_gaps_are_told_apart_and_what_is_beyond_lies_at_an_end():
    axes = Axes([GAP])
    places = axes(torch.tensor([[0.0], [0.1], [4.0], [4.1], [8.0], [99.0], [-1.0]]))
    first, tenth, four, more, end, beyond, below = places[:, 0].tolist()
    assert tenth - first > 10 * (more - four) > 0
    assert end == beyond == pytest.approx(1)
    assert below == first == 0


def test_the_loss_is_that_of_a_density_and_of_nothing_where_nothing_is_known():
    axes = Axes([ENERGY])
    found = PropertyEstimates(torch.tensor([[0.4]]), torch.tensor([[0.05]]), axes)
    place = torch.linspace(0, 1, 20001, dtype=torch.double)
    density = (-found.loss(axes.values(place[:, None]))).exp()[:, 0]
    assert float(torch.trapezoid(density, place)) == pytest.approx(1, abs=1e-3)
    below = place <= 0.4
    half = torch.trapezoid(density[below], place[below])
    assert float(half) == pytest.approx(0.5, abs=1e-3)
    location = torch.tensor([[0.4]], requires_grad=True)
    unknown = PropertyEstimates(location, torch.tensor([[0.05]]), axes)
    loss = unknown.loss(torch.tensor([[math.nan]])).sum()
    loss.backward()
    assert loss == 0
    assert location.grad.item() == 0


def test_the_uncertainty_holds_two_thirds():
    axes = Axes([ENERGY])
    found = PropertyEstimates(torch.tensor([[0.5]]), torch.tensor([[0.03]]), axes)
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(200_000, generator=generator) - 0.5
    draws = 0.5 - 0.03 * uniform.sign() * torch.log1p(-2 * uniform.abs())
    away = (axes.values(draws[:, None]) - found.median()).abs()
    inside = (away <= found.uncertainty()).double().mean()
    assert float(inside) == pytest.approx(0.6827, abs=0.005)


@pytest.mark.parametrize("name", ["rutile", "quartz", "perovskite"])
def test_the_graph_of_all_atoms_gives_the_same(name):
    crystal = AsymmetricUnit.from_structure(REFERENCE[name][0])
    plain, _, _ = without_symmetry(crystal)
    first, second = property_estimates(tiny_properties(), [crystal, plain])
    assert first.keys() == {"gap", "energy"}
    for key, value in first.items():
        assert value.value == pytest.approx(second[key].value, abs=1e-3)
        assert value.uncertainty == pytest.approx(second[key].uncertainty, abs=1e-3)


def test_estimates_stay_in_range_and_what_is_no_number_is_left_out():
    crystals = [AsymmetricUnit.from_structure(s) for s, _ in REFERENCE.values()]
    network = tiny_properties()
    with torch.no_grad():
        network.head[-1].bias[:2] = torch.tensor([9.0, math.nan])
    for values in property_estimates(network, crystals):
        assert values.keys() == {"gap"}
        assert values["gap"].value == pytest.approx(GAP.high, rel=1e-5)


def test_it_comes_back_from_its_files(tmp_path):
    network = tiny_properties()
    save_properties(network, tmp_path)
    again = load_properties(tmp_path)
    assert again.config == network.config
    assert again.names == ["gap", "energy"]
    for name, value in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, atol=1e-3, rtol=0)
    assert load_properties(tmp_path / "elsewhere") is None


def test_impossible_properties_are_refused():
    with pytest.raises(ConfigError, match="twice"):
        from_dict(PropertyConfig, {"quantities": [{"name": "a"}, {"name": "a"}]})
    with pytest.raises(ConfigError, match="low below high"):
        from_dict(PropertyConfig, {"quantities": [{"name": "a", "low": 2}]})
    with pytest.raises(ConfigError, match="stability networks judge"):
        from_dict(PropertyConfig, {"quantities": [{"name": "e_above_hull"}]})
    with pytest.raises(ValueError, match="needs"):
        PropertyNetwork(PropertyConfig())


def test_what_is_cut_off_at_an_end_is_not_certain():
    """Beyond the largest value nothing is told apart, which is no certainty."""
    axes = Axes([ENERGY, GAP])
    scale = torch.full((1, 2), 0.02)

    def uncertainty(place):
        location = torch.full((1, 2), place)
        return PropertyEstimates(location, scale, axes).uncertainty()[0].tolist()

    inside, beyond, far, below = map(uncertainty, (0.5, 1.0, 1.7, -0.3))
    assert beyond[0] == far[0] == pytest.approx(inside[0])
    assert below[0] == pytest.approx(inside[0])
    assert beyond[1] == far[1] > 0.1
    assert below[1] < 0.5 * inside[1]
