"""Crystals as StructureMatcher compares them: primitive, Niggli-reduced, unit density.

Doing this once a crystal, and not once a pair, is what makes matching many cheap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from crystalvae.errors import InvalidStructureError
from crystalvae.screening.fingerprint import mean_distances

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit

TOLERANCE = 0.25
"""Sites this near (Å) after a translation are one in a smaller cell; pymatgen's."""
MAX_ATOMS = 512
"""Larger cells are not searched for smaller ones, which takes a second or two there."""

FIRST = 4
"""Sites on which a translation is tried before all others."""
NUM_DISTANCES = 24
"""Neighbours in the fingerprint that orders candidates."""

Counts = tuple[tuple[int, int], ...]
Description = tuple[int, tuple[tuple[int, int], ...]]


@dataclass(frozen=True, eq=False)
class ReducedCell:
    """A Niggli-reduced primitive cell, scaled to a volume of one per atom."""

    lattice: np.ndarray
    """Rows, in units of (volume per atom)^(1/3), ``(3, 3)``."""
    coords: np.ndarray
    """Fractional coordinates, ``(N, 3)``."""
    atomic_numbers: np.ndarray
    """Elements, ascending, ``(N,)``."""
    counts: Counts
    """Atomic numbers and counts; different counts never match."""
    lengths: np.ndarray
    """Lengths of the lattice's rows, ``(3,)``: the lattice's successive minima."""
    description: Description
    """Space group, and letters and elements of the occupied Wyckoff positions."""

    @cached_property
    def fingerprint(self) -> np.ndarray:
        """Average minimum distances in units of (volume per atom)^(1/3), ``(24,)``.

        NaN for a cell too flat for a neighbour search.
        """
        sites = np.arange(len(self.coords))
        try:
            return mean_distances(self.lattice, self.coords, sites, NUM_DISTANCES)
        except InvalidStructureError:
            return np.full(NUM_DISTANCES, np.nan)


def reduced_cell(crystal: AsymmetricUnit) -> ReducedCell | None:
    """The cell in which pymatgen's StructureMatcher would compare a crystal.

    Args:
        crystal: the crystal.

    Returns:
        The cell, or None if its lattice is too degenerate to be reduced.
    """
    lattice, coords, atomic_numbers, _ = crystal.expand_primitive()
    niggli = _niggli(lattice)
    if niggli is None:
        return None
    coords = coords @ (lattice @ np.linalg.inv(niggli))
    order = np.argsort(atomic_numbers, kind="stable")
    coords, atomic_numbers = coords[order], atomic_numbers[order]
    if _may_be_smaller(niggli, coords, atomic_numbers):
        niggli, coords, atomic_numbers = _primitive(niggli, coords, atomic_numbers)
    volume = abs(np.linalg.det(niggli))
    scaled = niggli * (len(coords) / volume) ** (1 / 3)
    elements, number = np.unique(atomic_numbers, return_counts=True)
    return ReducedCell(
        lattice=scaled,
        coords=coords - np.floor(coords),
        atomic_numbers=atomic_numbers,
        counts=tuple(zip(elements.tolist(), number.tolist())),
        lengths=np.sqrt((scaled**2).sum(1)),
        description=_description(crystal),
    )


def _niggli(lattice: np.ndarray) -> np.ndarray | None:
    """Reduced lattice ``(3, 3)``; None where spglib returns None or raises."""
    from spglib import niggli_reduce

    if not np.isfinite(lattice).all():
        return None
    try:
        reduced = niggli_reduce(lattice, eps=1e-5)
        return None if reduced is None or not np.linalg.det(reduced) else reduced
    except Exception:
        return None


def _description(crystal: AsymmetricUnit) -> Description:
    sites = zip(crystal.wyckoffs.tolist(), crystal.atomic_numbers.tolist())
    return int(crystal.number), tuple(sorted(sites))


def _may_be_smaller(
    lattice: np.ndarray, coords: np.ndarray, atomic_numbers: np.ndarray
) -> bool:
    """Whether some translation maps every site near one of its element."""
    starts = np.unique(atomic_numbers, return_index=True)[1]
    groups = sorted(np.split(coords, starts[1:]), key=len)
    if len(coords) > MAX_ATOMS or reduce(gcd, map(len, groups)) == 1:
        return False
    tolerance = 2 * TOLERANCE / np.sqrt((lattice**2).sum(1))
    vectors = groups[0][1:] - groups[0][0]
    for group in groups:
        difference = group[None] - group[:, None]
        for sites in (difference[:FIRST], difference):
            kept = []
            for vector in vectors:
                offset = sites - vector
                offset -= np.round(offset)
                near = (np.abs(offset) <= tolerance).all(-1)
                kept.append(near.any(1).all())
            vectors = vectors[np.array(kept, bool)]
        if not len(vectors):
            return False
    return True


def _primitive(
    lattice: np.ndarray, coords: np.ndarray, atomic_numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from pymatgen.core import Lattice, Structure

    found = Structure(Lattice(lattice), atomic_numbers, coords)
    found = found.get_primitive_structure(TOLERANCE)
    numbers = np.array(found.atomic_numbers)
    order = np.argsort(numbers, kind="stable")
    return found.lattice.matrix, found.frac_coords[order], numbers[order]
