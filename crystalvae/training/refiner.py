"""Training a refiner: real crystals, noise on them, and the way back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from crystalvae.batch import CrystalStore
from crystalvae.errors import CheckpointError
from crystalvae.refinement.network import Refiner, RefinerConfig
from crystalvae.refinement.noise import denoising_errors
from crystalvae.refinement.pretrained import load_refiner, save_refiner
from crystalvae.training.config import DataConfig
from crystalvae.training.network import NetworkTrainer, NetworkTraining, noise_levels

LEVELS = ((0.05, 0.005), (0.2, 0.02), (0.5, 0.05), (1.0, 0.1))
"""Noise at which validation looks, up to the largest shifts of the training: shifts in
Å, and strains."""


@dataclass(frozen=True)
class RefinerRun:
    """A training run: data, network and training."""

    data: DataConfig = field(default_factory=DataConfig)
    """Data sets."""
    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    """The network."""
    training: NetworkTraining = field(default_factory=NetworkTraining)
    """The optimisation."""
    init: str | None = None
    """Directory of a refiner whose weights are the start, relative to the config."""


class RefinerTrainer(NetworkTrainer):
    """Train a :class:`~crystalvae.refinement.network.Refiner` as a config says.

    Args:
        config: the run.
        root: directory that paths of the config are relative to.
        output: directory for checkpoints and ``metrics.csv``.
        device: where to train; None is CUDA if there is one.

    Raises:
        CheckpointError: ``init`` names no refiner, or one of another shape.
    """

    network: Refiner

    def __init__(
        self, config: RefinerRun, root: Path, output: Path, device: str | None = None
    ):
        super().__init__(config, root, output, device)
        self.val = self.load(config.data.val)
        refiner = Refiner(config.refiner)
        if config.init is not None:
            start = load_refiner(root / config.init)
            if start is None or start.config != config.refiner:
                raise CheckpointError(
                    f"init: {root / config.init} holds no refiner of this shape"
                )
            refiner.load_state_dict(start.state_dict())
        self.start(refiner)

    def loss(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared errors in units of the noise."""
        levels = noise_levels(self.config.training, len(index), generator)
        sigma, tau = (level.to(self.device) for level in levels)
        batch = self.crystals.store.batch(index)
        errors = denoising_errors(self.network, batch, sigma, tau, generator)
        return errors.loss(sigma, tau).mean()

    def validate(self) -> dict[str, float]:
        """See :func:`validate_refiner`."""
        return validate_refiner(
            self.network,
            self.val.store,
            self.config.data.max_val,
            self.config.training.max_noise,
        )

    def save(self, directory: Path) -> None:
        """Write the refiner."""
        save_refiner(self.network, directory)


@torch.no_grad()
def validate_refiner(
    refiner: Refiner,
    store: CrystalStore,
    max_crystals: int,
    max_noise: float = math.inf,
    batch_size: int = 128,
) -> dict[str, float]:
    """What one pass leaves of noise of known size.

    Args:
        refiner: the network.
        store: validation crystals.
        max_crystals: how many of them, the first of a fixed shuffle.
        max_noise: largest noise to look at, Å.
        batch_size: crystals at a time.

    Returns:
        ``val_loss``, and for each level looked at the shares of the squared shifts
        and strains that are left.
    """
    order = torch.randperm(len(store), generator=torch.Generator().manual_seed(0))
    report, losses = {}, []
    levels = [pair for pair in LEVELS if pair[0] <= max_noise] or LEVELS[:1]
    for level, strain_level in levels:
        generator = torch.Generator().manual_seed(1)
        sums = torch.zeros(4)
        for index in order[:max_crystals].split(batch_size):
            sigma = torch.full((len(index),), level, device=store.number.device)
            tau = torch.full_like(sigma, strain_level)
            batch = store.batch(index)
            errors = denoising_errors(refiner, batch, sigma, tau, generator)
            sums += torch.stack(
                [
                    errors.shift.sum(),
                    errors.shift_before.sum(),
                    errors.strain.sum(),
                    errors.strain_before.sum(),
                ]
            ).cpu()
            losses.append(errors.loss(sigma, tau).cpu())
        shift, before, strain, strain_before = sums.tolist()
        report[f"shift_left_{level:g}"] = shift / max(before, 1e-12)
        report[f"strain_left_{strain_level:g}"] = strain / max(strain_before, 1e-12)
    return {"val_loss": float(torch.cat(losses).mean()), **report}
