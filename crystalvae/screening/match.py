"""Pymatgen's StructureMatcher at its defaults, on cells that are reduced beforehand.

The steps and tolerances are those of ``StructureMatcher.fit`` (``primitive_cell``,
``scale``, no supercells), in the same order and on the same compiled kernels, so that
the verdicts are the same; only the work that does not depend on the pair is done
elsewhere, once a crystal.

References:
    S. P. Ong et al., Comput. Mater. Sci. 68, 314 (2013).
"""

from __future__ import annotations

import math

import numpy as np

from crystalvae.screening.reduced import ReducedCell

LTOL = 0.2
"""Largest relative difference of lengths of the cell."""
STOL = 0.3
"""Largest distance of paired sites in units of (volume per atom)^(1/3)."""
ANGLE_TOL = 5.0
"""Largest difference of the cell's angles in degrees."""
MAX_POINTS = 500_000
"""Lattice points searched; cells so flat that they need more match nothing."""
MAX_WORK = 20_000_000
"""Sites compared for a pair before it counts as different."""


def could_match(lengths: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which pairs are not excluded by the shortest vectors of their lattices.

    Vectors of a basis, sorted, are no shorter than the lattice's successive minima, and
    a basis of the one lattice has to have the lengths of the other's reduced cell
    within the tolerance. So no pair that matches is lost.

    Args:
        lengths: of one reduced cell ``(3,)``.
        others: of those it is compared with ``(M, 3)``.

    Returns:
        ``(M,)``, bool.
    """
    shortest, limits = np.sort(lengths), np.sort(others, axis=-1) * (1 + LTOL)
    return (shortest < limits * (1 + 1e-4)).all(-1)


class Match:
    """Compares one crystal with others.

    Args:
        cell: the crystal, first argument of ``StructureMatcher.fit``.
    """

    def __init__(self, cell: ReducedCell):
        self.cell = cell
        self._radius = -1.0
        numbers = cell.atomic_numbers
        self._mask = (numbers[:, None] != numbers[None]).astype(np.int64)
        anchor = int(np.argmax(self._mask.sum(-1)))
        self._anchor = anchor
        self._partners = np.flatnonzero(self._mask[anchor] == 0)

    def __call__(self, other: ReducedCell) -> bool:
        """Whether the two are the same to StructureMatcher at its defaults."""
        from pymatgen.util.coord_cython import is_coord_subset_pbc

        if self.cell.counts != other.counts:
            return False
        bases = self._bases(other)
        if not len(bases):
            return False
        means, tolerances = _means(bases, other)
        ours = self.cell.coords @ (self.cell.lattice @ np.linalg.inv(bases))
        ours -= np.floor(ours)
        shifts = ours[:, self._partners] - other.coords[self._anchor]
        work, size = MAX_WORK, len(other.coords)
        for mean, tolerance, own, shift in zip(means, tolerances, ours, shifts):
            scale = None
            for start in shift:
                work -= size
                moved = other.coords + start
                if is_coord_subset_pbc(moved, own, tolerance, self._mask):
                    scale = scale or _Mean(mean, size)
                    if scale.distance(own, moved, self._mask) < STOL:
                        return True
                    work -= size**2
                if work < 0:
                    return False
        return False

    def _points(self, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Lattice points within a radius, and their distances."""
        if radius > self._radius:
            grown = radius * 1.1
            inverse = np.linalg.inv(self.cell.lattice)
            reach = np.ceil(grown * np.sqrt((inverse**2).sum(0))).astype(np.int64)
            if np.prod(2.0 * reach + 1) > MAX_POINTS:
                return np.empty((0, 3)), np.empty(0)
            axes = [np.arange(-n, n + 1) for n in reach]
            steps = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
            points = steps @ self.cell.lattice
            distance = np.sqrt((points**2).sum(1))
            inside = distance <= grown
            self._found = points[inside], distance[inside]
            self._radius = grown
        return self._found

    def _bases(self, other: ReducedCell) -> np.ndarray:
        """Bases of this lattice like the other's within the tolerances, (B, 3, 3)."""
        lengths = other.lengths
        points, distance = self._points(lengths.max() * (1 + LTOL))
        ratio = distance[None] / lengths[:, None]
        close = (ratio < 1 + LTOL) & (ratio > 1 / (1 + LTOL))
        if not close.any(1).all():
            return np.empty((0, 3, 3))
        sets = [points[near] for near in close]
        units = [s / distance[near][:, None] for s, near in zip(sets, close)]
        pairs = {}
        for i, j in ((0, 1), (0, 2), (1, 2)):
            row = other.lattice
            cosine = row[i] @ row[j] / (lengths[i] * lengths[j])
            angle = math.acos(min(1.0, max(-1.0, cosine)))
            low = math.cos(min(math.pi, angle + math.radians(ANGLE_TOL)))
            high = math.cos(max(0.0, angle - math.radians(ANGLE_TOL)))
            found = units[i] @ units[j].T
            pairs[i, j] = (found >= low - 1e-12) & (found <= high + 1e-12)
            if not pairs[i, j].any():
                return np.empty((0, 3, 3))
        first, second = np.nonzero(pairs[0, 1])
        third = pairs[0, 2][first] & pairs[1, 2][second]
        chosen, last = np.nonzero(third)
        bases = np.stack(
            [sets[0][first[chosen]], sets[1][second[chosen]], sets[2][last]], 1
        )
        volume = np.abs(np.linalg.det(bases)) / len(self.cell.coords)
        return bases[np.abs(volume - 1) < 0.5]


class _Mean:
    """Distances of paired sites in the mean of two cells."""

    def __init__(self, lattice: np.ndarray, num_atoms: int):
        from pymatgen.core import Lattice

        self.lattice = Lattice(lattice)
        self.length = (self.lattice.volume / num_atoms) ** (1 / 3)
        reduced = self.lattice.get_lll_reduced_lattice().matrix
        self.tolerance = _tolerance(reduced, self.length)

    def distance(self, own: np.ndarray, moved: np.ndarray, mask: np.ndarray) -> float:
        """Largest distance of the best pairing, its mean shift taken out."""
        from pymatgen.util.coord_cython import pbc_shortest_vectors
        from scipy.optimize import linear_sum_assignment

        vectors, squares = pbc_shortest_vectors(
            self.lattice, moved, own, mask, return_d2=True, lll_frac_tol=self.tolerance
        )
        rows, columns = linear_sum_assignment(squares)
        paired = vectors[rows, columns]
        paired = paired - paired.mean(0)
        return float(np.sqrt((paired**2).sum(-1).max())) / self.length


def _tolerance(lattice: np.ndarray, length: np.ndarray | float) -> np.ndarray:
    """Twice STOL along each axis, as fractions, ``(..., 3)``."""
    widths = np.sqrt((np.linalg.inv(lattice) ** 2).sum(-2))
    return 2 * STOL * widths * length


def _means(bases: np.ndarray, other: ReducedCell) -> tuple[np.ndarray, np.ndarray]:
    """Cells of mean lengths and angles, ``(B, 3, 3)``, and tolerances on fractions."""
    lengths, angles = _parameters(bases)
    other_lengths, other_angles = _parameters(other.lattice[None])
    a, b, c = ((lengths + other_lengths) / 2).T
    mean_angles = ((angles + other_angles) / 2).T
    alpha, beta, gamma = np.cos(mean_angles)
    sine = np.sin(mean_angles[2])
    y = (alpha - beta * gamma) / sine
    z = np.sqrt(np.maximum(1 - beta**2 - y**2, 1e-12))
    zero = np.zeros_like(a)
    rows = [[a, zero, zero], [b * gamma, b * sine, zero], [c * beta, c * y, c * z]]
    means = np.moveaxis(np.array(rows), -1, 0)
    length = np.cbrt(np.linalg.det(means) / len(other.coords))
    return means, _tolerance(means, length[:, None])


def _parameters(bases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and angles (radians) of cells ``(B, 3, 3)``."""
    lengths = np.sqrt((bases**2).sum(-1))
    unit = bases / lengths[..., None]
    cosines = (unit[:, [1, 0, 0]] * unit[:, [2, 2, 1]]).sum(-1)
    return lengths, np.arccos(np.clip(cosines, -1, 1))
