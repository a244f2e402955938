"""Does the structure have the space group that it is said to have?"""

from __future__ import annotations

import numpy as np

from crystalvae.errors import InvalidStructureError
from crystalvae.screening.base import Candidate, CheckResult
from crystalvae.symmetry.search import moyo_dataset
from crystalvae.symmetry.spglib_wrapper import space_group_number
from crystalvae.symmetry.standardize import right_handed

SYMPREC = (0.01, 0.1)
"""Å; the declared group must be found at one of these."""


def check_group(candidate: Candidate) -> CheckResult:
    """The declared group is found: by moyo, or else by spglib.

    moyo, by spglib's authors, needs a tenth of the time; nothing fails but by spglib.
    """
    declared = candidate.declared_group
    if declared is None:
        return CheckResult("group", None, None, "no space group was declared")
    if not len(candidate.atomic_numbers) or candidate.volume < 1e-3:
        return CheckResult("group", None, None, "no atoms or no volume")
    if _moyo_number(candidate, SYMPREC[0]) == declared:
        return CheckResult("group", True, float(declared))
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


def _moyo_number(candidate: Candidate, symprec: float) -> int | None:
    lattice, coords = right_handed(candidate.lattice, candidate.frac_coords)
    numbers = np.asarray(candidate.atomic_numbers)
    try:
        return int(moyo_dataset(lattice, coords, numbers, symprec).number)
    except InvalidStructureError:
        return None
