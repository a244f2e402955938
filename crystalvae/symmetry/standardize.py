"""From any cell of a crystal to its canonical asymmetric unit."""

from __future__ import annotations

import numpy as np

from crystalvae.crystal import AsymmetricUnit
from crystalvae.errors import InvalidStructureError
from crystalvae.symmetry.canonical import canonical_sites
from crystalvae.symmetry.spglib_wrapper import symmetry_dataset
from crystalvae.symmetry.tables import LETTERS, symmetry_tables

_LETTER_INDEX = {letter: index for index, letter in enumerate(LETTERS)}


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
    tables = symmetry_tables()
    found = symmetry_dataset(lattice, frac_coords, atomic_numbers, symprec)
    number = int(found.number)
    hall = int(tables.hall_number[number])
    if found.hall_number != hall:
        found = symmetry_dataset(lattice, frac_coords, atomic_numbers, symprec, hall)
    primitive = found.std_mapping_to_primitive
    source = np.zeros(int(found.mapping_to_primitive.max()) + 1, np.int64)
    source[found.mapping_to_primitive[::-1]] = np.arange(len(atomic_numbers))[::-1]
    names = [_LETTER_INDEX[letter] for letter in found.wyckoffs]
    letters = np.array(names, np.int64)[source[primitive]]
    orbits = found.crystallographic_orbits[source[primitive]]
    sites = (found.std_positions, found.std_types, letters, orbits)
    if not _orbits_fit(number, letters, orbits):
        sites = _search_again(found, number, symprec)
    metric = _invariant(number, found.std_lattice @ found.std_lattice.T)
    try:
        parts = canonical_sites(number, metric, *_as_int(sites))
    except ValueError:
        sites = _search_again(found, number, symprec)
        parts = canonical_sites(number, metric, *_as_int(sites))
    metric, letters, species, coords = parts
    return AsymmetricUnit(
        number=number,
        lattice=np.linalg.cholesky(_invariant(number, metric)),
        wyckoffs=letters,
        atomic_numbers=species,
        frac_coords=coords,
    )


def _as_int(sites: tuple) -> tuple:
    coords, species, letters, orbits = sites
    return coords, np.asarray(species, np.int64), letters, np.asarray(orbits)


def _orbits_fit(number: int, letters: np.ndarray, orbits: np.ndarray) -> bool:
    """Whether every orbit has as many atoms as its Wyckoff position."""
    _, first, counts = np.unique(orbits, return_index=True, return_counts=True)
    multiplicity = symmetry_tables().multiplicity[number]
    return bool((multiplicity[letters[first]] == counts).all())


def _search_again(found, number: int, symprec: float) -> tuple:
    """Letters and orbits of the standardised cell itself."""
    hall = int(symmetry_tables().hall_number[number])
    again = symmetry_dataset(
        found.std_lattice, found.std_positions, found.std_types, symprec, hall
    )
    letters = np.array([_LETTER_INDEX[letter] for letter in again.wyckoffs], np.int64)
    orbits = again.crystallographic_orbits
    if again.number != number or not _orbits_fit(number, letters, orbits):
        raise InvalidStructureError(
            f"orbits do not fit the positions of group {number} at symprec {symprec}"
        )
    return found.std_positions, found.std_types, letters, orbits


def _invariant(number: int, metric: np.ndarray) -> np.ndarray:
    """Average of Wᵀ G W over the point group: the nearest metric that obeys it."""
    rotations = symmetry_tables().point_rotations(number)
    return np.einsum("pji,jk,pkl->il", rotations, metric, rotations) / len(rotations)
