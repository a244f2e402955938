"""The table of checks, cheap ones first, and running them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from crystalvae.errors import ConfigError
from crystalvae.screening.base import Candidate, CheckResult
from crystalvae.screening.bonds import check_bonds
from crystalvae.screening.charge import check_charge, check_smact
from crystalvae.screening.density import check_density, check_volume
from crystalvae.screening.distance import check_distance, check_radii
from crystalvae.screening.group import check_group

CHECKS: dict[str, Callable[[Candidate], CheckResult]] = {
    "volume": check_volume,
    "density": check_density,
    "distance": check_distance,
    "radii": check_radii,
    "bonds": check_bonds,
    "smact": check_smact,
    "charge": check_charge,
    "group": check_group,
}

STRUCTURAL = ("volume", "distance")
"""Checks whose passing is the structural validity of the benchmarks."""
DEFAULT = ("volume", "density", "distance", "radii", "bonds", "charge", "group")
"""Checks that a structure must not fail to be written by ``sample``."""


def parse_checks(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of checks.

    Args:
        given: names, or a text with commas between them; None and an empty text are
            :data:`DEFAULT`.

    Raises:
        ConfigError: there is no such check.
    """
    if given is None or given == "":
        return DEFAULT
    if isinstance(given, str):
        given = [name.strip() for name in given.split(",")]
    for name in given:
        if name not in CHECKS:
            raise ConfigError(f"unknown check {name!r}; known are {', '.join(CHECKS)}")
    return tuple(given)


@dataclass
class Record:
    """One structure and all that was found about it."""

    name: str
    """Identifier."""
    formula: str
    """Reduced formula, or empty if unreadable."""
    results: dict[str, CheckResult] = field(default_factory=dict)
    """By name of the check."""
    error: str | None = None
    """Why nothing could be checked."""

    @property
    def passed(self) -> bool:
        """Readable, and no check failed."""
        failed = any(result.passed is False for result in self.results.values())
        return self.error is None and not failed

    def failures(self) -> list[str]:
        """Names of the failed checks."""
        return [name for name, r in self.results.items() if r.passed is False]

    def row(self) -> dict[str, str | bool | float]:
        """The record as a row of a table."""
        row: dict[str, str | bool | float] = {
            "name": self.name,
            "formula": self.formula,
            "passed": self.passed,
            "error": self.error or "",
        }
        for name, result in self.results.items():
            row[name] = "" if result.passed is None else result.passed
            row[f"{name}_value"] = (
                "" if result.value is None else round(result.value, 4)
            )
        notes = [r.message for r in self.results.values() if not r.passed and r.message]
        row["notes"] = "; ".join(notes)
        return row


def first_failure(results: Mapping[str, CheckResult]) -> str | None:
    """Name of the first check that failed, None if none did."""
    return next((name for name, r in results.items() if r.passed is False), None)


def run_checks(
    candidate: Candidate,
    names: Iterable[str] = DEFAULT,
    *,
    stop_at_failure: bool = False,
) -> dict[str, CheckResult]:
    """Run checks in the order of the table.

    A check that breaks is a result with ``passed=None``, never an exception.

    Args:
        candidate: the structure.
        names: which checks.
        stop_at_failure: leave out what follows the first failure.

    Raises:
        KeyError: an unknown name.
    """
    wanted = set(names)
    unknown = wanted - set(CHECKS)
    if unknown:
        raise KeyError(
            f"unknown check {sorted(unknown)[0]!r}; known are {', '.join(CHECKS)}"
        )
    results: dict[str, CheckResult] = {}
    for name, check in CHECKS.items():
        if name not in wanted:
            continue
        try:
            results[name] = check(candidate)
        except Exception as error:
            text = f"not computed: {type(error).__name__}: {error}"
            results[name] = CheckResult(name, None, None, text)
        if stop_at_failure and results[name].passed is False:
            break
    return results
