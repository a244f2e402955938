"""What changes in the course of a run, and what is drawn for each crystal."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from crystalvae.conditions import Condition
from crystalvae.latent import LatentConfig
from crystalvae.training.config import TrainingConfig

logger = logging.getLogger(__name__)

EARLY = 0.15
"""Share of a run in which its best model should not be found."""

if TYPE_CHECKING:
    from crystalvae.training.network import NetworkTraining


def share_done(
    step: int, total: int, seconds: float, options: TrainingConfig | NetworkTraining
) -> float:
    """How much of a run is over, by its steps or its time, whichever says more."""
    spent = seconds / (60 * options.minutes) if options.minutes else 0.0
    return min(1.0, max(step / total, spent))


def rate_at(step: int, done: float, options: TrainingConfig | NetworkTraining) -> float:
    """Learning rate of a step: linear warm-up, then cosine over the share done."""
    warm = min(1.0, (step + 1) / max(1, options.warmup_steps))
    wave = 0.5 * (1 + math.cos(math.pi * done))
    share = options.final_share + (1 - options.final_share) * wave
    return options.learning_rate * warm * share


def warn_if_short(total: int, options: TrainingConfig | NetworkTraining) -> None:
    """Say so where a run ends before its learning rate has done its work."""
    if total < 4 * options.warmup_steps:
        logger.warning(
            f"the run has {total} steps, {min(total, options.warmup_steps)} of them in "
            "the warm-up; raise training.epochs or lower training.warmup_steps"
        )


def warn_if_ended(
    step: int, total: int, options: TrainingConfig | NetworkTraining
) -> None:
    """Likewise where its time ended it."""
    if step < min(total, 4 * options.warmup_steps):
        logger.warning(
            f"the time was over after {step} steps, {min(step, options.warmup_steps)} "
            "of them in the warm-up; raise training.minutes or lower "
            "training.warmup_steps"
        )


def warn_if_early(best: int, step: int) -> None:
    """Say so where the best model is one that has hardly been trained.

    Args:
        best: step of the best model; 0 where it is unknown.
        step: steps of the run.
    """
    if 0 < best <= EARLY * step:
        logger.warning(
            f"the best model is that of step {best} of {step}, so it is hardly another "
            "one than the run began with: after it the validation loss rose. Lower "
            "training.learning_rate or raise training.dropout; the last model is "
            "beside the best one, in last"
        )


def draw_beta(
    caps: Tensor,
    latent: LatentConfig,
    options: TrainingConfig,
    generator: torch.Generator,
) -> Tensor:
    """β of each crystal: the smallest, or log-uniform in the whole range or its top.

    Args:
        caps: largest β of each crystal ``(size,)``.
        latent: gives the range.
        options: give the shares.
        generator: source of randomness, on the CPU.

    Returns:
        ``(size,)``.
    """
    high = caps.clamp(latent.beta_min, latent.beta_max).log()
    place = torch.rand(len(caps), generator=generator)
    branch = torch.rand(len(caps), generator=generator)
    low = torch.full_like(high, math.log(latent.beta_min))
    above = branch >= 1 - options.beta_high_share
    start = torch.where(above, low.clamp(min=math.log(options.beta_high)), low)
    start = torch.minimum(start, high)
    beta = torch.exp(start + (high - start) * place)
    at_min = branch < options.beta_min_share
    return torch.where(at_min, torch.full_like(beta, latent.beta_min), beta)


def draw_told(
    values: Tensor,
    conditions: Sequence[Condition],
    generator: torch.Generator,
) -> Tensor:
    """Which properties of each crystal the decoder is told.

    Args:
        values: of the crystals ``(size, P)``.
        conditions: say how often each is told.
        generator: source of randomness, on the CPU.

    Returns:
        ``(size, P)``, NaN for what is not told.
    """
    shares = torch.tensor([condition.share for condition in conditions])
    chosen = torch.rand(values.shape, generator=generator) < shares
    return values.masked_fill(~chosen.to(values.device), math.nan)
