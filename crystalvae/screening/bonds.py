"""How near atoms of two elements come in known crystals.

The sum of covalent radii knows neither charges nor bond orders: 0.6 of it, which some
known crystals need, is 1.2 Å for Fe–O. What relaxed crystals have is sharper, pair by
pair.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from crystalvae.screening.base import Candidate, CheckResult
from crystalvae.screening.distance import pairs_within, unsearchable

SHARE = 0.94
"""Least share of the shortest known distance."""
MANY = 15
"""Known crystals of a pair from which on that share holds."""
SOME = 5
"""Known crystals from which on a smaller share holds; of fewer none."""
LENIENCE = 0.04
"""By which that one is smaller."""


@cache
def shortest_known() -> tuple[np.ndarray, np.ndarray]:
    """Shortest distances in Å, and in how many crystals elements are neighbours.

    Of crystals of the Materials Project at most 0.1 eV/atom above its hull (the
    training crystals of MP-20 and further ones, ``tools/build_bond_table.py``).

    Returns:
        Both by atomic number, ``(119, 119)``, 0 where nothing is known.
    """
    file = resources.files("crystalvae.screening") / "bonds.json"
    shortest, count = np.zeros((2, len(chemical_symbols), len(chemical_symbols)))
    for pair, values in json.loads(file.read_text(encoding="utf-8")).items():
        first, second = (atomic_numbers[symbol] for symbol in pair.split("-"))
        for one, other in ((first, second), (second, first)):
            shortest[one, other], count[one, other] = values
    return shortest, count


@cache
def bond_limits(share: float = SHARE) -> np.ndarray:
    """Shortest distances in Å that are plausible, ``(119, 119)``, 0 for no limit.

    Args:
        share: of the shortest known distance.
    """
    shortest, count = shortest_known()
    kept = np.where(count >= MANY, share, np.where(count >= SOME, share - LENIENCE, 0))
    return np.maximum(kept, 0) * shortest


def check_bonds(candidate: Candidate) -> CheckResult:
    """No two atoms clearly closer than those of their elements in known crystals.

    The value is the shortest distance as a share of the shortest known one. Of 8,903
    validation crystals of MP-20, which gave none of the distances, 0.4 % fail.
    """
    why = unsearchable(candidate)
    if why is not None:
        return CheckResult("bonds", None, None, why)
    species = candidate.atomic_numbers
    limits = bond_limits()
    reach = float(limits[np.ix_(species, species)].max(initial=0.0))
    first, second, distance = pairs_within(candidate, reach)
    least = limits[species[first], species[second]]
    if not (least > 0).any():
        return CheckResult("bonds", True)
    ratio = distance / np.where(least > 0, least, np.inf)
    ratio[least == 0] = np.inf
    worst = int(ratio.argmin())
    shortest = shortest_known()[0][species[first[worst]], species[second[worst]]]
    value = float(distance[worst] / shortest)
    if ratio[worst] >= 1:
        return CheckResult("bonds", True, value)
    pair = "–".join(chemical_symbols[species[i]] for i in (first[worst], second[worst]))
    text = (
        f"{pair} of {distance[worst]:.2f} Å, in known crystals {shortest:.2f} or more"
    )
    return CheckResult("bonds", False, value, text)
