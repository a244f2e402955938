"""Steer to a property: search around the best crystals, round after round."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from crystalvae.design.alike import Listed, merge_distorted
from crystalvae.design.neighbors import default_beta, draw_around
from crystalvae.errors import ConfigError, CrystalVAEError
from crystalvae.generation.choose import require_seed
from crystalvae.screening.uniqueness import (
    Formula,
    duplicate_of,
    formula_key,
)

if TYPE_CHECKING:
    from crystalvae.conditions import Told
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.data.packed import PackedDataset
    from crystalvae.design.judges import Judge
    from crystalvae.generation import Constraints
    from crystalvae.model import CrystalVAE

logger = logging.getLogger(__name__)

ROUND_SEED = 1_000_000
"""Added to the seed in each round."""
DIRECTIONS = ("maximize", "minimize", "target")


@dataclass(frozen=True)
class Goal:
    """What is wanted of a property."""

    direction: str = "minimize"
    """One of :data:`DIRECTIONS`."""
    target: float = math.nan
    """The value that is wanted, where the direction is ``target``."""
    caution: float = 1.0
    """What standard errors are multiplied by before they count against a crystal, so
    that the search does not run to where nothing is known."""

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise ConfigError(f"a goal is one of {', '.join(DIRECTIONS)}")
        if self.direction == "target" and not math.isfinite(self.target):
            raise ConfigError("a target must be a finite number")
        if not 0 <= self.caution < math.inf:
            raise ConfigError("caution is a number from 0 upwards")

    def cost(self, mean: np.ndarray, doubt: np.ndarray | float = 0.0) -> np.ndarray:
        """What is to be small.

        The property or its negative, and caution times the standard error; for a target
        the distance from it that is to be expected of a normal distribution of that
        width.
        """
        error = self.caution * np.asarray(doubt, dtype=float)
        if self.direction != "target":
            return (mean if self.direction == "minimize" else -mean) + error
        away = mean - self.target
        width = np.maximum(error, 1e-12)
        ratio = away / width
        near = width * np.sqrt(2 / np.pi) * np.exp(-0.5 * ratio**2)
        return near + away * (1 - 2 * norm.cdf(-ratio))


@dataclass
class Found:
    """A crystal that the search found."""

    crystal: AsymmetricUnit
    """The crystal."""
    value: float
    """Predicted property."""
    doubt: float
    """Its standard error."""
    round: int
    """Round in which it was first drawn, from 1."""
    parent: AsymmetricUnit
    """The crystal from whose posterior it was drawn."""


@dataclass
class Round:
    """What one round of the search drew."""

    draws: int
    """Latent vectors decoded."""
    passed: int
    """Draws that passed the checks."""
    known: int
    """Of these, in the data set or among the starting crystals, distorted or not."""
    repeated: int
    """Of these, drawn before, distorted or not."""
    values: np.ndarray
    """Predictions of those that are neither, where the judge says something."""


def optimize(
    model: CrystalVAE,
    judge: Judge,
    goal: Goal,
    starts: Sequence[AsymmetricUnit],
    listed: Listed,
    *,
    constraints: Constraints | None = None,
    rounds: int = 5,
    draws: int = 200,
    parents: int = 20,
    beta: float | None = None,
    spread: float = 1.0,
    temperature: float = 1.0,
    seed: int = 0,
    refine: dict[str, float | None] | None = None,
    num_workers: int | None = None,
    advance: Callable[[], object] | None = None,
    **options,
) -> tuple[list[Found], list[Round]]:
    """Search for unlisted crystals with a property.

    Each round draws around the best crystals so far, at a β that keeps most of them,
    decodes, drops what fails the checks, what is known and what repeats, and predicts
    the property of the rest: what is judged is always a crystal, never a point between
    crystals.

    Args:
        model: the model.
        judge: predicts the property; what it says nothing of falls.
        goal: what is wanted.
        starts: where the first round searches, all of them.
        listed: crystals that are not to be found again.
        constraints: what the draws must obey; from the second round on it searches
            around crystals that do.
        rounds: of the search.
        draws: that pass the checks in each.
        parents: best crystals around which the next round draws.
        beta: the knob; None is that of :mod:`crystalvae.design.neighbors`.
        spread: of the draws, see :class:`~crystalvae.design.neighbors.Around`.
        temperature: of every choice.
        seed: any integer.
        refine: of :func:`~crystalvae.design.settings.refinement_of`, for design.
        num_workers: processes; None is one a core where they save time.
        advance: called after each round.
        **options: of :func:`~crystalvae.design.sample.draw_checked`.

    Returns:
        What was found, best first, and the rounds.

    Raises:
        ConfigError: there is no crystal to start from, or the seed is no integer.
        CrystalVAEError: no draw of the first round passes the checks.
    """
    require_seed(seed)
    if not starts:
        raise ConfigError("there is no crystal to start from")
    beta = default_beta(model) if beta is None else beta
    costs = goal.cost(*judge.predict(model, starts)).tolist()
    population = [
        (cost, crystal)
        for cost, crystal in zip(costs, starts)
        if math.isfinite(cost) and (constraints is None or constraints.allow(crystal))
    ]
    pool: list[Found] = []
    history: list[Round] = []
    around = list(starts)
    for number in range(1, rounds + 1):
        try:
            kept, report = draw_around(
                model,
                model.encode(around, beta),
                max(draws, len(around)),
                seed=seed + ROUND_SEED * (number - 1),
                beta=beta,
                spread=spread,
                temperature=temperature,
                refine=refine,
                constraints=constraints,
                num_workers=num_workers,
                **options,
            )
        except CrystalVAEError as error:
            if number == 1:
                raise
            logger.warning(f"the search ends before round {number}: {error}")
            break
        crystals = [draw.crystal for draw in kept]
        older = [*starts, *(item.crystal for item in pool)]
        everything = [*older, *crystals]
        matches = duplicate_of(everything, num_workers=num_workers)
        labels = merge_distorted(everything, matches)[len(older) :]
        fresh = [i for i, first in enumerate(labels) if first == len(older) + i]
        verdicts = listed([crystals[i] for i in fresh], num_workers=num_workers)
        is_old = {len(older) + i: verdict for i, verdict in zip(fresh, verdicts)}
        old = sum(first < len(starts) or is_old.get(first, False) for first in labels)
        new = [i for i, verdict in zip(fresh, verdicts) if not verdict]
        mean, doubt = judge.predict(model, [crystals[i] for i in new])
        judged = np.isfinite(mean)
        new = [i for i, told in zip(new, judged) if told]
        mean, doubt = mean[judged], doubt[judged]
        for i, value, unsure in zip(new, mean.tolist(), doubt.tolist()):
            parent = around[kept[i].index % len(around)]
            pool.append(Found(crystals[i], value, unsure, number, parent))
            population.append((float(goal.cost(value, unsure)), crystals[i]))
        around = _best(population, parents) or around
        repeated = len(kept) - old - len(judged)
        history.append(Round(report.draws, len(kept), old, repeated, mean))
        if advance is not None:
            advance()
    pool.sort(key=lambda item: float(goal.cost(item.value, item.doubt)))
    return pool, history


def _best(
    population: list[tuple[float, AsymmetricUnit]], num: int
) -> list[AsymmetricUnit]:
    """The crystals of least cost, one of each formula."""
    ranked = sorted(population, key=lambda pair: pair[0])
    return _one_of_each_formula((crystal for _, crystal in ranked), num)


def _one_of_each_formula(
    crystals: Iterable[AsymmetricUnit], num: int
) -> list[AsymmetricUnit]:
    """The first crystals of up to ``num`` formulas."""
    found: dict[Formula, AsymmetricUnit] = {}
    for crystal in crystals:
        found.setdefault(formula_key(crystal.composition), crystal)
        if len(found) == num:
            break
    return list(found.values())


def chosen_among_known(
    judge: Judge, goal: Goal, share: float = 0.02
) -> dict[str, float]:
    """What the search's choice is worth, on the crystals that the judge was tried on.

    Args:
        judge: with such crystals.
        goal: what is wanted.
        share: of these crystals that is chosen, by the search's own cost.

    Returns:
        ``chosen`` (how many), and the means of the property's values: ``predicted`` and
        ``true`` of the chosen, ``all`` of all; where the goal is a target, of the
        values' distances from it instead.
    """
    mean, doubt = judge.predicted
    num = max(10, round(share * len(mean)))
    rows = np.argsort(goal.cost(mean, doubt), kind="stable")[:num]

    def shown(values: np.ndarray) -> float:
        if goal.direction == "target":
            values = np.abs(values - goal.target)
        return float(values.mean())

    return {
        "chosen": len(rows),
        "predicted": shown(mean[rows]),
        "true": shown(judge.truth[rows]),
        "all": shown(judge.truth),
    }


def told_target(
    model: CrystalVAE,
    goal: Goal,
    name: str,
    asked: Told | None = None,
    beta: float | None = None,
) -> Told | None:
    """What the decoder is told in a search: a target, where it knows the property.

    Args:
        model: the model.
        goal: what is wanted.
        name: of the property.
        asked: what is told anyway, maybe None for this property, which is then not
            told.
        beta: the knob; None is that of :mod:`crystalvae.design.neighbors`.
    """
    beta = default_beta(model) if beta is None else beta
    for condition in model.config.conditions:
        if condition.name == name and goal.direction == "target":
            heard = beta >= model.config.told_beta
            if heard and condition.low <= goal.target <= condition.high:
                return {name: goal.target, **({} if asked is None else asked)}
    return asked


def best_known(
    model: CrystalVAE,
    dataset: PackedDataset,
    values: np.ndarray,
    goal: Goal,
    num: int,
    constraints: Constraints | None = None,
) -> list[AsymmetricUnit]:
    """Crystals of a data set that come nearest to a goal, one of each formula.

    Args:
        model: the model, which must be able to emit them.
        dataset: the crystals.
        values: the property of each, NaN where it is unknown.
        goal: what is wanted.
        num: how many.
        constraints: what they must obey; where none does, this is left out.
    """
    costs = goal.cost(values)
    order = np.argsort(costs, kind="stable")
    limits = model.config.decoder
    usable = (
        crystal
        for crystal in (dataset[int(row)] for row in order if np.isfinite(costs[row]))
        if limits.fits(len(crystal.wyckoffs), crystal.composition)
        and (constraints is None or constraints.allow(crystal))
    )
    found = _one_of_each_formula(usable, num)
    if not found and constraints is not None:
        logger.warning(
            f"no crystal of {dataset.path} obeys the constraints; starting from others"
        )
        return best_known(model, dataset, values, goal, num)
    return found


def plot_search(
    name: str, values: np.ndarray, goal: Goal, history: Sequence[Round], output: Path
) -> None:
    """Draw the property in the data set (without tails) and each round to a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = [(n, item.values) for n, item in enumerate(history, 1) if len(item.values)]
    columns = [values[np.isfinite(values)], *(column for _, column in drawn)]
    labels = ["data set", *(f"round {n}" for n, _ in drawn)]
    figure, axis = pyplot.subplots(figsize=(1.5 + 1.1 * len(labels), 4.5))
    axis.violinplot(columns, showmedians=True, widths=0.8)
    axis.set_xticks(range(1, len(labels) + 1), labels)
    shown = [*np.quantile(columns[0], [0.005, 0.995])]
    if goal.direction == "target":
        axis.axhline(goal.target, color="k", linestyle=":", label="target")
        axis.legend()
        shown.append(goal.target)
    axis.set_ylabel(f"{name}, predicted (data set: given)")
    shown = np.concatenate([shown, *columns[1:]])
    low, high = shown.min(), shown.max()
    axis.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axis.grid(axis="y", alpha=0.3)
    figure.savefig(output, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
