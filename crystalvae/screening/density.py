"""Volume and density of the cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crystalvae.screening.base import Candidate, CheckResult, element_array

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit

MIN_VOLUME = 0.1
"""Å³ of the cell; T. Xie et al., CDVAE, ICLR 2022, appendix B."""
ATOM_VOLUME = (2.0, 150.0)
"""Å³ an atom: from diamond's 5.7 and hydrogen-rich solids below to the largest of
open frameworks."""
MASS_DENSITY = (0.01, 25.0)
"""g/cm³, as in LeMat-GenBench."""
GRAMS_PER_AMU = 1.66053906660
"""(g/cm³) of one atomic mass unit in a cubic ångström."""


def mass_density(candidate: Candidate) -> float:
    """g/cm³."""
    mass = element_array("mass")[candidate.atomic_numbers].sum()
    return float(GRAMS_PER_AMU * mass / max(candidate.volume, 1e-9))


def density_of(crystal: AsymmetricUnit) -> float:
    """Mass density of a crystal in g/cm³."""
    return mass_density(Candidate.of(crystal))


def widest_gap(crystal: AsymmetricUnit) -> float:
    """Widest layer without an atom's centre in Å, across an axis of the cell."""
    lattice, coords, *_ = crystal.expand()
    heights = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    levels = np.sort(coords, axis=0)
    gaps = np.diff(levels, axis=0, append=levels[:1] + 1)
    return float((gaps.max(0) * heights).max())


def check_volume(candidate: Candidate) -> CheckResult:
    """Volume an atom within the range of known solids."""
    if candidate.volume < MIN_VOLUME or not len(candidate.atomic_numbers):
        return CheckResult("volume", False, candidate.volume, "the cell has no volume")
    value = candidate.volume / len(candidate.atomic_numbers)
    low, high = ATOM_VOLUME
    message = f"{value:.1f} Å3 an atom (allowed {low} to {high})"
    return CheckResult("volume", low <= value <= high, value, message)


def check_density(candidate: Candidate) -> CheckResult:
    """Mass density within the range of known solids."""
    if candidate.volume < MIN_VOLUME:
        return CheckResult("density", None, None, "the cell has no volume")
    value = mass_density(candidate)
    low, high = MASS_DENSITY
    message = f"{value:.2f} g/cm3 (allowed {low} to {high})"
    return CheckResult("density", low <= value <= high, value, message)
