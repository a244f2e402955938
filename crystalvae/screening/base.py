"""What a check sees, and what it says."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit


@cache
def element_table() -> dict[int, dict[str, Any]]:
    """Mass, radius, metallicity, electronegativity, oxidation states by Z."""
    file = resources.files("crystalvae.screening") / "elements.json"
    rows = json.loads(file.read_text(encoding="utf-8"))
    return {row["z"]: {"symbol": symbol, **row} for symbol, row in rows.items()}


@cache
def element_array(name: str) -> np.ndarray:
    """A numeric column of :func:`element_table` by atomic number, ``(119,)``."""
    values = np.zeros(119)
    for z, row in element_table().items():
        values[z] = row[name]
    return values


RESIDUAL = "residual"
"""Column of :func:`crystalvae.refinement.score.residuals`."""
ENERGY = "e_above_hull_estimate"
"""Column of the energy above the hull that is expected after relaxation, eV/atom."""
PROBABILITY = "stable_probability"
"""Column of the probability that it is at most 0.1 eV/atom."""
HULL = "e_above_hull"
"""The property of which stability networks give an estimate, eV/atom."""
ESTIMATE = "_estimate"
"""End of the names of columns with what networks expect of properties."""
THRESHOLD = 0.1
"""eV/atom above the hull up to which a crystal counts as (meta)stable."""


def estimated(name: str) -> str:
    """Column of what a network expects of a property."""
    return f"{name}{ESTIMATE}"


@dataclass(frozen=True, eq=False)
class Candidate:
    """A structure under inspection, as plain arrays."""

    lattice: np.ndarray
    """Rows in Å, ``(3, 3)``."""
    frac_coords: np.ndarray
    """``(N, 3)``."""
    atomic_numbers: np.ndarray
    """``(N,)``."""
    declared_group: int | None = None
    """Space group that it is said to have."""
    cache: dict[str, Any] = field(default_factory=dict, repr=False)
    """What one check found and another can use."""

    @classmethod
    def of(cls, crystal: AsymmetricUnit) -> Candidate:
        """The primitive cell of a crystal, said to have the crystal's group."""
        lattice, coords, species, _ = crystal.expand_primitive()
        return cls(lattice, coords, species, crystal.number)

    @cached_property
    def volume(self) -> float:
        """Å³."""
        return float(abs(np.linalg.det(self.lattice)))

    @cached_property
    def reduced_composition(self) -> dict[int, int]:
        """Atomic number → count, divided by the greatest common divisor."""
        numbers, counts = np.unique(self.atomic_numbers, return_counts=True)
        divisor = np.gcd.reduce(counts) if len(counts) else 1
        return dict(zip(numbers.tolist(), (counts // divisor).tolist()))


@dataclass(frozen=True)
class CheckResult:
    """The verdict of one check on one structure."""

    name: str
    """Name in :data:`crystalvae.screening.checks.CHECKS`."""
    passed: bool | None
    """None if it was not computed or does not apply; the message says why."""
    value: float | None = None
    """The number that was compared with the threshold."""
    message: str = ""
    """One sentence."""


def uncertainty_of(name: str) -> str:
    """Column of how far that may be off: half the range that holds 68 %."""
    return f"{name}_uncertainty"


def window_check(name: str) -> str:
    """Name of the check whether the estimate of a property lies where it should."""
    return f"{name}_within"


def add_verdict(
    results: dict[str, CheckResult],
    name: str,
    value: float | None,
    window: tuple[float, float],
) -> None:
    """Add whether an estimate lies where it should; where there is none it does not.

    Args:
        results: by name of the check.
        name: of the property.
        value: None if there is no estimate.
        window: smallest and largest value.
    """
    passed = value is not None and bool(window[0] <= value <= window[1])
    message = "no estimate" if value is None else ""
    check = window_check(name)
    results[check] = CheckResult(check, passed, value, message)
