"""From any cell of a crystal to its canonical asymmetric unit."""

from __future__ import annotations

import numpy as np

from crystalvae.crystal import AsymmetricUnit
from crystalvae.errors import InvalidStructureError
from crystalvae.symmetry.canonical import canonical_sites
from crystalvae.symmetry.search import (
    StandardCell,
    search_moyo,
    search_spglib,
    search_standard_cell,
)
from crystalvae.symmetry.tables import symmetry_tables


def right_handed(
    lattice: np.ndarray, frac_coords: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same atoms in a right-handed cell: all three vectors are inverted if need be.

    Keeping only metric and fractional coordinates of a left-handed cell would turn a
    crystal into its mirror image.
    """
    if np.linalg.det(lattice) < 0:
        return -lattice, -frac_coords
    return lattice, frac_coords


def standardize(
    lattice: np.ndarray,
    frac_coords: np.ndarray,
    atomic_numbers: np.ndarray,
    *,
    symprec: float = 0.1,
) -> AsymmetricUnit:
    """Find the space group and write the crystal in its canonical form.

    The search falls back to tighter tolerances where the orbits found do not fit the
    Wyckoff positions of the group.

    Args:
        lattice: rows are lattice vectors in Å, ``(3, 3)``.
        frac_coords: ``(N, 3)``.
        atomic_numbers: ``(N,)``.
        symprec: distance tolerance in Å.

    Raises:
        InvalidStructureError: no tolerance gives a consistent description.
    """
    lattice = np.asarray(lattice, float)
    frac_coords = np.asarray(frac_coords, float)
    atomic_numbers = np.asarray(atomic_numbers, np.int64)
    lattice, frac_coords = right_handed(lattice, frac_coords)
    reason = "no atoms"
    for tolerance in (symprec, symprec / 10, symprec / 100):
        try:
            return _standardize_at(lattice, frac_coords, atomic_numbers, tolerance)
        except (InvalidStructureError, ValueError) as error:
            reason = str(error)
    raise InvalidStructureError(f"no consistent symmetry: {reason}")


def _standardize_at(
    lattice: np.ndarray,
    frac_coords: np.ndarray,
    atomic_numbers: np.ndarray,
    symprec: float,
) -> AsymmetricUnit:
    try:
        return _canonical(search_moyo(lattice, frac_coords, atomic_numbers, symprec))
    except (InvalidStructureError, ValueError):
        cell = search_spglib(lattice, frac_coords, atomic_numbers, symprec)
    try:
        return _canonical(cell)
    except ValueError:
        return _canonical(search_standard_cell(cell, symprec))


def _canonical(cell: StandardCell) -> AsymmetricUnit:
    """Raises ValueError where an orbit has no atom on the first triplet."""
    metric, letters, species, coords = canonical_sites(
        cell.number,
        _invariant(cell.number, cell.lattice @ cell.lattice.T),
        cell.frac_coords,
        cell.atomic_numbers,
        cell.letters,
        cell.orbits,
    )
    return AsymmetricUnit(
        number=cell.number,
        lattice=np.linalg.cholesky(_invariant(cell.number, metric)),
        wyckoffs=letters,
        atomic_numbers=species,
        frac_coords=coords,
    )


def _invariant(number: int, metric: np.ndarray) -> np.ndarray:
    """Average of Wᵀ G W over the point group: the nearest metric that obeys it."""
    rotations = symmetry_tables().point_rotations(number)
    return np.einsum("pji,jk,pkl->il", rotations, metric, rotations) / len(rotations)
