"""A data set that the package makes itself: idealised prototype crystals.

Charge-neutral combinations of common ions (and alloys of common metals) in the simple
structure types of textbooks, with cells from sums of ionic or covalent radii. They are
idealised: made to try things out without a download, not relaxed and not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from math import sqrt

import numpy as np

from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.readers.base import Entry
from crystalvae.symmetry.tables import LETTERS

CATIONS = {
    1: "Li Na K Rb Cs Ag Tl",
    2: "Mg Ca Sr Ba Mn Fe Co Ni Cu Zn Cd Pb Sn Eu",
    3: "Al Ga In Sc Y La Ce Nd Gd Er Lu Cr Fe V Bi",
    4: "Ti Zr Hf Sn Ge Ce Th Mo V Mn",
    5: "V Nb Ta Sb",
    6: "Mo W Te",
}
"""Symbols of common cations by charge."""
ANIONS = {1: "F Cl Br I", 2: "O S Se Te", 3: "N P As Sb", 4: "C"}
"""Symbols of common anions by negative charge."""
METALS = [
    "Al",
    "Ti",
    "V",
    "Mn",
    "Fe",
    "Co",
    "Ni",
    "Cu",
    "Zn",
    "Ga",
    "Zr",
    "Nb",
    "Mo",
    "Ru",
    "Rh",
    "Pd",
    "Ag",
    "Sn",
    "Hf",
    "Ta",
    "W",
    "Ir",
    "Pt",
    "Au",
]


@dataclass(frozen=True)
class Prototype:
    """A structure type."""

    name: str
    """Its usual name."""
    number: int
    """Space group."""
    sites: tuple[tuple[str, int, tuple[float, float, float]], ...]
    """(Wyckoff letter, which species, coordinates on the first triplet)."""
    cell: Callable[..., tuple[float, ...]]
    """From the species' radii to (a,), (a, c) in Å."""
    charges: tuple[tuple[int, ...], ...] | None
    """Charges of the species, one tuple for each allowed set; None for metals."""
    num_species: int = 2
    """Different elements."""


def _bond(i: int, j: int, factor: float, ratio: float | None = None) -> Callable:
    def cell(*radii: float) -> tuple[float, ...]:
        a = (radii[i] + radii[j]) * factor
        return (a,) if ratio is None else (a, a * ratio)

    return cell


def _widest(*bonds: tuple[int, int, float]) -> Callable:
    return lambda *r: (max((r[i] + r[j]) * f for i, j, f in bonds),)


ZERO, HALF, QUARTER = (0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
E8 = (0.125, 0.125, 0.125)
THIRD = (1 / 3, 2 / 3, 0.0)
AX = ((1, -1), (2, -2), (3, -3))
AX2 = ((2, -1), (4, -2))
PEROVSKITE = ((1, 5, -2), (2, 4, -2), (3, 3, -2), (1, 2, -1))

PROTOTYPES = (
    Prototype("rocksalt", 225, (("a", 0, ZERO), ("b", 1, HALF)), _bond(0, 1, 2), AX),
    Prototype("cesium-chloride", 221, (("a", 0, ZERO), ("b", 1, HALF)), _bond(0, 1, 2 / sqrt(3)), AX),
    Prototype("zincblende", 216, (("a", 0, ZERO), ("c", 1, QUARTER)), _bond(0, 1, 4 / sqrt(3)), AX),
    Prototype("wurtzite", 186, (("b", 0, THIRD), ("b", 1, (1 / 3, 2 / 3, 0.375))), _bond(0, 1, sqrt(8 / 3), sqrt(8 / 3)), AX),
    Prototype("nickel-arsenide", 194, (("a", 0, ZERO), ("c", 1, (1 / 3, 2 / 3, 0.25))), _bond(0, 1, sqrt(2), 1.5), AX),
    Prototype("fluorite", 225, (("a", 0, ZERO), ("c", 1, QUARTER)), _bond(0, 1, 4 / sqrt(3)), AX2),
    Prototype("antifluorite", 225, (("c", 0, QUARTER), ("a", 1, ZERO)), _bond(0, 1, 4 / sqrt(3)), ((1, -2), (2, -4))),
    Prototype("rutile", 136, (("a", 0, ZERO), ("f", 1, (0.305, 0.305, 0.0))), _bond(0, 1, 2.31, 0.645), AX2),
    Prototype("cadmium-iodide", 164, (("a", 0, ZERO), ("d", 1, (1 / 3, 2 / 3, 0.25))), _bond(0, 1, sqrt(2), 1.6), AX2),
    Prototype("pyrite", 205, (("a", 0, ZERO), ("c", 1, (0.385, 0.385, 0.385))), _bond(0, 1, 2.4), ((2, -1),)),
    Prototype("cuprite", 224, (("b", 0, ZERO), ("a", 1, QUARTER)), _bond(0, 1, 4 / sqrt(3)), ((1, -2),)),
    Prototype("rhenium-trioxide", 221, (("a", 0, ZERO), ("d", 1, (0.5, 0.0, 0.0))), _bond(0, 1, 2), ((3, -1), (6, -2))),
    Prototype("corundum", 167, (("c", 0, (0.0, 0.0, 0.352)), ("e", 1, (0.306, 0.0, 0.25))), _bond(0, 1, 2.46, 2.73), ((3, -2),)),
    Prototype("anti-rhenium-trioxide", 221, (("d", 0, (0.5, 0.0, 0.0)), ("a", 1, ZERO)), _bond(0, 1, 2), ((1, -3),)),
    Prototype("perovskite", 221, (("b", 0, HALF), ("a", 1, ZERO), ("d", 2, (0.5, 0.0, 0.0))), _widest((1, 2, 2), (0, 2, sqrt(2))), PEROVSKITE, 3),
    Prototype("spinel", 227, (("a", 0, E8), ("d", 1, HALF), ("e", 2, (0.2625,) * 3)), _widest((0, 2, 4.2), (1, 2, 4.18)), ((2, 3, -2), (4, 2, -2)), 3),
    Prototype("ilmenite", 148, (("c", 0, (0.0, 0.0, 0.355)), ("c", 1, (0.0, 0.0, 0.146)), ("f", 2, (0.318, 0.023, 0.245))), _bond(1, 2, 2.5, 2.77), ((2, 4, -2), (1, 5, -2)), 3),
    Prototype("ruddlesden-popper", 139, (("e", 0, (0.0, 0.0, 0.355)), ("a", 1, ZERO), ("c", 2, (0.0, 0.5, 0.0)), ("e", 2, (0.0, 0.0, 0.16))), _bond(1, 2, 2, 3.25), ((2, 4, -2), (1, 2, -1)), 3),
    Prototype("delafossite", 166, (("a", 0, ZERO), ("b", 1, (0.0, 0.0, 0.5)), ("c", 2, (0.0, 0.0, 0.11))), _bond(1, 2, 1.5, 5.6), ((1, 3, -2),), 3),
    Prototype("sodium-ferrite", 166, (("a", 0, ZERO), ("b", 1, (0.0, 0.0, 0.5)), ("c", 2, (0.0, 0.0, 0.24))), _bond(1, 2, 1.48, 5.0), ((1, 3, -2),), 3),
    Prototype("antiperovskite", 221, (("d", 0, (0.5, 0.0, 0.0)), ("a", 1, ZERO), ("b", 2, HALF)), _widest((0, 1, 2), (0, 2, sqrt(2))), ((1, -2, -1), (2, -3, -3)), 3),
    Prototype("double-perovskite", 225, (("c", 0, QUARTER), ("a", 1, ZERO), ("b", 2, HALF), ("e", 3, (0.25, 0.0, 0.0))), _widest((1, 3, 4), (2, 3, 4)), ((2, 3, 5, -2), (2, 2, 6, -2), (1, 1, 3, -1)), 4),
    Prototype("half-heusler", 216, (("a", 0, ZERO), ("b", 1, HALF), ("c", 2, QUARTER)), _widest((0, 2, 4 / sqrt(3)), (1, 2, 4 / sqrt(3))), None, 3),
    Prototype("heusler", 225, (("c", 0, QUARTER), ("a", 1, ZERO), ("b", 2, HALF)), _widest((0, 1, 4 / sqrt(3)), (0, 2, 4 / sqrt(3))), None, 3),
    Prototype("b2", 221, (("a", 0, ZERO), ("b", 1, HALF)), _bond(0, 1, 2 / sqrt(3)), None),
    Prototype("l12", 221, (("c", 0, (0.0, 0.5, 0.5)), ("a", 1, ZERO)), _bond(0, 1, sqrt(2)), None),
    Prototype("l10", 123, (("a", 0, ZERO), ("d", 1, HALF)), _bond(0, 1, 1.0, sqrt(2) * 0.95), None),
    Prototype("aluminium-diboride", 191, (("a", 0, ZERO), ("d", 1, (1 / 3, 2 / 3, 0.5))), _bond(0, 1, 1.3, 1.05), None),
    Prototype("laves", 227, (("a", 0, E8), ("d", 1, HALF)), _widest((0, 1, 2.41), (1, 1, 2.83)), None),
    Prototype("fcc", 225, (("a", 0, ZERO),), _bond(0, 0, sqrt(2)), None, 1),
    Prototype("bcc", 229, (("a", 0, ZERO),), _bond(0, 0, 2 / sqrt(3)), None, 1),
    Prototype("hcp", 194, (("c", 0, (1 / 3, 2 / 3, 0.25)),), _bond(0, 0, 1.0, 1.633), None, 1),
)  # fmt: skip
"""All structure types, by increasing number of species within each class."""
MAX_PER_PROTOTYPE = 450


@cache
def _radius(symbol: str, charge: int | None) -> float:
    """Ionic radius in Å (covalent for metals without a charge)."""
    from ase.data import atomic_numbers, covalent_radii
    from pymatgen.core import Element

    if charge is None:
        return float(covalent_radii[atomic_numbers[symbol]])
    radii = Element(symbol).ionic_radii
    if charge in radii:
        return float(radii[charge])
    if radii:
        nearest = min(radii, key=lambda state: (abs(state - charge), state))
        return float(radii[nearest])
    return float(covalent_radii[atomic_numbers[symbol]])


def _decorations(prototype: Prototype) -> Iterator[tuple[tuple[str, int | None], ...]]:
    if prototype.charges is None:
        for symbols in permutations(METALS, prototype.num_species):
            yield tuple((symbol, None) for symbol in symbols)
        return
    for charges in prototype.charges:
        pools = [(CATIONS[q] if q > 0 else ANIONS[-q]).split() for q in charges]
        for symbols in product(*pools):
            if len(set(symbols)) == len(symbols):
                yield tuple(zip(symbols, charges))


def build(
    prototype: Prototype, species: tuple[tuple[str, int | None], ...]
) -> AsymmetricUnit:
    """One crystal of a structure type.

    Args:
        prototype: the structure type.
        species: (symbol, charge) of each of its species; charge None for metals.
    """
    from ase.data import atomic_numbers

    cell = prototype.cell(*(_radius(*one) for one in species))
    a, c = cell[0], cell[-1]
    lattice = np.diag([a, a, c])
    if 143 <= prototype.number <= 194:
        lattice[1, :2] = (-a / 2, a * sqrt(3) / 2)
    sites = sorted(
        (LETTERS.index(letter), atomic_numbers[species[which][0]], coords)
        for letter, which, coords in prototype.sites
    )
    return AsymmetricUnit(
        number=prototype.number,
        lattice=lattice,
        wyckoffs=np.array([s[0] for s in sites], np.int64),
        atomic_numbers=np.array([s[1] for s in sites], np.int64),
        frac_coords=np.array([s[2] for s in sites], float),
    )


def prototype_crystals(
    max_per_prototype: int = MAX_PER_PROTOTYPE,
) -> Iterator[tuple[str, AsymmetricUnit]]:
    """All crystals of the built-in data set with their names, always the same.

    Args:
        max_per_prototype: at most so many of one structure type, evenly chosen.
    """
    for prototype in PROTOTYPES:
        every = list(_decorations(prototype))
        stride = max(1.0, len(every) / max_per_prototype)
        count = min(len(every), max_per_prototype)
        for species in (every[int(i * stride)] for i in range(count)):
            symbols = "".join(symbol for symbol, _ in species)
            yield f"{prototype.name}-{symbols}", build(prototype, species)


def prototypes(max_per_prototype: int = MAX_PER_PROTOTYPE) -> Iterator[Entry]:
    """The built-in data set as entries, primitive cells.

    Args:
        max_per_prototype: at most so many of one structure type.
    """
    for name, crystal in prototype_crystals(max_per_prototype):
        lattice, coords, numbers, _ = crystal.expand_primitive()
        yield Entry(name, f"prototypes:{name}", lattice, coords, numbers)
