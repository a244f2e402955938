"""Wyckoff positions, operations and normalisers of the 230 space groups.

All in the settings of the International Tables with origin choice 2, unique axis b
(cell choice 1) and hexagonal axes. The file ``tables.npz`` is made by
``tools/build_symmetry_tables.py`` from PyXtal and checked against spglib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyzA"
NUM_LETTERS = len(LETTERS)
_UNIT = 24.0
_PRIMITIVE_UNIT = 6.0


@dataclass(frozen=True, eq=False)
class SymmetryTables:
    """Arrays indexed by space-group number (row 0 unused) and letter index."""

    multiplicity: np.ndarray
    """Points of the orbit in the conventional cell, 0 if absent, ``(231, 27)``."""
    dof: np.ndarray
    """Free coordinates, 0 to 3, ``(231, 27)``."""
    free: np.ndarray
    """Which coordinates of the first triplet are free, ``(231, 27, 3)``."""
    embed: np.ndarray
    """Linear part of the projection on the first triplet, ``(231, 27, 3, 3)``."""
    offset: np.ndarray
    """Its constant part: ``x = embed @ x + offset`` on it, ``(231, 27, 3)``."""
    centring: np.ndarray
    """Lattice points in the conventional cell, ``(231,)``."""
    polar: np.ndarray
    """Axes along which the origin is arbitrary, ``(231, 3)``."""
    system: np.ndarray
    """0 triclinic, 1 monoclinic, 2 orthorhombic, 3 tetragonal, 4 trigonal,
    5 hexagonal, 6 cubic, ``(231,)``."""
    hall_number: np.ndarray
    """spglib's number of the setting, ``(231,)``."""
    symbol: tuple[str, ...]
    """Short Hermann-Mauguin symbols."""
    primitive: np.ndarray
    """Primitive basis in units of the conventional one, ``(231, 3, 3)``."""
    orbit_start: np.ndarray
    """Start of each position in ``orbit``, ``(231, 27)``."""
    orbit: np.ndarray
    """Operations that make each orbit, as indices within the group; those of one
    primitive cell come first, and the identity first of all."""
    operation_start: np.ndarray
    """Start of each group in ``rotations`` and ``translations``, ``(232,)``."""
    rotations: np.ndarray
    """``(total, 3, 3)``."""
    translations: np.ndarray
    """``(total, 3)``."""
    normalizer_start: np.ndarray
    """Start of each group in the normaliser arrays, ``(232,)``."""
    normalizer_rotations: np.ndarray
    """``(total, 3, 3)``."""
    normalizer_translations: np.ndarray
    """``(total, 3)``."""
    normalizer_letters: np.ndarray
    """Letter of the image of each position, ``(total, 27)``."""

    def orbit_ops(self, number: int, letter: int) -> tuple[np.ndarray, np.ndarray]:
        """Operations that take a point on the first triplet to its orbit.

        Returns:
            Rotations ``(m, 3, 3)`` and translations ``(m, 3)``; m is the multiplicity.
            The first m / centring make the orbit in one primitive cell.
        """
        return _orbit_ops(number, letter)

    def general_ops(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """All operations of the conventional cell, centring included."""
        rows = slice(self.operation_start[number], self.operation_start[number + 1])
        return self.rotations[rows], self.translations[rows]

    def point_rotations(self, number: int) -> np.ndarray:
        """Rotation parts of the group, ``(P, 3, 3)``."""
        return _point_rotations(number)

    def normalizer(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Other descriptions of the same crystal in the same setting.

        Coset representatives of the chirality-preserving affine normaliser (those with
        small integer entries) modulo the group; the identity first. Translations along
        polar axes are not among them.

        Returns:
            Rotations ``(C, 3, 3)``, translations ``(C, 3)``, letter maps ``(C, 27)``.
        """
        rows = slice(self.normalizer_start[number], self.normalizer_start[number + 1])
        return (
            self.normalizer_rotations[rows],
            self.normalizer_translations[rows],
            self.normalizer_letters[rows],
        )

    def equivalent_letters(self, number: int, letters: Sequence[int]) -> np.ndarray:
        """The letters of S sites in each of those descriptions, ``(D, S)``."""
        return _equivalent_letters(number, tuple(map(int, letters)))


@cache
def symmetry_tables() -> SymmetryTables:
    """Load the tables once."""
    file = resources.files("crystalvae.symmetry") / "tables.npz"
    with file.open("rb") as stream, np.load(stream) as data:
        raw = {name: data[name] for name in data.files}
    fractions = ("offset", "translations", "normalizer_translations")
    return SymmetryTables(
        free=raw["free"],
        polar=raw["polar"],
        embed=raw["embed"].astype(float),
        primitive=raw["primitive"] / _PRIMITIVE_UNIT,
        symbol=tuple(raw["symbol"].tolist()),
        **{name: raw[name] / _UNIT for name in fractions},
        **{
            name: raw[name].astype(np.int64)
            for name in (
                "multiplicity",
                "dof",
                "centring",
                "system",
                "hall_number",
                "orbit_start",
                "orbit",
                "operation_start",
                "rotations",
                "normalizer_start",
                "normalizer_rotations",
                "normalizer_letters",
            )
        },
    )


@cache
def group_numbers() -> dict[str, int]:
    """Number of each group by its symbol, and by its symbol without underscores."""
    symbols = symmetry_tables().symbol
    bare = {symbols[n].replace("_", ""): n for n in range(1, len(symbols))}
    return bare | {symbols[n]: n for n in range(1, len(symbols))}


@cache
def _orbit_ops(number: int, letter: int) -> tuple[np.ndarray, np.ndarray]:
    tables = symmetry_tables()
    start = tables.orbit_start[number, letter]
    size = tables.multiplicity[number, letter]
    rows = tables.operation_start[number] + tables.orbit[start : start + size]
    return tables.rotations[rows], tables.translations[rows]


@lru_cache(maxsize=100_000)
def _equivalent_letters(number: int, letters: tuple[int, ...]) -> np.ndarray:
    return np.unique(symmetry_tables().normalizer(number)[2][:, letters], axis=0)


@cache
def _point_rotations(number: int) -> np.ndarray:
    return np.unique(symmetry_tables().general_ops(number)[0], axis=0)
