"""Which of several crystals of one composition is the likeliest?"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import torch

from crystalvae.batch import CrystalStore
from crystalvae.conditions import told_values
from crystalvae.design.estimates import estimate_columns
from crystalvae.design.output import describe, formula_name
from crystalvae.design.settings import prediction_conditions
from crystalvae.errors import InvalidStructureError
from crystalvae.geometry.lattice import FREE_COORDS
from crystalvae.graph import orbit_graph
from crystalvae.parallel import process_map
from crystalvae.screening.base import ENERGY, PROBABILITY, Candidate
from crystalvae.screening.checks import first_failure, run_checks
from crystalvae.screening.uniqueness import duplicate_of
from crystalvae.stability.network import HIGHEST
from crystalvae.symmetry.tables import symmetry_tables

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE

RESOLUTION = 0.05
"""Width, in fractional and log-Cholesky coordinates, over which a density counts as the
probability of one crystal; it makes different numbers of free coordinates comparable.
"""
NAT = 0.004
"""eV/atom above the hull, as estimated, that weigh as much as one nat of log-likelihood
in a score; chosen on predictions of MP-20's validation crystals."""
OFTEN = 8.0
"""Nats of a score for e times as many draws that match; for 500 validation crystals of
MP-20 the first of 20 draws was right in 72.8 instead of 71.0 % (with 3 to 12 alike).
"""
ALIKE = 5.0
"""Within so many nats the simplest of matching crystals stands for them."""
LIKELY = 0.8
"""Probability from which on a crystal is called likely to be stable."""
FEW = 256
"""Crystals that one process compares sooner than two start."""
CHECKS = ("volume", "density", "distance", "radii", "bonds")
"""What a prediction for a formula must pass; its chemistry is the user's choice."""


@torch.no_grad()
def log_likelihoods(
    model: CrystalVAE,
    crystals: Sequence[AsymmetricUnit | None],
    *,
    beta: float | None = None,
    batch_size: int = 512,
) -> list[float]:
    """How probable the model finds crystals, to rank those of one composition.

    The evidence lower bound at the posterior's mean, in which every free coordinate's
    density is multiplied by :data:`RESOLUTION`.

    Args:
        model: the model.
        crystals: crystals; None and what has no orbit graph get -inf.
        beta: the knob; None is the largest of the trained range.
        batch_size: crystals at a time.

    Returns:
        Nats, one a crystal.
    """
    beta = model.config.latent.beta_max if beta is None else beta
    said, chance = prediction_conditions(model), torch.Generator().manual_seed(0)
    scores = [-math.inf] * len(crystals)
    rows, store = encodable(crystals)
    if store is None:
        return scores
    for index in torch.arange(len(rows)).split(batch_size):
        batch = store.batch(index).to(model.device)
        told = told_values(model.config.conditions, said, len(index), chance)
        cost = model(batch, model.beta_tensor(beta, len(index)), mean=True, told=told)
        total = -cost.kl - cost.distortion
        for place, value in zip(index.tolist(), total.tolist()):
            row = rows[place]
            if math.isfinite(value):
                free = num_free(crystals[row])
                scores[row] = value + free * math.log(RESOLUTION)
    return scores


def scores(
    model: CrystalVAE,
    crystals: Sequence[AsymmetricUnit | None],
    likelihoods: Sequence[float],
    *,
    num_workers: int | None = None,
) -> list[float]:
    """Log-likelihoods less what the stability network expects above the hull.

    In units of :data:`NAT`. Where there is no such network these are the
    log-likelihoods, and -inf for None.

    Args:
        model: the model.
        crystals: crystals of one composition, or multiples of it.
        likelihoods: their :func:`log_likelihoods`.
        num_workers: of :func:`~crystalvae.design.estimates.estimate_columns`.
    """
    if model.stability is None:
        return list(likelihoods)
    rows = [row for row, crystal in enumerate(crystals) if crystal is not None]
    known = [crystals[row] for row in rows]
    found = estimate_columns(model, known, properties=False, num_workers=num_workers)
    total = [-math.inf] * len(crystals)
    for row, columns in zip(rows, found):
        total[row] = likelihoods[row] - columns.get(ENERGY, HIGHEST) / NAT
    return total


def scores_of_draws(
    model: CrystalVAE,
    draws: Sequence[Sequence[AsymmetricUnit | None]],
    likelihoods: Sequence[float],
    *,
    num_workers: int | None = None,
) -> list[float]:
    """:func:`scores`, and :data:`OFTEN` for how many draws match each.

    Args:
        model: the model.
        draws: n crystals of each of R compositions, None for what is missing.
        likelihoods: their :func:`log_likelihoods`, ``R * n`` in order.
        num_workers: processes; None is one a core.

    Returns:
        ``R * n`` in order.
    """
    flat = list(chain(*draws))
    total = scores(model, flat, likelihoods, num_workers=num_workers)
    kept = [[crystal for crystal in own if crystal is not None] for own in draws]
    with process_map(num_workers, sum(map(len, kept)) >= 2 * FEW) as each:
        labels = chain(*map(_counts, each(_labels, kept)))
    return [
        score if crystal is None else score + OFTEN * math.log(next(labels))
        for crystal, score in zip(flat, total)
    ]


def _counts(labels: Sequence[int]) -> list[int]:
    """How many have the label of each."""
    count = Counter(labels)
    return [count[label] for label in labels]


def numbered_rows(
    model: CrystalVAE,
    crystals: Sequence[AsymmetricUnit],
    columns: Sequence[dict[str, Any]],
    digits: int,
    *,
    num_workers: int | None = None,
) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of the files of ranked crystals, and the rows of their table.

    Args:
        model: its networks judge the crystals.
        crystals: in order.
        columns: what else is said of each, after what describes it.
        digits: of the numbers that names begin with.
        num_workers: of :func:`~crystalvae.design.estimates.estimate_columns`.
    """
    names = [f"{i:0{digits}d}_{formula_name(c)}" for i, c in enumerate(crystals)]
    found = estimate_columns(model, crystals, num_workers=num_workers)
    rows = [
        {"file": f"{name}.cif", **describe(crystal), **own, **estimate}
        for name, crystal, own, estimate in zip(names, crystals, columns, found)
    ]
    return names, rows


def likely_stable_note(rows: Sequence[dict[str, Any]]) -> str:
    """How many rows of a table are likely to be stable, for what verbs print.

    Args:
        rows: of :func:`numbered_rows`; without estimates the text is empty.
    """
    known = [row[PROBABILITY] for row in rows if PROBABILITY in row]
    if not known:
        return ""
    likely = sum(value >= LIKELY for value in known)
    return f"; {likely} of {len(rows)} are likely to be stable (P {LIKELY:g} or more)"


def encodable(
    crystals: Sequence[AsymmetricUnit | None],
) -> tuple[list[int], CrystalStore | None]:
    """The crystals that have an orbit graph: their places and canonical forms, stored.

    Args:
        crystals: crystals, None for what is missing.
    """
    rows, graphs, known = [], [], []
    for row, crystal in enumerate(crystals):
        if crystal is None:
            continue
        found = crystal.canonical()
        try:
            graphs.append(orbit_graph(found))
        except InvalidStructureError:
            continue
        rows.append(row)
        known.append(found)
    return rows, CrystalStore.from_crystals(known, graphs) if rows else None


def num_free(crystal: AsymmetricUnit) -> int:
    """Free numbers of a crystal: of its cell and of its sites."""
    tables = symmetry_tables()
    cell = FREE_COORDS[int(tables.system[crystal.number])]
    sites = tables.free[crystal.number, crystal.wyckoffs]
    return int(sum(cell)) + int(sites.sum())


def most_drawn(
    model: CrystalVAE,
    draws: Sequence[Sequence[AsymmetricUnit | None]],
    *,
    beta: float | None = None,
    num_workers: int | None = None,
) -> list[list[AsymmetricUnit | None]]:
    """Of several draws for each composition the distinct ones, the most frequent first.

    How often a structure is drawn estimates its probability, coordinates and all, which
    the density at one of them does not. Each is represented by the likeliest of those
    that match it.

    Args:
        model: the model.
        draws: crystals of each composition, None for what was not completed.
        beta: the knob of :func:`log_likelihoods`.
        num_workers: processes of the matching; None is one a core.

    Returns:
        Crystals of each composition.
    """
    kept = [[crystal for crystal in own if crystal is not None] for own in draws]
    likelihoods = iter(log_likelihoods(model, list(chain(*kept)), beta=beta))
    with process_map(num_workers, sum(map(len, kept)) >= 2 * FEW) as each:
        labels = list(each(_labels, kept))
    found = []
    for own, firsts in zip(kept, labels):
        score = list(islice(likelihoods, len(own)))
        groups: dict[int, list[int]] = defaultdict(list)
        for place, first in enumerate(firsts):
            groups[first].append(place)
        best = [(-len(g), -max(score[i] for i in g), g) for g in groups.values()]
        best.sort()
        found.append([own[max(g, key=lambda i: score[i])] for *_, g in best])
    return found


def _labels(crystals: list[AsymmetricUnit]) -> list[int]:
    return duplicate_of(crystals, num_workers=1)


@dataclass
class Prediction:
    """A distinct crystal among the draws for a formula."""

    crystal: AsymmetricUnit
    """Of those that match, the one of fewest atoms and free numbers whose score is
    within :data:`ALIKE` of the best."""
    score: float
    """The best of their :func:`scores`, and :data:`OFTEN` for their number."""
    likelihood: float
    """Its :func:`log_likelihoods`."""
    draw: int
    """Its number among the draws."""
    count: int
    """Draws that match it."""


def distinct_ranked(
    model: CrystalVAE,
    crystals: Sequence[AsymmetricUnit | None],
    *,
    beta: float | None = None,
    num_workers: int | None = None,
) -> tuple[list[Prediction], dict[str, int]]:
    """Drop what fails the checks, merge what matches, and rank by their scores.

    Args:
        model: the model.
        crystals: draws, None for what was not completed.
        beta: the knob of :func:`log_likelihoods`.
        num_workers: processes of the matching; None is one a core.

    Returns:
        The distinct crystals, best first, and how many draws fell: ``incomplete``, the
        name of a check, or ``duplicate``.
    """
    fallen: Counter[str] = Counter()
    kept = []
    for draw, crystal in enumerate(crystals):
        if crystal is None:
            fallen["incomplete"] += 1
            continue
        results = run_checks(Candidate.of(crystal), CHECKS, stop_at_failure=True)
        failed = first_failure(results)
        if failed is None:
            kept.append(draw)
        else:
            fallen[failed] += 1
    passed = [crystals[draw] for draw in kept]
    likelihoods = log_likelihoods(model, passed, beta=beta)
    merit = scores(model, passed, likelihoods, num_workers=num_workers)
    order = sorted(range(len(kept)), key=lambda place: (-merit[place], place))
    labels = duplicate_of([passed[place] for place in order], num_workers=num_workers)
    groups: dict[int, list[int]] = defaultdict(list)
    for place, label in zip(order, labels):
        groups[label].append(place)
    fallen["duplicate"] = len(labels) - len(groups)

    def simplicity(place: int) -> tuple[int, int]:
        return passed[place].num_primitive_atoms, num_free(passed[place])

    found = []
    for places in groups.values():
        best = merit[places[0]]
        own = min((p for p in places if merit[p] >= best - ALIKE), key=simplicity)
        score = best + OFTEN * math.log(len(places))
        found.append(
            Prediction(passed[own], score, likelihoods[own], kept[own], len(places))
        )
    found.sort(key=lambda item: -item.score)
    return found, dict(fallen)


def how_ranked(model: CrystalVAE) -> str:
    """What :func:`scores` are, in a sentence for summaries."""
    energy = ""
    if model.stability is not None:
        energy = (
            " less the estimated energy above the hull in units of "
            f"{1000 * NAT:g} meV/atom"
        )
    return (
        f"ranked by the model's log-likelihood{energy} (the best one of the draws that "
        f"match) and {OFTEN:g} times the logarithm of their number; no energy was "
        "computed"
    )
