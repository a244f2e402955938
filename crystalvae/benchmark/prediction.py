"""Crystal structure prediction: how often does a draw hit the known structure?

Match rate and RMSE as in R. Jiao et al., DiffCSP, NeurIPS 2023, without its filter of
invalid predictions: every draw counts. METRe and cRMSE as in M. M. Martirossyan et al.,
"All that structure matches does not glitter", arXiv 2509.12178: each reference may be
hit by any structure that was generated for its composition, polymorphs included, and a
reference that none hits enters the mean distance with the matcher's ``stol``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalvae.benchmark.generation import interval
from crystalvae.benchmark.matching import TOLERANCES, match_distances
from crystalvae.crystal import AsymmetricUnit
from crystalvae.errors import DataError, InvalidStructureError

if TYPE_CHECKING:
    from pymatgen.core import Structure


def draw_distances(
    draws: Sequence[Sequence[Structure | None]],
    references: Sequence[Structure],
    *,
    num_workers: int | None = None,
) -> np.ndarray:
    """RMS distance of each draw to the structure for which it was made.

    Args:
        draws: n structures for each of R references, None where there is none.
        references: the R known structures.
        num_workers: processes; None is one a core.

    Returns:
        ``(R, n)`` in units of the cube root of the volume an atom, NaN without a match.
    """
    flat = [draw for own in draws for draw in own]
    known = [
        reference for own, reference in zip(draws, references, strict=True) for _ in own
    ]
    return _array(match_distances(flat, known, num_workers=num_workers), len(draws))


def polymorph_distances(
    draws: Sequence[Sequence[Structure | None]],
    references: Sequence[Structure],
    groups: Sequence[Hashable],
    own: np.ndarray,
    *,
    num_workers: int | None = None,
) -> np.ndarray:
    """Distance of each reference to the nearest of all draws for its composition.

    Args:
        draws: as in :func:`draw_distances`.
        references: likewise.
        groups: composition of each reference, whatever can be a key.
        own: what :func:`draw_distances` gave.
        num_workers: processes; None is one a core.

    Returns:
        ``(R, n)``: in column j the smallest distance to the j-th draw of any reference
        of the same group, NaN without a match.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    pairs = [
        (row, other)
        for row, group in enumerate(groups)
        for other in members[group]
        if other != row
    ]
    nearest = own.copy()
    if not pairs:
        return nearest
    flat = [draw for _, other in pairs for draw in draws[other]]
    known = [references[row] for row, other in pairs for _ in draws[other]]
    found = _array(match_distances(flat, known, num_workers=num_workers), len(pairs))
    for (row, _), distances in zip(pairs, found):
        nearest[row] = np.fmin(nearest[row], distances)
    return nearest


def prediction_metrics(
    own: np.ndarray, nearest: np.ndarray | None = None, count: int | None = None
) -> dict[str, float | list[float] | None]:
    """Metrics over the first draws of every reference.

    Args:
        own: distances ``(R, n)`` of the draws to their references, NaN without a match.
        nearest: those of :func:`polymorph_distances`; None leaves out METRe and cRMSE.
        count: draws that enter; None is all n.

    Returns:
        ``match_rate`` with its 95 % interval (share of references that any of
        their draws matches), ``rmse`` (mean over those of the smallest distance, None
        without any), ``metre`` and ``crmse``.
    """
    best = _smallest(own[:, :count])
    hit = np.isfinite(best)
    metrics: dict[str, float | list[float] | None] = {
        "match_rate": float(hit.mean()),
        "match_rate_interval": list(interval(hit.astype(float))),
        "rmse": float(best[hit].mean()) if hit.any() else None,
    }
    if nearest is not None:
        best = _smallest(nearest[:, :count])
        metrics["metre"] = float(np.isfinite(best).mean())
        capped = np.minimum(best, TOLERANCES["stol"])
        metrics["crmse"] = float(capped.mean())
    return metrics


@dataclass
class Comparison:
    """Predictions compared with the known structures."""

    metrics: dict[str, dict[str, Any]]
    """:func:`prediction_metrics` of ``first`` (the first draw of each),
    ``ranked_first`` (that of the largest score) and ``best_of_n``."""
    rows: list[dict[str, Any]]
    """Of each reference: matches among its draws, and which is first, ranked first and
    nearest."""


def compare(
    draws: Sequence[Sequence[AsymmetricUnit | Structure | None]],
    references: Sequence[AsymmetricUnit | Structure],
    *,
    scores: Sequence[float] | None = None,
    unusable: int = 0,
    polymorphs: bool = True,
    num_workers: int | None = None,
) -> Comparison:
    """Compare n draws for each of R compositions with the structures known of them.

    Args:
        draws: n crystals for each, None for what was not completed.
        references: the R known crystals.
        scores: one a draw, ``R * n`` in order; None leaves out ``ranked_first``.
        unusable: further structures that could not be predicted; they count as missed.
        polymorphs: compute METRe and cRMSE.
        num_workers: processes; None is one a core.

    Raises:
        DataError: there are no references.
    """
    if not references:
        raise DataError("there are no references to compare with")
    structures = [[None if c is None else _structure(c) for c in d] for d in draws]
    known = [_structure(reference) for reference in references]
    own = draw_distances(structures, known, num_workers=num_workers)
    nearest = None
    if polymorphs:
        groups = [_composition(reference) for reference in references]
        nearest = polymorph_distances(
            structures, known, groups, own, num_workers=num_workers
        )
    missed = np.full((unusable, own.shape[1]), np.nan)
    counted = np.concatenate([own, missed])
    reached = None if nearest is None else np.concatenate([nearest, missed])
    metrics = {"first": prediction_metrics(counted, reached, 1)}
    if scores is not None:
        ranked = np.reshape(scores, own.shape).argmax(1)
        picked = np.concatenate([own[np.arange(len(own)), ranked, None], missed[:, :1]])
        metrics["ranked_first"] = prediction_metrics(picked)
    metrics[f"best_of_{own.shape[1]}"] = prediction_metrics(counted, reached)
    rows = []
    for place, distances in enumerate(own):
        hit = np.isfinite(distances)
        row = {"matches": int(hit.sum()), "first_rmse": _shown(distances[0])}
        if scores is not None:
            row["ranked_first"] = int(ranked[place])
            row["ranked_first_rmse"] = _shown(distances[ranked[place]])
        if hit.any():
            row["nearest"] = int(np.nanargmin(distances))
            row["nearest_rmse"] = _shown(np.nanmin(distances))
        rows.append(row)
    return Comparison(metrics, rows)


def _composition(crystal: AsymmetricUnit | Structure) -> Hashable:
    """Counts by atomic number in the primitive cell, however the crystal is given."""
    if hasattr(crystal, "to_structure"):
        return tuple(sorted(crystal.composition.items()))
    try:
        return _composition(AsymmetricUnit.from_structure(crystal))
    except InvalidStructureError:
        return tuple(sorted(Counter(crystal.atomic_numbers).items()))


def _structure(crystal: AsymmetricUnit | Structure) -> Structure:
    to_structure = getattr(crystal, "to_structure", None)
    return crystal if to_structure is None else to_structure()


def _shown(distance: float) -> float | str:
    return round(float(distance), 5) if np.isfinite(distance) else ""


def _smallest(distances: np.ndarray) -> np.ndarray:
    """Smallest of each row, infinite where there is none, ``(R,)``."""
    return np.where(np.isnan(distances), np.inf, distances).min(1, initial=np.inf)


def _array(distances: Sequence[float | None], rows: int) -> np.ndarray:
    filled = [np.nan if d is None else d for d in distances]
    return np.array(filled, float).reshape(rows, -1)
