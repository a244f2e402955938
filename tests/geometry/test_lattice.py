import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice

from crystalvae.geometry.lattice import (
    bound_coords,
    cholesky_lattice,
    complete_coords,
    coords_to_lattice,
    lattice_to_coords,
    lattice_to_parameters,
    metric_tensor,
    parameters_to_lattice,
    project_metric,
)
from crystalvae.symmetry.tables import symmetry_tables

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
CELLS = [
    (3.0, 3.0, 3.0, 90.0, 90.0, 90.0),
    (4.1, 5.3, 6.9, 83.0, 97.0, 104.0),
    (4.9, 4.9, 5.4, 90.0, 90.0, 120.0),
    (5.1, 5.2, 5.3, 90.0, 99.2, 90.0),
    (2.0, 9.0, 30.0, 60.0, 75.0, 88.0),
]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("cell", CELLS)
def test_parameters_agree_with_pymatgen(cell, dtype):
    lengths = torch.tensor(cell[:3], dtype=dtype)
    angles = torch.tensor(cell[3:], dtype=dtype)
    lattice = parameters_to_lattice(lengths, angles)
    expected = Lattice.from_parameters(*cell, vesta=True)
    np.testing.assert_allclose(
        metric_tensor(lattice),
        expected.matrix @ expected.matrix.T,
        rtol=10 * TOLERANCE[dtype],
        atol=100 * TOLERANCE[dtype],
    )
    again = torch.cat(lattice_to_parameters(lattice))
    np.testing.assert_allclose(again, cell, rtol=20 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_coordinates_round_trip_any_batch_shape(dtype):
    coords = torch.randn(2, 5, 6, dtype=dtype)
    lattice = coords_to_lattice(coords)
    assert lattice.shape == (2, 5, 3, 3)
    torch.testing.assert_close(
        lattice_to_coords(lattice), coords, rtol=1e-3, atol=20 * TOLERANCE[dtype]
    )


def test_rotation_does_not_change_coordinates():
    lattice = coords_to_lattice(torch.randn(6, dtype=torch.float64))
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    torch.testing.assert_close(
        lattice_to_coords(lattice @ rotation), lattice_to_coords(lattice)
    )


def test_gradients():
    system = torch.tensor([0, 1, 2, 3, 4, 5, 6])
    coords = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)

    def volume(x):
        return torch.linalg.det(coords_to_lattice(complete_coords(x, system)))

    assert torch.autograd.gradcheck(volume, coords)
    assert torch.autograd.gradcheck(
        lambda x: lattice_to_coords(coords_to_lattice(x)), coords
    )


finite = st.floats(-1e6, 1e6, allow_nan=False)


@settings(max_examples=150, deadline=None)
@given(st.lists(finite, min_size=6, max_size=6), st.integers(1, 230))
def test_any_finite_output_is_a_right_handed_cell_of_the_group(values, number):
    tables = symmetry_tables()
    coords = bound_coords(torch.tensor([values], dtype=torch.float64))
    system = torch.tensor([int(tables.system[number])])
    lattice = coords_to_lattice(complete_coords(coords, system))[0]
    assert torch.linalg.det(lattice) > 0
    metric = metric_tensor(lattice).numpy()
    scale = np.abs(metric).max()
    for rotation in tables.point_rotations(number):
        image = rotation.T @ metric @ rotation
        np.testing.assert_allclose(image / scale, metric / scale, atol=1e-6)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_infinities_are_refused(value):
    with pytest.raises(ValueError, match="finite"):
        bound_coords(torch.tensor([0, 0, 0, 0, 0, value]))


@pytest.mark.parametrize("number", [2, 12, 62, 139, 166, 191, 225])
def test_projection_obeys_the_group_and_stays_positive(number):
    rotations = torch.as_tensor(symmetry_tables().point_rotations(number))
    factor = torch.randn(4, 3, 3, dtype=torch.float64)
    metric = factor @ factor.transpose(1, 2) + 0.1 * torch.eye(3)
    projected = project_metric(metric, rotations)
    assert (torch.linalg.eigvalsh(projected) > 0).all()
    for rotation in rotations.double():
        torch.testing.assert_close(rotation.T @ projected @ rotation, projected)
    torch.testing.assert_close(project_metric(projected, rotations), projected)


def test_a_matrix_that_is_no_metric_is_an_error():
    with pytest.raises(ValueError, match="positive definite"):
        cholesky_lattice(-torch.eye(3))
