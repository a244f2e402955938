"""The one place that calls spglib's search, so that its failures have one form."""

from __future__ import annotations

import os
import warnings
from functools import cache
from typing import Any

import numpy as np

os.environ.setdefault("SPGLIB_WARNING", "OFF")

import spglib

from crystalvae.errors import InvalidStructureError
from crystalvae.symmetry.tables import symmetry_tables


def symmetry_dataset(
    lattice: np.ndarray,
    frac_coords: np.ndarray,
    atomic_numbers: np.ndarray,
    symprec: float,
    hall_number: int = 0,
) -> Any:
    """Run spglib's symmetry search.

    Args:
        lattice: rows are lattice vectors in Å, ``(3, 3)``.
        frac_coords: ``(N, 3)``.
        atomic_numbers: ``(N,)``.
        symprec: distance tolerance in Å.
        hall_number: setting to standardise to; 0 is spglib's default.

    Returns:
        spglib's ``SpglibDataset``.

    Raises:
        InvalidStructureError: spglib returned None or raised, by its version.
    """
    cell = (lattice, frac_coords, atomic_numbers)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            found = spglib.get_symmetry_dataset(
                cell, symprec=symprec, hall_number=int(hall_number)
            )
    except Exception as error:
        raise InvalidStructureError(f"spglib failed: {error}") from error
    if found is None:
        raise InvalidStructureError(
            f"spglib finds no symmetry at symprec {symprec} Å; atoms may overlap"
        )
    return found


def space_group_number(
    lattice: np.ndarray,
    frac_coords: np.ndarray,
    atomic_numbers: np.ndarray,
    symprec: float = 0.1,
) -> int:
    """Space-group number that spglib finds; see :func:`symmetry_dataset`."""
    return int(symmetry_dataset(lattice, frac_coords, atomic_numbers, symprec).number)


@cache
def hall_symbol(number: int) -> str:
    """Hall symbol of our setting of a space group."""
    hall = int(symmetry_tables().hall_number[number])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return spglib.get_spacegroup_type(hall).hall_symbol
