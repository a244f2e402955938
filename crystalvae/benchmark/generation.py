"""Metrics of generated crystals; every draw is counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binomtest, wasserstein_distance

from crystalvae.errors import DataError
from crystalvae.parallel import process_map
from crystalvae.screening.base import Candidate
from crystalvae.screening.checks import STRUCTURAL, run_checks
from crystalvae.screening.density import density_of
from crystalvae.screening.uniqueness import ReferenceIndex, duplicate_of, is_known
from crystalvae.symmetry.tables import symmetry_tables

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.data.packed import PackedDataset

CHECKED = ("structural_validity", "smact_validity", "group_found")
PARALLEL_FROM = 2000
"""Crystals from which starting processes pays."""
CHUNK = 256
"""Crystals a task."""


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of a share of independent draws.

    Args:
        values: 0 or 1 for each draw ``(N,)``.

    References:
        E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927).
    """
    test = binomtest(int(values.sum()), len(values))
    found = test.proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def template(crystal: AsymmetricUnit) -> tuple:
    """Wyckoff template: the group and the letters of each of its anonymous elements.

    The same for all descriptions of a crystal that the group's normaliser allows.
    """
    names: dict[int, int] = {}
    kinds = [names.setdefault(z, len(names)) for z in crystal.atomic_numbers.tolist()]
    return _template(crystal.number, tuple(crystal.wyckoffs.tolist()), tuple(kinds))


@lru_cache(maxsize=100_000)
def _template(number: int, letters: tuple[int, ...], kinds: tuple[int, ...]) -> tuple:
    descriptions = []
    for row in symmetry_tables().equivalent_letters(number, letters).tolist():
        groups: dict[int, list[int]] = defaultdict(list)
        for letter, kind in zip(row, kinds):
            groups[kind].append(letter)
        descriptions.append(tuple(sorted(tuple(sorted(g)) for g in groups.values())))
    return number, min(descriptions)


def benchmark_valid(crystal: AsymmetricUnit) -> bool:
    """Structural and SMACT validity, which CDVAE's code asks of a reconstruction."""
    results = run_checks(Candidate.of(crystal), (*STRUCTURAL, "smact"))
    return all(result.passed for result in results.values())


def _checked(crystals: Sequence[AsymmetricUnit]) -> list[tuple[bool, bool, bool]]:
    rows = []
    for crystal in crystals:
        results = run_checks(Candidate.of(crystal), (*STRUCTURAL, "smact", "group"))
        passed = {name: bool(result.passed) for name, result in results.items()}
        structural = all(passed[name] for name in STRUCTURAL)
        rows.append((structural, passed["smact"], passed["group"]))
    return rows


def check_all(
    crystals: Sequence[AsymmetricUnit], *, num_workers: int | None = None
) -> np.ndarray:
    """Structural validity, SMACT validity and whether spglib finds the group.

    Args:
        crystals: N crystals.
        num_workers: processes; None is one a core.

    Returns:
        Zeros and ones ``(N, 3)``.
    """
    chunks = [crystals[i : i + CHUNK] for i in range(0, len(crystals), CHUNK)]
    with process_map(num_workers, len(crystals) >= PARALLEL_FROM) as each:
        rows = [row for part in each(_checked, chunks) for row in part]
    return np.array(rows, float).reshape(-1, len(CHECKED))


def jensen_shannon(first: Sequence, second: Sequence) -> float:
    """Jensen-Shannon divergence of two samples of labels in bits, 0 to 1.

    1 where one of them is empty.
    """
    if not len(first) or not len(second):
        return 1.0
    names = sorted(set(first) | set(second))
    one, two = Counter(first), Counter(second)
    p = np.array([one[n] for n in names]) / len(first)
    q = np.array([two[n] for n in names]) / len(second)
    middle = (p + q) / 2

    def divergence(x: np.ndarray) -> float:
        kept = x > 0
        return float((x[kept] * np.log2(x[kept] / middle[kept])).sum())

    return (divergence(p) + divergence(q)) / 2


def group_chi_square(found: Sequence[int], target: Sequence[int]) -> float:
    """Σ (p - q)² / q over the groups of the target, shares p found and q targeted.

    The space-group χ² of N. Kazeev et al., Wyckoff Transformer, ICML 2025: groups that
    the target does not have do not enter, and shares are of those that it has.
    """
    one, two = Counter(found), Counter(target)
    within = max(sum(one[n] for n in two), 1)
    shares = {n: (one[n] / within, two[n] / len(target)) for n in two}
    return sum((p - q) ** 2 / q for p, q in shares.values())


def generation_metrics(
    crystals: Sequence[AsymmetricUnit | None],
    reference: PackedDataset | Sequence[AsymmetricUnit] | None = None,
    known: PackedDataset | Sequence[AsymmetricUnit] | None = None,
    *,
    num_workers: int | None = None,
) -> dict[str, float | list[float] | None]:
    """Metrics of raw draws.

    Args:
        crystals: all draws, None for incomplete ones, which count as failures.
        reference: crystals whose distributions are the target (a held-out set).
        known: crystals against which novelty is judged (the training set).
        num_workers: processes for the matching.

    Returns:
        Rates over all draws with 95 % intervals under ``*_interval`` (as of independent
        draws, which those of uniqueness are only nearly):
        ``structural_validity`` (0.5 Å with own images, 0.1 Å³), ``smact_validity``,
        ``valid`` (both), ``unique``, ``p1_share``, ``group_found``; with ``known`` also
        ``novel``, ``valid_and_novel`` (valid, unique and novel) and ``new_templates``;
        with ``reference`` Wasserstein distances of density (g/cm³) and number of
        elements over structurally valid draws (None where there are none), and, over
        complete ones, χ² of the space
        groups and Jensen-Shannon divergences of groups and elements.

    Raises:
        DataError: there are no draws.
    """
    total = len(crystals)
    if not total:
        raise DataError("there are no crystals to judge")
    kept = [(i, c) for i, c in enumerate(crystals) if c is not None]
    complete = [c for _, c in kept]
    names = (*CHECKED, "unique", "p1_share")
    flags = {name: np.zeros(total) for name in names}
    rows = [i for i, _ in kept]
    for name, column in zip(CHECKED, check_all(complete, num_workers=num_workers).T):
        flags[name][rows] = column
    flags["p1_share"][rows] = [crystal.number == 1 for crystal in complete]
    for place, first in enumerate(duplicate_of(complete, num_workers=num_workers)):
        flags["unique"][kept[place][0]] = first == place
    flags["valid"] = flags["structural_validity"] * flags["smact_validity"]
    if known is not None:
        index = ReferenceIndex(known)
        flags["novel"] = np.zeros(total)
        for place, old in enumerate(is_known(complete, index, num_workers=num_workers)):
            flags["novel"][kept[place][0]] = not old
        flags["valid_and_novel"] = flags["valid"] * flags["novel"] * flags["unique"]
        templates = {template(known[i]) for i in range(len(known))}
        flags["new_templates"] = np.zeros(total)
        for i, crystal in kept:
            flags["new_templates"][i] = template(crystal) not in templates
    metrics: dict[str, float | list[float] | None] = {
        "draws": total,
        "complete": len(complete) / total,
    }
    for name, values in flags.items():
        metrics[name] = float(values.mean())
        metrics[f"{name}_interval"] = list(interval(values))
    if reference is not None:
        target = [reference[row] for row in range(len(reference))]
        valid = [c for i, c in kept if flags["structural_validity"][i]]
        for name, value in (
            ("density", density_of),
            ("num_elements", lambda c: len(c.composition)),
        ):
            metrics[f"{name}_wasserstein"] = (
                float(
                    wasserstein_distance(
                        list(map(value, valid)), list(map(value, target))
                    )
                )
                if valid
                else None
            )
        groups = [c.number for c in complete], [c.number for c in target]
        metrics["group_chi_square"] = group_chi_square(*groups)
        metrics["group_jensen_shannon"] = jensen_shannon(*groups)
        metrics["element_jensen_shannon"] = jensen_shannon(
            [z for c in complete for z in c.composition],
            [z for c in target for z in c.composition],
        )
        metrics["reference_p1_share"] = float(np.mean([c.number == 1 for c in target]))
    return metrics
