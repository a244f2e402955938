"""Symmetry search in the settings of our tables: moyo first, spglib where it cannot.

moyo (the successor of spglib by its authors) needs a tenth of the time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

import moyopy
import numpy as np

from crystalvae.errors import InvalidStructureError
from crystalvae.symmetry.spglib_wrapper import symmetry_dataset
from crystalvae.symmetry.tables import LETTERS, symmetry_tables

logging.getLogger("moyo").setLevel(logging.ERROR)
logging.getLogger("moyopy").setLevel(logging.ERROR)

_LETTER_INDEX = {letter: index for index, letter in enumerate(LETTERS)}
_SETTING = moyopy.Setting.standard()


def _letter_indices(letters: Iterable[str]) -> np.ndarray:
    return np.array([_LETTER_INDEX[letter] for letter in letters], np.int64)


@dataclass(frozen=True)
class StandardCell:
    """A crystal in the conventional cell of its group, atoms labelled by orbit."""

    number: int
    """Space-group number."""
    lattice: np.ndarray
    """Rows in Å, ``(3, 3)``."""
    frac_coords: np.ndarray
    """``(N, 3)``."""
    atomic_numbers: np.ndarray
    """``(N,)``."""
    letters: np.ndarray
    """Wyckoff letter index of each atom, ``(N,)``."""
    orbits: np.ndarray
    """Label of each atom's orbit, ``(N,)``."""

    def consistent(self) -> bool:
        """Whether every orbit has as many atoms as its Wyckoff position."""
        _, first, counts = np.unique(self.orbits, return_index=True, return_counts=True)
        multiplicity = symmetry_tables().multiplicity[self.number]
        return bool((multiplicity[self.letters[first]] == counts).all())


def moyo_dataset(
    lattice: np.ndarray,
    frac_coords: np.ndarray,
    atomic_numbers: np.ndarray,
    symprec: float,
) -> moyopy.MoyoDataset:
    """What moyo finds, in our settings; arguments as :func:`search_moyo`.

    Raises:
        InvalidStructureError: it finds nothing.
    """
    cell = moyopy.Cell(
        basis=lattice.tolist(),
        positions=frac_coords.tolist(),
        numbers=atomic_numbers.tolist(),
    )
    try:
        return moyopy.MoyoDataset(cell, symprec=symprec, setting=_SETTING)
    except Exception as error:
        raise InvalidStructureError(f"moyo failed: {error}") from error


def search_moyo(
    lattice: np.ndarray,
    frac_coords: np.ndarray,
    atomic_numbers: np.ndarray,
    symprec: float,
) -> StandardCell:
    """Search with moyo.

    Args:
        lattice: rows in Å, right-handed, ``(3, 3)``.
        frac_coords: ``(N, 3)``.
        atomic_numbers: ``(N,)``.
        symprec: distance tolerance in Å.

    Raises:
        InvalidStructureError: moyo finds nothing, or orbits that do not fit.
    """
    found = moyo_dataset(lattice, frac_coords, atomic_numbers, symprec)
    primitive = found.mapping_std_prim
    source = np.full(len(found.prim_std_cell.positions), -1, np.int64)
    source[primitive[::-1]] = np.arange(len(atomic_numbers))[::-1]
    # an atom of the primitive cell is followed by its centring translations
    species = np.array(found.std_cell.numbers, np.int64)
    source = source.repeat(len(species) // len(source))
    cell = StandardCell(
        number=int(found.number),
        lattice=np.array(found.std_cell.basis),
        frac_coords=np.array(found.std_cell.positions),
        atomic_numbers=species,
        letters=_letter_indices(found.wyckoffs)[source],
        orbits=np.array(found.orbits)[source],
    )
    if (atomic_numbers[source] != species).any() or not cell.consistent():
        raise _misfit(cell.number, symprec)
    return cell


def search_spglib(
    lattice: np.ndarray,
    frac_coords: np.ndarray,
    atomic_numbers: np.ndarray,
    symprec: float,
) -> StandardCell:
    """Search with spglib, twice where its default setting is not ours.

    Args as :func:`search_moyo`.

    Raises:
        InvalidStructureError: spglib finds nothing, or orbits that do not fit.
    """
    found = symmetry_dataset(lattice, frac_coords, atomic_numbers, symprec)
    hall = int(symmetry_tables().hall_number[int(found.number)])
    if found.hall_number != hall:
        found = symmetry_dataset(lattice, frac_coords, atomic_numbers, symprec, hall)
    primitive = found.std_mapping_to_primitive
    source = np.zeros(int(found.mapping_to_primitive.max()) + 1, np.int64)
    source[found.mapping_to_primitive[::-1]] = np.arange(len(atomic_numbers))[::-1]
    cell = StandardCell(
        number=int(found.number),
        lattice=found.std_lattice,
        frac_coords=found.std_positions,
        atomic_numbers=np.asarray(found.std_types, np.int64),
        letters=_letter_indices(found.wyckoffs)[source[primitive]],
        orbits=found.crystallographic_orbits[source[primitive]],
    )
    return cell if cell.consistent() else search_standard_cell(cell, symprec)


def search_standard_cell(cell: StandardCell, symprec: float) -> StandardCell:
    """Letters and orbits that spglib finds in the standardised cell itself.

    Raises:
        InvalidStructureError: the group is another one, or orbits do not fit.
    """
    hall = int(symmetry_tables().hall_number[cell.number])
    again = symmetry_dataset(
        cell.lattice, cell.frac_coords, cell.atomic_numbers, symprec, hall
    )
    labelled = replace(
        cell,
        letters=_letter_indices(again.wyckoffs),
        orbits=np.asarray(again.crystallographic_orbits),
    )
    if again.number != cell.number or not labelled.consistent():
        raise _misfit(cell.number, symprec)
    return labelled


def _misfit(number: int, symprec: float) -> InvalidStructureError:
    return InvalidStructureError(
        f"orbits do not fit the positions of group {number} at {symprec} Å"
    )
