"""What every reader gives: one entry a structure, good or bad."""

from __future__ import annotations

import lzma
import math
import zlib
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalvae.errors import InvalidStructureError

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

MIN_DISTANCE = 0.3
"""Atoms closer than this, in Å, count as overlapping."""
FULL = 0.999
"""Least occupancy of an ordered site."""
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a damaged file raises, compressed or not."""


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number, NumPy's included, and no truth value."""
    return (
        isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    )


def printable(text: str) -> str:
    """A text that can be written as UTF-8: file names need not be in it."""
    return str(text).encode("utf-8", "backslashreplace").decode()


@dataclass
class Entry:
    """A structure as read, or the reason why it could not be."""

    material_id: str
    """Name of the entry."""
    source: str
    """File, and row or key within it."""
    lattice: np.ndarray | None = None
    """Rows in Å, ``(3, 3)``."""
    frac_coords: np.ndarray | None = None
    """``(N, 3)``."""
    atomic_numbers: np.ndarray | None = None
    """``(N,)``."""
    properties: dict[str, float] = field(default_factory=dict)
    """Numbers that came with it."""
    declared_group: int | None = None
    """Space-group number that the file names."""
    error: str | None = None
    """Why it is unusable, in one sentence; None if it is usable."""

    def __post_init__(self) -> None:
        self.material_id = printable(self.material_id)
        self.source = printable(self.source)

    @property
    def structure(self) -> Structure:
        """As a pymatgen ``Structure``.

        Raises:
            InvalidStructureError: the entry has an error.
        """
        from pymatgen.core import Lattice, Structure

        if self.error is not None or self.lattice is None:
            raise InvalidStructureError(f"{self.source}: {self.error}")
        return Structure(Lattice(self.lattice), self.atomic_numbers, self.frac_coords)

    @classmethod
    def from_structure(
        cls,
        structure: Structure,
        material_id: str,
        source: str,
        properties: dict[str, float] | None = None,
    ) -> Entry:
        """From a pymatgen ``Structure``; disorder becomes the entry's error."""
        if not structure.is_ordered:
            return cls(material_id, source, error=_DISORDERED)
        return checked(
            material_id,
            source,
            structure.lattice.matrix,
            structure.frac_coords,
            np.array([getattr(s.specie, "Z", 0) for s in structure]),
            properties,
        )

    @classmethod
    def from_atoms(
        cls,
        atoms: Atoms,
        material_id: str,
        source: str,
        properties: dict[str, float] | None = None,
    ) -> Entry:
        """From ASE ``Atoms``; missing periodicity becomes the entry's error."""
        if not atoms.pbc.all():
            error = "it is not periodic in three dimensions; give it a cell and pbc"
            return cls(material_id, source, error=error)
        if _is_disordered(atoms.info.get("occupancy")):
            return cls(material_id, source, error=_DISORDERED)
        return checked(
            material_id,
            source,
            atoms.cell.array,
            atoms.cell.scaled_positions(atoms.positions),
            atoms.numbers,
            properties,
        )


def _is_disordered(occupancy: Any) -> bool:
    """Whether ASE's ``{kind: {symbol: share}}`` says so; others mean something else."""
    if not isinstance(occupancy, dict):
        return is_number(occupancy) and occupancy < FULL
    return any(
        not isinstance(kinds, dict)
        or len(kinds) > 1
        or any(share < FULL for share in kinds.values())
        for kinds in occupancy.values()
    )


NO_ELEMENT = "it has an unknown element or a dummy atom; name real elements only"
_DISORDERED = (
    "it is disordered (partial or mixed occupancy); choose an ordered approximant"
)


def checked(
    material_id: str,
    source: str,
    lattice: np.ndarray,
    frac_coords: np.ndarray,
    atomic_numbers: np.ndarray,
    properties: dict[str, float] | None = None,
) -> Entry:
    """An entry from arrays, with an error if they are no crystal."""
    lattice = np.asarray(lattice, float)
    frac_coords = np.asarray(frac_coords, float).reshape(-1, 3)
    atomic_numbers = np.asarray(atomic_numbers, np.int64)
    entry = Entry(material_id, source, properties=dict(properties or {}))
    entry.error = _find_fault(lattice, frac_coords, atomic_numbers)
    if entry.error is None:
        entry.lattice, entry.frac_coords = lattice, frac_coords
        entry.atomic_numbers = atomic_numbers
    return entry


def _find_fault(
    lattice: np.ndarray, frac_coords: np.ndarray, atomic_numbers: np.ndarray
) -> str | None:
    from pymatgen.optimization.neighbors import find_points_in_spheres

    if not len(atomic_numbers):
        return "it has no atoms"
    if not (np.isfinite(lattice).all() and np.isfinite(frac_coords).all()):
        return "it has a coordinate that is not a finite number"
    if atomic_numbers.min() < 1 or atomic_numbers.max() > 118:
        return NO_ELEMENT
    volume = abs(np.linalg.det(lattice))
    if volume < 0.1 or np.linalg.norm(lattice, axis=1).min() < MIN_DISTANCE:
        return f"its cell is degenerate (volume {volume:.3g} Å3)"
    cart = np.ascontiguousarray((frac_coords - np.floor(frac_coords)) @ lattice)
    first, second, _, distance = find_points_in_spheres(
        cart,
        cart,
        r=MIN_DISTANCE,
        pbc=np.ones(3, dtype=np.int64),
        lattice=np.ascontiguousarray(lattice),
        tol=1e-8,
    )
    close = (first != second) | (distance > 1e-8)
    if close.any():
        at = np.flatnonzero(close)[distance[close].argmin()]
        return (
            f"atoms {first[at]} and {second[at]} overlap ({distance[at]:.2f} Å apart); "
            "remove duplicates"
        )
    return None
