"""Do predictions match their references? StructureMatcher, in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crystalvae.parallel import process_map

if TYPE_CHECKING:
    from pymatgen.core import Structure

TOLERANCES = {"stol": 0.5, "angle_tol": 10.0, "ltol": 0.3}
"""Of the CDVAE benchmark (T. Xie et al., ICLR 2022, section 5.1)."""
MATCHER = f"StructureMatcher({', '.join(f'{n}={v:g}' for n, v in TOLERANCES.items())})"
"""As summaries name it."""
CHUNK = 32
"""Pairs a task."""


@dataclass(frozen=True)
class MatchSummary:
    """Matches of a set of predictions."""

    count: int
    """Pairs, missing predictions included."""
    matches: int
    """Pairs that match."""
    rmse: float
    """Mean over matches of the root mean square displacement, in units of the cube root
    of the volume an atom; NaN without a match."""

    @property
    def rate(self) -> float:
        """Matches over all pairs."""
        return self.matches / self.count if self.count else float("nan")


def _compare(task: tuple) -> list[float | None]:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    pairs, tolerances = task
    matcher = StructureMatcher(**tolerances)
    results: list[float | None] = []
    for prediction, reference in pairs:
        if prediction is None:
            results.append(None)
            continue
        try:
            found = matcher.get_rms_dist(prediction, reference)
        except Exception:
            found = None
        results.append(None if found is None else float(found[0]))
    return results


def match_distances(
    predictions: Sequence[Structure | None],
    references: Sequence[Structure],
    *,
    num_workers: int | None = None,
    **tolerances: float,
) -> list[float | None]:
    """RMS distance of each prediction to its reference, None where they do not match.

    Args:
        predictions: structures, None where there is none.
        references: as many structures.
        num_workers: processes; None is one a core, 1 is this process.
        **tolerances: of pymatgen's ``StructureMatcher``; those of the benchmark where
            not given.
    """
    tolerances = {**TOLERANCES, **tolerances}
    pairs = list(zip(predictions, references, strict=True))
    tasks = [(pairs[i : i + CHUNK], tolerances) for i in range(0, len(pairs), CHUNK)]
    with process_map(num_workers, len(pairs) >= 2 * CHUNK) as each:
        return [value for part in each(_compare, tasks) for value in part]


def match_rate(
    predictions: Sequence[Structure | None],
    references: Sequence[Structure],
    *,
    num_workers: int | None = None,
    **tolerances: float,
) -> MatchSummary:
    """Share of predictions that match, and the mean RMS distance of those.

    See :func:`match_distances`.
    """
    distances = match_distances(
        predictions, references, num_workers=num_workers, **tolerances
    )
    found = [d for d in distances if d is not None]
    rmse = float(np.mean(found)) if found else float("nan")
    return MatchSummary(len(distances), len(found), rmse)
