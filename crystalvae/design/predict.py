"""Crystal structure prediction: crystals of a given composition.

The decoder is given the composition instead of choosing it. z is the prior's mean or a
draw from it, at a large β, where it says little of the composition. Analogues, known
crystals with their elements replaced, can come before the model's own draws. Encoding
and decoding them did not bring them nearer to the truth, so they are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from crystalvae.conditions import Told, told_values
from crystalvae.design.alike import Listed
from crystalvae.design.batches import workers_for
from crystalvae.design.ranking import most_drawn
from crystalvae.design.settings import prediction_conditions, refinement_of
from crystalvae.generation import (
    Constraints,
    Refinement,
    SamplingOptions,
    generate,
)
from crystalvae.generation.choose import numbered_stream, require_seed
from crystalvae.generation.parsing import parse_formula
from crystalvae.parallel import ordered_map

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.design.analogues import Analogues
    from crystalvae.model import CrystalVAE

BATCH = 256
TEMPERATURE = 0.7
"""Of the draws, where none is asked for."""
RESTART_TEMPERATURE = 0.5
"""Least temperature of new drafts of what collides, also for the greedy draw."""


def predict(
    model: CrystalVAE,
    compositions: Sequence[dict[int, int] | str],
    num: int,
    *,
    draws: int | None = None,
    analogues: Analogues | None = None,
    unlisted: Any = None,
    beta: float | None = None,
    temperature: float | None = None,
    seed: int = 0,
    constraints: Constraints | None = None,
    refine: dict[str, float | None] | None = None,
    batch_size: int = BATCH,
    num_workers: int | None = None,
    advance: Callable[[int], object] | None = None,
) -> list[list[AsymmetricUnit | None]]:
    """Draw crystals of each composition.

    Args:
        model: the model.
        compositions: all atoms of the primitive cell, atomic number → count or a
            formula.
        num: crystals for each, at least 1. Without ``draws`` the first is greedy, from
            the prior's mean, and the others are from the prior, as they come. With
            ``analogues``, up to three quarters of them (or one), the first ones, are
            analogues as they are.
        draws: draws for each out of which to choose the distinct ones that came most
            often (:func:`crystalvae.design.ranking.most_drawn`).
        analogues: known crystals, with whose elements replaced a prediction can begin.
        unlisted: known crystals that are not to be predicted again, as
            :meth:`~crystalvae.design.alike.Listed.of` takes them: what matches one is
            left out, distortions are not.
        beta: the knob of the draws from the prior; None is the largest of the trained
            range.
        temperature: of those after the greedy one; None is :data:`TEMPERATURE`.
        seed: any integer; the same seed gives the same crystals.
        constraints: only its space groups are heeded.
        refine: of :func:`crystalvae.design.settings.refinement_of`, for the model's own
            draws.
        batch_size: crystals decoded together.
        num_workers: processes; None is one a core where they save time.
        advance: called with the number of crystals done.

    Returns:
        ``num`` crystals for each composition, None for one that was not completed or
        where there were no more distinct ones.

    Raises:
        ConfigError: a formula or an option is impossible.
        DataError: known crystals cannot be read.
    """
    require_seed(seed)
    compositions = [
        parse_formula(own) if isinstance(own, str) else own for own in compositions
    ]
    listed = None if unlisted is None else Listed.of(unlisted, distortions=True)
    beta = model.config.latent.beta_max if beta is None else beta
    greedy = SamplingOptions(restart_temperature=RESTART_TEMPERATURE)
    warm = replace(
        greedy, temperature=TEMPERATURE if temperature is None else temperature
    )
    found: list[list[AsymmetricUnit | None]] = [[] for _ in compositions]
    drawn: list[list[AsymmetricUnit | None]] = [[] for _ in compositions]
    if analogues is not None:
        for row, composition in enumerate(compositions):
            for known in analogues.propose(composition, num - num // 4):
                found[row].append(known.crystal)
        if listed is not None:
            found = _unlisted(found, listed, num_workers)
    missing = [num - len(own) for own in found]
    wanted = [0 if m < 1 else max(m, draws or 0) for m in missing]
    short = [row for row, count in enumerate(wanted) if count]
    further = [row for row, n in enumerate(wanted) for _ in range(n - 1)]
    jobs = [
        _Job(rows[start : start + batch_size], options, at_mean)
        for rows, options, at_mean in ((short, greedy, True), (further, warm, False))
        for start in range(0, len(rows), batch_size)
    ]
    refinement = refinement_of(model, refine, purpose="prediction")
    drafts = _Drafts(
        model,
        compositions,
        jobs,
        seed,
        beta,
        constraints,
        refinement,
        prediction_conditions(model),
    )
    workers = workers_for(model, sum(wanted), batch_size, num_workers)
    batches = ordered_map(drafts, range(len(jobs)), workers)
    for crystals, job in zip(batches, jobs):
        for row, crystal in zip(job.rows, crystals):
            drawn[row].append(crystal)
        if advance is not None:
            advance(len(job.rows))
    if listed is not None:
        drawn = _unlisted(drawn, listed, num_workers)
    if draws is not None:
        drawn = most_drawn(model, drawn, beta=beta, num_workers=num_workers)
    for own, more in zip(found, drawn):
        short = num - len(own)
        own += (more + [None] * short)[:short]
    return found


class _Job(NamedTuple):
    """A batch of crystals to draw."""

    rows: list[int]
    """Which composition each has."""
    options: SamplingOptions
    at_mean: bool
    """Whether z is the prior's mean."""


@dataclass(frozen=True)
class _Drafts:
    """Batches of crystals of given compositions by their numbers."""

    model: CrystalVAE
    compositions: Sequence[dict[int, int]]
    jobs: list[_Job]
    seed: int
    beta: float
    constraints: Constraints | None
    refinement: Refinement
    conditions: Told

    def __call__(self, number: int) -> list[AsymmetricUnit | None]:
        job = self.jobs[number]
        generator = numbered_stream(self.seed, number)
        dim = self.model.config.latent.dim
        z = torch.randn(len(job.rows), dim, generator=generator)
        return generate(
            self.model,
            torch.zeros_like(z) if job.at_mean else z,
            beta=self.beta,
            told=told_values(
                self.model.config.conditions, self.conditions, len(z), generator
            ),
            options=job.options,
            constraints=self.constraints,
            refinement=self.refinement,
            compositions=[self.compositions[row] for row in job.rows],
            generator=generator,
        ).crystals()


def _unlisted(
    drawn: list[list[AsymmetricUnit | None]],
    listed: Listed,
    num_workers: int | None,
) -> list[list[AsymmetricUnit | None]]:
    """Crystals that match no known one, in the order that they had."""
    flat = [crystal for own in drawn for crystal in own if crystal is not None]
    known = iter(listed(flat, num_workers=num_workers))
    return [[c for c in own if c is None or not next(known)] for own in drawn]
