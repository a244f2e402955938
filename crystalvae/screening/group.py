"""Does the structure have the space group that it is said to have?"""

from __future__ import annotations

from crystalvae.errors import InvalidStructureError
from crystalvae.screening.base import Candidate, CheckResult
from crystalvae.symmetry.spglib_wrapper import space_group_number

SYMPREC = (0.01, 0.1)
"""Å; the declared group must be found at one of these."""


def check_group(candidate: Candidate) -> CheckResult:
    """Spglib finds the declared group."""
    declared = candidate.declared_group
    if declared is None:
        return CheckResult("group", None, None, "no space group was declared")
    if not len(candidate.atomic_numbers) or candidate.volume < 1e-3:
        return CheckResult("group", None, None, "no atoms or no volume")
    found: list[int] = []
    for symprec in SYMPREC:
        try:
            number = space_group_number(
                candidate.lattice,
                candidate.frac_coords,
                candidate.atomic_numbers,
                symprec,
            )
        except InvalidStructureError as error:
            return CheckResult("group", None, None, str(error))
        if number == declared:
            return CheckResult("group", True, float(number))
        found.append(number)
    message = f"declared {declared}, found {found[0]}"
    return CheckResult("group", False, float(found[0]), message)
