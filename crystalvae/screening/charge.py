"""Charge balance: SMACT's rule for comparison, and one that is better.

Both ask whether oxidation states can be chosen so that the charges cancel and every
cation is less electronegative than every anion. Instead of all combinations, whose
number grows exponentially with the elements, the reachable totals are kept as a set, so
that no composition can hang the check.
"""

from __future__ import annotations

from crystalvae.screening.base import Candidate, CheckResult, element_table
from crystalvae.screening.distance import has_bond

OXYGEN = 8
PEROXIDE_BOND = 1.8
"""Å; O–O is 1.2 to 1.6 Å in dioxygen, superoxides and peroxides, and 2.2 or more
between oxide ions."""


def reachable_zero(
    choices: list[tuple[float | None, int, list[int], bool]],
) -> bool:
    """Whether charges can cancel with anions the more electronegative ones.

    Args:
        choices: for each element its electronegativity, count, oxidation states, and
            whether its atoms may differ in state.
    """
    known = sorted({eneg for eneg, *_ in choices if eneg is not None})
    for boundary in [*known, float("inf")]:
        totals = {0}
        for eneg, count, states, mixed in choices:
            allowed = [
                s
                for s in states
                if s == 0
                or eneg is None
                or (s > 0 and eneg < boundary)
                or (s < 0 and eneg >= boundary)
            ]
            own: set[int] = set()
            if mixed:
                own = {0}
                for _ in range(count):
                    own = {total + s for total in own for s in allowed}
            else:
                own = {count * s for s in allowed}
            totals = {total + charge for total in totals for charge in own}
            if not totals:
                break
        if 0 in totals:
            return True
    return False


def _choices(composition: dict[int, int], states: str, mixed: bool) -> list:
    table = element_table()
    return [
        (
            table[z]["electronegativity"],
            count,
            table[z][states],
            mixed and table[z]["metal"] and count <= 12,
        )
        for z, count in composition.items()
    ]


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
    return reachable_zero(_choices(composition, "smact14", mixed=False))


def check_smact(candidate: Candidate) -> CheckResult:
    """SMACT's rule, for comparison with published numbers."""
    passed = smact_valid(candidate.reduced_composition)
    return CheckResult("smact", passed, None, "" if passed else "charges cannot cancel")


def check_charge(candidate: Candidate) -> CheckResult:
    """Oxidation states known from the ICSD can cancel, mixed valence of metals allowed.

    O⁻ is allowed where two O atoms are bonded, as in peroxides.

    Elements and alloys have no oxidation states to balance: the check does not apply to
    them and says so.
    """
    composition = candidate.reduced_composition
    table = element_table()
    if len(composition) == 1:
        return CheckResult("charge", None, None, "an element has no charges to balance")
    if all(table[z]["metal"] for z in composition):
        return CheckResult("charge", None, None, "an alloy has no charges to balance")
    unknown = [table[z]["symbol"] for z in composition if not table[z]["icsd24"]]
    if unknown:
        text = f"no oxidation states are known of {', '.join(unknown)}"
        return CheckResult("charge", None, None, text)
    choices = _choices(composition, "icsd24", mixed=True)
    if reachable_zero(_without_peroxide(choices, composition)):
        return CheckResult("charge", True)
    if not reachable_zero(choices):
        return CheckResult("charge", False, None, "no known oxidation states cancel")
    if has_bond(candidate, OXYGEN, PEROXIDE_BOND):
        return CheckResult("charge", True)
    text = "charges cancel only with peroxide ions, and no two O atoms are bonded"
    return CheckResult("charge", False, None, text)


def _without_peroxide(choices: list, composition: dict[int, int]) -> list:
    """The choices with oxygen as O²⁻ alone where it is an anion."""
    return [
        (eneg, count, [s for s in states if s != -1] if z == OXYGEN else states, mixed)
        for z, (eneg, count, states, mixed) in zip(composition, choices)
    ]
