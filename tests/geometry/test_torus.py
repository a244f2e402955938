import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Lattice

from crystalvae.geometry.torus import (
    minimum_image_distance,
    self_image_distance,
    torus_difference,
    wrap,
    wrapped_normal_log_prob,
)


@given(st.floats(-5, 5), st.floats(-5, 5), st.integers(-3, 3))
def test_difference_is_short_and_periodic(x, y, cells):
    x, y = torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
    difference = torus_difference(x, y)
    assert abs(difference) <= 0.5 + 1e-12
    shift = torus_difference(x + cells, y) - difference
    assert abs(shift - torch.round(shift)) < 1e-9


def test_wrap_stays_in_the_cell():
    coords = wrap(10 * torch.randn(100, 3))
    assert (coords >= 0).all()
    assert (coords < 1).all()


@pytest.mark.parametrize("seed", range(6))
def test_distance_agrees_with_pymatgen_in_skewed_cells(seed):
    rng = np.random.default_rng(seed)
    cell = Lattice.from_parameters(3, 4, 5, 90, 90, 90).matrix
    skew = np.array([[1, 0, 0], [seed, 1, 0], [-seed, 1, 1]])
    lattice = skew @ cell
    x, y = rng.random((10, 3)), rng.random((10, 3))
    ours = minimum_image_distance(
        torch.tensor(x), torch.tensor(y), torch.tensor(lattice)
    )
    expected = [
        Lattice(cell).get_all_distances(a @ skew, b @ skew)[0, 0] for a, b in zip(x, y)
    ]
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_the_torus_difference_alone_is_no_distance_in_a_skewed_cell():
    lattice = torch.tensor([[1.0, 0, 0], [0.9, 1, 0], [0, 0, 1]], dtype=torch.float64)
    x = torch.tensor([0.0, 0, 0], dtype=torch.float64)
    y = torch.tensor([0.45, 0.45, 0], dtype=torch.float64)
    naive = (torus_difference(y, x) @ lattice).norm()
    assert minimum_image_distance(x, y, lattice) < naive - 0.05


def test_own_image():
    lattice = torch.diag(torch.tensor([0.4, 10.0, 10.0], dtype=torch.float64))
    assert abs(float(self_image_distance(lattice)) - 0.4) < 1e-12


@pytest.mark.parametrize("scale", [0.01, 0.15, 0.6])
def test_wrapped_normal_integrates_to_one(scale):
    x = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    log_scale = torch.tensor(scale, dtype=torch.float64).log()
    density = wrapped_normal_log_prob(x, torch.tensor(0.93), log_scale, 4).exp()
    assert abs(float(density.mean()) - 1) < 1e-6


def test_gradient():
    x = torch.rand(5, dtype=torch.float64, requires_grad=True)
    mean = torch.rand(5, dtype=torch.float64, requires_grad=True)
    scale = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(wrapped_normal_log_prob, (x, mean, scale))
