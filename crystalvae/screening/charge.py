"""Charge balance: SMACT's rule for comparison, and one that is better.

Both ask whether oxidation states can be chosen so that the charges cancel and every
cation is less electronegative than every anion. Instead of all combinations, whose
number grows exponentially with the elements, the reachable totals are kept as a set, so
that no composition can hang the check.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from crystalvae.screening.base import (
    Candidate,
    CheckResult,
    element_array,
    element_table,
)
from crystalvae.screening.distance import pairs_within

LOWEST = {1: -1, 6: -4, 7: -3, 8: -2, 9: -1, 14: -4, 15: -3, 16: -2, 17: -1, 33: -3}
LOWEST |= {34: -2, 35: -1, 52: -2, 53: -1}
"""Charges of anions with full shells (8 - N)."""
COVALENT = frozenset({1, 5, 6, 14, 15})
"""H, B, C, Si and P. Of known compounds of metals with these alone more than half as
many have no balanced charges as where a metal is exchanged (docs/design.md)."""
BOND = 1.25
"""Longest bond of an element with itself, in twice its covalent radius (O 1.65 Å)."""
TOLERANCE = 0.3
"""By which a metal may be the more electronegative one and yet the cation, as in PtTe2
and MoTe2."""


@dataclass(frozen=True)
class Ions:
    """The charges that the atoms of one element may have."""

    electronegativity: float | None
    """Pauling's."""
    count: int
    """Atoms in the formula."""
    states: list[int]
    """Known oxidation states."""
    mixed: bool = False
    """Whether atoms may differ in state."""
    tolerance: float = 0.0
    """By which it may be more electronegative than an anion and yet a cation."""
    bonded: int = 0
    """Atoms bonded to their own kind: of any charge from the lowest state to 0."""

    def totals(self, boundary: float) -> set[int]:
        """Sums of charges of one sign.

        Args:
            boundary: the least electronegativity of an anion; cations have less, metals
                at most the tolerance more.
        """
        known = self.electronegativity
        cation = known is None or known < boundary + self.tolerance
        anion = known is None or known >= boundary
        sums: set[int] = set()
        for sign, possible in ((1, cation), (-1, anion)):
            own = [s for s in self.states if s * sign >= 0 and (possible or s == 0)]
            if not self.mixed:
                sums |= {self.count * s for s in own}
            else:
                sums |= _sums(tuple(own), self.count)
        lowest = min(self.states, default=0)
        if self.bonded and anion and lowest < 0:
            highest = lowest * (self.count - self.bonded)
            sums |= set(range(lowest * self.count, highest + 1))
        return sums


@lru_cache(maxsize=10_000)
def _sums(states: tuple[int, ...], count: int) -> frozenset[int]:
    """Sums of so many charges, each one of the states."""
    sums = {0} if states else set()
    for _ in range(count):
        sums = {total + state for total in sums for state in states}
    return frozenset(sums)


def reachable_zero(ions: list[Ions]) -> bool:
    """Whether charges can cancel with anions the more electronegative ones."""
    known = {each.electronegativity for each in ions} - {None}
    for boundary in [*sorted(known), float("inf")]:
        totals = {0}
        for each in ions:
            own = each.totals(boundary)
            totals = {total + charge for total in totals for charge in own}
            if not totals:
                break
        if 0 in totals:
            return True
    return False


def smact_valid(composition: dict[int, int]) -> bool:
    """The composition validity of the CDVAE benchmark.

    Single elements and alloys pass; otherwise one oxidation state an element out of
    SMACT's 2014 list, charges that cancel, and the Pauling test, which nothing passes
    that has an element of unknown electronegativity.

    Args:
        composition: atomic number → count, reduced.

    References:
        D. W. Davies et al., J. Open Source Softw. 4, 1361 (2019); T. Xie et al., CDVAE,
        ICLR 2022, appendix B.
    """
    table = element_table()
    if len(composition) == 1 or all(table[z]["metal"] for z in composition):
        return True
    if any(table[z]["electronegativity"] is None for z in composition):
        return False
    return reachable_zero(
        [
            Ions(table[z]["electronegativity"], count, table[z]["smact14"])
            for z, count in composition.items()
        ]
    )


def check_smact(candidate: Candidate) -> CheckResult:
    """SMACT's rule, for comparison with published numbers."""
    passed = smact_valid(candidate.reduced_composition)
    return CheckResult("smact", passed, None, "" if passed else "charges cannot cancel")


def check_charge(candidate: Candidate) -> CheckResult:
    """Oxidation states known from the ICSD can cancel.

    Atoms of a metal may differ in state (mixed valence). A nonmetal that is the anion
    has a full shell, but where it is bonded to its own kind it may have any charge up
    to 0: as in peroxides, azides, triiodides, pyrites and Zintl phases.

    To elements and alloys the check does not apply, and says so; nor to what does not
    cancel in compounds of metals with H, B, C, Si and P alone, whose bonds are often
    metallic or covalent.

    References:
        W. Klemm, Metalloids and their Compounds with the Alkali Metals, Proc. Chem.
        Soc. London 1958, 329 (polyanions).
    """
    composition = candidate.reduced_composition
    table = element_table()
    if len(composition) == 1:
        return _inapplicable("an element has no charges to balance")
    if all(table[z]["metal"] for z in composition):
        return _inapplicable("an alloy has no charges to balance")
    unknown = [table[z]["symbol"] for z in composition if not table[z]["icsd24"]]
    if unknown:
        names = ", ".join(unknown)
        return _inapplicable(f"no oxidation states are known of {names}")
    if reachable_zero(_ions(composition, {})):
        return CheckResult("charge", True)
    bonded = _bonded(candidate)
    if bonded and reachable_zero(_ions(composition, bonded)):
        return CheckResult("charge", True)
    if all(table[z]["metal"] or z in COVALENT for z in composition):
        return _inapplicable("bonds of metals with H, B, C, Si and P need not be ionic")
    message = "no known oxidation states cancel"
    for z, count in composition.items():
        if z in LOWEST and reachable_zero(_ions(composition, {z: count})):
            symbol = table[z]["symbol"]
            message += f" unless {symbol} atoms are bonded to each other"
            break
    return CheckResult("charge", False, None, message)


def _inapplicable(why: str) -> CheckResult:
    return CheckResult("charge", None, None, why)


def _ions(composition: dict[int, int], bonded: dict[int, int]) -> list[Ions]:
    table = element_table()
    ions = []
    for z, count in composition.items():
        row = table[z]
        states = row["icsd24"]
        if z in LOWEST:
            states = [LOWEST[z], *(state for state in states if state >= 0)]
        metal = row["metal"]
        ions.append(
            Ions(
                row["electronegativity"],
                count,
                states,
                mixed=metal,
                tolerance=TOLERANCE if metal else 0.0,
                bonded=bonded.get(z, 0),
            )
        )
    return ions


def _bonded(candidate: Candidate) -> dict[int, int]:
    """Atoms of each nonmetal in the formula that are bonded to their own kind."""
    species = candidate.atomic_numbers
    length = np.zeros(len(element_array("radius")))
    length[list(LOWEST)] = 2 * BOND * element_array("radius")[list(LOWEST)]
    reach = float(length[species].max(initial=0.0))
    first, second, distance = pairs_within(candidate, reach)
    near = (species[first] == species[second]) & (distance <= length[species[first]])
    bonded = np.unique(first[near])
    counts = {}
    for z, count in candidate.reduced_composition.items():
        hits, total = int((species[bonded] == z).sum()), int((species == z).sum())
        if hits:
            counts[z] = -(-hits * count // total)
    return counts
