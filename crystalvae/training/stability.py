"""Training a stability network on the energies of disturbed crystals."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from crystalvae.screening.base import HULL, THRESHOLD
from crystalvae.stability.network import StabilityConfig, StabilityNetwork
from crystalvae.stability.pretrained import save_stability
from crystalvae.training.reader import BATCH, ReaderRun, ReaderTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StabilityRun(ReaderRun):
    """A training run on crystals with the property ``e_above_hull`` (eV/atom)."""

    stability: StabilityConfig = field(default_factory=StabilityConfig)
    """The network."""
    starts = ("refiner", "stability")


class StabilityTrainer(ReaderTrainer):
    """Train a :class:`~crystalvae.stability.network.StabilityNetwork`.

    Args:
        config: the run.
        root: directory that paths of the config are relative to.
        output: directory for checkpoints and ``metrics.csv``.
        device: where to train; None is CUDA if there is one.
    """

    network: StabilityNetwork

    def __init__(
        self, config: StabilityRun, root: Path, output: Path, device: str | None = None
    ):
        super().__init__(config, root, output, device, label=HULL)

    def build(self) -> StabilityNetwork:
        """The network, not trained."""
        return StabilityNetwork(self.config.stability)

    def loss(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Mean negative log-likelihood."""
        found = self.judge(self.crystals, index, generator)
        return found.loss(self.crystals.labels[index]).mean()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """How good it is on validation crystals, disturbed in a fixed way.

        Returns:
            ``val_loss``; ``error``, the mean absolute one of the median up to 1
            eV/atom; ``calibration``, the mean probability of being stable minus the
            share that is; ``area`` under the curve of telling stable from unstable,
            where there are both.
        """
        generator = torch.Generator().manual_seed(0)
        losses, medians, probabilities, truths = [], [], [], []
        for index in self.val_rows.split(BATCH):
            truth = self.val.labels[index]
            found = self.judge(self.val, index, generator)
            losses.append(found.loss(truth))
            medians.append(found.median())
            probabilities.append(found.probability_below())
            truths.append(truth)
        truth, probability = torch.cat(truths), torch.cat(probabilities)
        error = torch.cat(medians).clamp(max=1) - truth.clamp(max=1)
        stable = truth <= THRESHOLD
        report = {
            "val_loss": float(torch.cat(losses).mean()),
            "error": float(error.abs().mean()),
            "calibration": float((probability - stable.float()).mean()),
        }
        if not stable.any() or stable.all():
            which = "stable" if stable.all() else "unstable"
            logger.warning(f"all crystals that validate are {which}; add others")
            return report
        return {**report, "area": area_under_curve(probability, stable)}

    def save(self, directory: Path) -> None:
        """Write the network."""
        save_stability(self.network, directory)


def area_under_curve(score: Tensor, positive: Tensor) -> float:
    """Probability that a positive has the higher score of a random pair; ties half.

    Args:
        score: ``(N,)``.
        positive: ``(N,)``.

    Returns:
        NaN where all are positive, or none.
    """
    own, other = score[positive].cpu(), score[~positive].cpu().sort().values
    if not len(own) or not len(other):
        return float("nan")
    below = torch.searchsorted(other, own) + torch.searchsorted(other, own, right=True)
    return float(below.float().mean() / (2 * len(other)))
