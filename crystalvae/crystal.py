"""The data type: a crystal as its space group, cell and occupied Wyckoff positions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from crystalvae.errors import DataError, InvalidStructureError
from crystalvae.symmetry.tables import LETTERS, symmetry_tables

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms
    from pymatgen.core import Structure

CANONICAL_SYMPREC = 1e-3
"""Å; tolerance for crystals that are symmetric already."""


@dataclass(frozen=True, eq=False)
class AsymmetricUnit:
    """A crystal, exactly symmetric by construction.

    P1 is the plain special case in which every atom is its own site. Two are equal if
    they are the same numbers; :meth:`matches` asks whether they are the same crystal.
    """

    number: int
    """Space-group number, 1 to 230."""
    lattice: np.ndarray
    """Conventional cell in Cholesky form, rows in Å, ``(3, 3)``."""
    wyckoffs: np.ndarray
    """Letter index of each site, ``(S,)``."""
    atomic_numbers: np.ndarray
    """Element of each site, ``(S,)``."""
    frac_coords: np.ndarray
    """A point of each orbit, on its position's first triplet, ``(S, 3)``."""

    def __repr__(self) -> str:
        sites = " ".join(
            f"{symbol}:{m}{letter}"
            for symbol, m, letter in zip(
                self.site_symbols, self.multiplicities, self.letters
            )
        )
        return f"AsymmetricUnit({self.formula}, {self.symbol} ({self.number}), {sites})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AsymmetricUnit):
            return NotImplemented
        return self.number == other.number and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("wyckoffs", "atomic_numbers", "lattice", "frac_coords")
        )

    def __hash__(self) -> int:
        sites = tuple(self.wyckoffs.tolist()), tuple(self.atomic_numbers.tolist())
        return hash((self.number, *sites, *self.lattice.ravel().tolist()))

    @property
    def multiplicities(self) -> np.ndarray:
        """Atoms of each orbit in the conventional cell, ``(S,)``."""
        return symmetry_tables().multiplicity[self.number, self.wyckoffs]

    @property
    def letters(self) -> list[str]:
        """Wyckoff letters of the sites."""
        return [LETTERS[index] for index in self.wyckoffs]

    @property
    def site_symbols(self) -> list[str]:
        """Element symbols of the sites."""
        from ase.data import chemical_symbols

        return [chemical_symbols[z] for z in self.atomic_numbers]

    @property
    def symbol(self) -> str:
        """Short Hermann-Mauguin symbol."""
        return symmetry_tables().symbol[self.number]

    @cached_property
    def num_atoms(self) -> int:
        """Atoms in the conventional cell."""
        return int(self.multiplicities.sum())

    @property
    def num_primitive_atoms(self) -> int:
        """Atoms in the primitive cell."""
        return self.num_atoms // int(symmetry_tables().centring[self.number])

    @property
    def volume(self) -> float:
        """Volume of the conventional cell in Å³."""
        return float(abs(np.linalg.det(self.lattice)))

    @property
    def density(self) -> float:
        """Mass density in g/cm³."""
        from crystalvae.screening.density import density_of

        return density_of(self)

    @cached_property
    def composition(self) -> dict[int, int]:
        """Atomic number → count in the primitive cell, ascending."""
        counts: dict[int, int] = {}
        for z, m in zip(self.atomic_numbers.tolist(), self.multiplicities.tolist()):
            counts[z] = counts.get(z, 0) + m
        centring = int(symmetry_tables().centring[self.number])
        return {z: counts[z] // centring for z in sorted(counts)}

    @property
    def formula(self) -> str:
        """Reduced formula, elements by electronegativity, as pymatgen writes it."""
        divisor = gcd(*self.composition.values())
        return reduced_formula({z: n // divisor for z, n in self.composition.items()})

    def canonical(self) -> AsymmetricUnit:
        """The same crystal as :meth:`from_structure` describes it.

        Origin and axes are chosen in one way, so that all descriptions of a crystal
        give one encoding; what a model draws may come in another. A crystal whose
        atoms are within 1e-3 Å of a higher symmetry stays as it is.
        """
        from crystalvae.symmetry.standardize import standardize

        try:
            found = standardize(*self.expand()[:3], symprec=CANONICAL_SYMPREC)
        except InvalidStructureError:
            return self
        return found if found.number == self.number else self

    def matches(self, other: AsymmetricUnit | Structure | Atoms) -> bool:
        """Whether pymatgen's StructureMatcher, at its defaults, finds them the same.

        Raises:
            InvalidStructureError: the other is no crystal, or cannot be used.
        """
        from crystalvae.screening.match import Match
        from crystalvae.screening.reduced import reduced_cell

        mine, others = reduced_cell(self), reduced_cell(self.of(other))
        return mine is not None and others is not None and Match(mine)(others)

    def expand(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All atoms of the conventional cell.

        Returns:
            Lattice ``(3, 3)``, fractional coordinates ``(N, 3)`` in [0, 1), atomic
            numbers ``(N,)`` and the site of each atom ``(N,)``.
        """
        return self._expand(self.lattice, np.eye(3), 1)

    def expand_primitive(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All atoms of a primitive cell, as :meth:`expand`."""
        tables = symmetry_tables()
        basis = tables.primitive[self.number]
        centring = int(tables.centring[self.number])
        return self._expand(basis @ self.lattice, np.linalg.inv(basis), centring)

    def _expand(
        self, lattice: np.ndarray, inverse_basis: np.ndarray, centring: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        tables = symmetry_tables()
        points, sizes = [], []
        for letter, coords in zip(self.wyckoffs.tolist(), self.frac_coords):
            rotations, translations = tables.orbit_ops(self.number, letter)
            size = len(rotations) // centring
            points.append(rotations[:size] @ coords + translations[:size])
            sizes.append(size)
        coords = np.concatenate(points) @ inverse_basis
        coords = coords - np.floor(coords)
        coords[coords > 1 - 1e-9] = 0.0
        site = np.repeat(np.arange(len(sizes)), sizes)
        return lattice, coords, self.atomic_numbers[site], site

    def to_structure(self, primitive: bool = True) -> Structure:
        """As a pymatgen ``Structure`` of the primitive or the conventional cell."""
        from pymatgen.core import Lattice, Structure

        cell = self.expand_primitive() if primitive else self.expand()
        lattice, coords, species, _ = cell
        return Structure(Lattice(lattice), species, coords)

    def to_atoms(self, primitive: bool = True) -> Atoms:
        """As ASE ``Atoms`` of the primitive or the conventional cell."""
        from ase import Atoms

        cell = self.expand_primitive() if primitive else self.expand()
        lattice, coords, species, _ = cell
        return Atoms(species, scaled_positions=coords, cell=lattice, pbc=True)

    def to_cif(self, symmetrized: bool = True, **options) -> str:
        """As CIF text; see :func:`crystalvae.cif.write_cif`."""
        from crystalvae.cif import write_cif

        return write_cif(self, symmetrized=symmetrized, **options)

    @classmethod
    def canonical_of(
        cls, crystal: AsymmetricUnit | Structure | Atoms
    ) -> AsymmetricUnit:
        """In canonical form, from any of the three; raises as :meth:`of`."""
        found = cls.of(crystal)
        return found.canonical() if found is crystal else found

    @classmethod
    def of(cls, crystal: AsymmetricUnit | Structure | Atoms) -> AsymmetricUnit:
        """From any of the three.

        Raises:
            InvalidStructureError: it is none of them, or cannot be used.
        """
        if isinstance(crystal, AsymmetricUnit):
            return crystal
        if hasattr(crystal, "is_ordered") and hasattr(crystal, "lattice"):
            return cls.from_structure(crystal)
        if hasattr(crystal, "pbc"):
            return cls.from_atoms(crystal)
        raise InvalidStructureError(
            f"a {type(crystal).__name__} is no crystal; give an AsymmetricUnit, a "
            "pymatgen Structure or ASE Atoms"
        )

    @classmethod
    def from_file(cls, path: str | Path) -> AsymmetricUnit:
        """From a file with one structure, of any kind that ``prepare`` reads.

        Raises:
            DataError: there is no such file, or it holds none or several.
            InvalidStructureError: the structure cannot be used.
        """
        from crystalvae.data.load import crystal_of
        from crystalvae.data.readers import read_structures

        entries = list(read_structures(path))
        if len(entries) != 1:
            raise DataError(f"{path} holds {len(entries)} structures, not one")
        return crystal_of(entries[0])

    @classmethod
    def from_structure(
        cls, structure: Structure, symprec: float = 0.1
    ) -> AsymmetricUnit:
        """From an ordered pymatgen ``Structure``; see :func:`standardize`.

        Raises:
            InvalidStructureError: the structure is disordered or has no consistent
                symmetry.
        """
        from crystalvae.symmetry.standardize import standardize

        if not hasattr(structure, "is_ordered"):
            raise InvalidStructureError(
                f"a {type(structure).__name__} is no pymatgen Structure; "
                "AsymmetricUnit.of takes ASE Atoms as well"
            )
        if not structure.is_ordered:
            raise InvalidStructureError(
                f"{structure.formula} is disordered (partial occupancy); order it first"
            )
        return standardize(
            structure.lattice.matrix,
            structure.frac_coords,
            np.array(structure.atomic_numbers),
            symprec=symprec,
        )

    @classmethod
    def from_atoms(cls, atoms: Atoms, symprec: float = 0.1) -> AsymmetricUnit:
        """From periodic ASE ``Atoms``; see :func:`standardize`."""
        from crystalvae.symmetry.standardize import standardize

        if not atoms.pbc.all():
            raise InvalidStructureError("atoms must be periodic in three dimensions")
        return standardize(
            atoms.cell.array,
            atoms.get_scaled_positions(),
            atoms.numbers,
            symprec=symprec,
        )


def reduced_formula(composition: dict[int, int]) -> str:
    """Atomic number → count as a reduced formula, as pymatgen writes it."""
    from ase.data import chemical_symbols
    from pymatgen.core import Composition

    counts = {chemical_symbols[z]: n for z, n in composition.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No Pauling electronegativity")
        return Composition(counts).reduced_formula
