"""Lattices through their metric tensor: always valid, always obeying the group.

A lattice matters only up to rotation, so it is its metric tensor G = A Aᵀ (rows of A
are the lattice vectors), and G is its Cholesky factor L: lower triangular with positive
diagonal, G = L Lᵀ. L is itself a lattice with **a** along x and **b** in the xy plane.
The six log-Cholesky coordinates used throughout are

    (log L₁₁, log L₂₂, log L₃₃, L₂₁/L₂₂, L₃₁/L₃₃, L₃₂/L₃₃)

and any six finite numbers are a right-handed cell of positive volume. Reference for
log-Cholesky parameters: J. C. Pinheiro and D. M. Bates, Stat. Comput. 6, 289 (1996),
section 2.2; the division by the diagonal, which makes the last three dimensionless, is
ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TRICLINIC, MONOCLINIC, ORTHORHOMBIC, TETRAGONAL, TRIGONAL, HEXAGONAL, CUBIC = range(7)

FREE_COORDS = (
    (True, True, True, True, True, True),
    (True, True, True, False, True, False),
    (True, True, True, False, False, False),
    (True, False, True, False, False, False),
    (True, False, True, False, False, False),
    (True, False, True, False, False, False),
    (True, False, False, False, False, False),
)
"""Which log-Cholesky coordinates a crystal system leaves free, ``(7, 6)``."""

MIN_LENGTH = 0.5
MAX_LENGTH = 500.0
MAX_RATIO = 3.0


def metric_tensor(lattice: Tensor) -> Tensor:
    """G = A Aᵀ in Å², ``(..., 3, 3)``."""
    return lattice @ lattice.transpose(-1, -2)


def cholesky_lattice(metric: Tensor) -> Tensor:
    """The lower-triangular lattice L with G = L Lᵀ, ``(..., 3, 3)``.

    Raises:
        ValueError: the metric is not positive definite.
    """
    lattice, info = torch.linalg.cholesky_ex(metric)
    if bool((info > 0).any()):
        raise ValueError("the metric tensor is not positive definite")
    return lattice


def lattice_to_coords(lattice: Tensor) -> Tensor:
    """Log-Cholesky coordinates of any lattice ``(..., 3, 3)``; gives ``(..., 6)``."""
    factor = cholesky_lattice(metric_tensor(lattice))
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    ratios = torch.stack(
        [
            factor[..., 1, 0] / factor[..., 1, 1],
            factor[..., 2, 0] / factor[..., 2, 2],
            factor[..., 2, 1] / factor[..., 2, 2],
        ],
        -1,
    )
    return torch.cat([diagonal.log(), ratios], -1)


def coords_to_lattice(coords: Tensor) -> Tensor:
    """The lower-triangular lattice of log-Cholesky coordinates ``(..., 6)``."""
    x, y, z = coords[..., :3].exp().unbind(-1)
    p, q, r = coords[..., 3:].unbind(-1)
    zero = torch.zeros_like(x)
    rows = [x, zero, zero, p * y, y, zero, q * z, r * z, z]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def complete_coords(coords: Tensor, system: Tensor) -> Tensor:
    """Fill the coordinates that symmetry fixes from those that it leaves free.

    Tetragonal: L₂₂ = L₁₁. Hexagonal axes: L₂₂ = (√3/2) L₁₁ and L₂₁/L₂₂ = -1/√3.
    Cubic: one diagonal. Monoclinic (b unique): L₂₁ = L₃₂ = 0. The map is affine, so the
    lattice obeys its system to rounding.

    Args:
        coords: ``(..., 6)``; what is not free is ignored.
        system: crystal-system index ``(...)``.

    Returns:
        ``(..., 6)``.
    """
    free = torch.tensor(FREE_COORDS, device=coords.device)[system]
    kept = torch.where(free, coords, torch.zeros_like(coords))
    first = coords[..., 0]
    hexagonal = (system == TRIGONAL) | (system == HEXAGONAL)
    tied = hexagonal | (system == TETRAGONAL) | (system == CUBIC)
    second = torch.where(tied, first, kept[..., 1])
    second = torch.where(hexagonal, first + math.log(math.sqrt(3) / 2), second)
    third = torch.where(system == CUBIC, first, kept[..., 2])
    ratio = torch.full_like(first, -1 / math.sqrt(3))
    fourth = torch.where(hexagonal, ratio, kept[..., 3])
    parts = [first, second, third, fourth, kept[..., 4], kept[..., 5]]
    return torch.stack(parts, -1)


def bound_coords(coords: Tensor) -> Tensor:
    """Clamp finite coordinates ``(..., 6)`` to cells that can exist.

    Diagonals stay within 0.5 and 500 Å, and the ratios within ±3 (angles of 18° and
    162°). Clamp before :func:`complete_coords`, which keeps what symmetry ties equal.

    Raises:
        ValueError: a coordinate is infinite or NaN.
    """
    if not bool(torch.isfinite(coords).all()):
        raise ValueError("lattice coordinates must be finite")
    low, high = math.log(MIN_LENGTH), math.log(MAX_LENGTH)
    logs = coords[..., :3].clamp(low, high)
    ratios = coords[..., 3:].clamp(-MAX_RATIO, MAX_RATIO)
    return torch.cat([logs, ratios], -1)


def project_metric(metric: Tensor, rotations: Tensor) -> Tensor:
    """The metric averaged over a point group, (1/P) Σ Wᵀ G W.

    A mean of positive-definite matrices is positive definite.

    Args:
        metric: ``(..., 3, 3)`` in Å².
        rotations: the group's rotations on fractional coordinates ``(P, 3, 3)``.
    """
    w = rotations.to(metric.dtype)
    return torch.einsum("pji,...jk,pkl->...il", w, metric, w) / len(w)


def lattice_to_parameters(lattice: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths a, b, c in Å and angles α, β, γ in degrees, each ``(..., 3)``."""
    metric = metric_tensor(lattice)
    lengths = metric.diagonal(dim1=-2, dim2=-1).sqrt()
    cosines = metric / (lengths[..., :, None] * lengths[..., None, :])
    chosen = torch.stack(
        [cosines[..., 1, 2], cosines[..., 0, 2], cosines[..., 0, 1]], -1
    )
    return lengths, torch.rad2deg(torch.arccos(chosen.clamp(-1, 1)))


def parameters_to_lattice(lengths: Tensor, angles: Tensor) -> Tensor:
    """The lower-triangular lattice of lengths (Å) and angles (degrees) ``(..., 3)``.

    Raises:
        ValueError: no cell has these angles, or a length is not positive.
    """
    if bool((lengths <= 0).any()):
        raise ValueError("lengths must be positive")
    cosines = torch.cos(torch.deg2rad(angles))
    alpha, beta, gamma = cosines.unbind(-1)
    one = torch.ones_like(alpha)
    shape = torch.stack(
        [one, gamma, beta, gamma, one, alpha, beta, alpha, one], -1
    ).unflatten(-1, (3, 3))
    return cholesky_lattice(shape * lengths[..., :, None] * lengths[..., None, :])
