"""Training a refiner: real crystals, noise on them, and the way back."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from crystalvae.batch import CrystalStore
from crystalvae.decoder import DecoderConfig
from crystalvae.errors import CheckpointError
from crystalvae.pretrained import resolve_device
from crystalvae.refinement.network import Refiner, RefinerConfig
from crystalvae.refinement.noise import denoising_errors
from crystalvae.refinement.pretrained import load_refiner, save_refiner
from crystalvae.training.checkpoint import (
    may_resume,
    read_checkpoint,
    require_finite,
    same_config,
    write_checkpoint,
)
from crystalvae.training.config import DataConfig
from crystalvae.training.data import epoch_batches, load_sources
from crystalvae.training.rows import append_row, truncate_rows
from crystalvae.training.schedule import rate_at

logger = logging.getLogger(__name__)

LEVELS = ((0.05, 0.005), (0.2, 0.02), (0.5, 0.05), (1.0, 0.1))
"""Noise at which validation looks, up to the largest shifts of the training: shifts in
Å, and strains."""


@dataclass(frozen=True)
class RefinerTraining:
    """How to train a refiner."""

    epochs: int = 40
    """Passes over the training crystals."""
    batch_size: int = 64
    """Crystals in a step."""
    learning_rate: float = 2e-3
    """Peak of the schedule: linear warm-up, then cosine."""
    final_share: float = 0.01
    """Learning rate at the end, as a share of the peak."""
    warmup_steps: int = 300
    """Steps of the linear warm-up."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    clip_norm: float = 5.0
    """Largest norm of the gradient."""
    min_noise: float = 0.01
    """Smallest noise, Å; it is drawn log-uniformly for each crystal."""
    max_noise: float = 0.6
    """Largest noise, Å."""
    min_strain: float = 0.003
    """Smallest strain; it is drawn log-uniformly for each crystal as well, or nearer to
    the middle with a ``coupling`` between 0 and 1."""
    max_strain: float = 0.08
    """Largest strain."""
    coupling: float = 0.0
    """How much the strain's noise follows the shifts': 0 draws them independently, 1
    makes both small or large together, as in a descent of many passes."""
    bucket: int = 40
    """Batches that are sorted by length together."""
    seed: int = 0
    """Everything random follows from it."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError("epochs must be at least 1")
        if not 0 < self.min_noise < self.max_noise:
            raise ValueError("min_noise is positive and below max_noise")
        if not 0 < self.min_strain < self.max_strain:
            raise ValueError("min_strain is positive and below max_strain")
        if not 0 <= self.coupling <= 1:
            raise ValueError("coupling goes from 0 to 1")


@dataclass(frozen=True)
class RefinerRun:
    """A training run: data, network and training."""

    data: DataConfig = field(default_factory=DataConfig)
    """Data sets."""
    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    """The network."""
    training: RefinerTraining = field(default_factory=RefinerTraining)
    """The optimisation."""
    init: str | None = None
    """Directory of a refiner whose weights are the start, relative to the config."""


def noise_levels(
    options: RefinerTraining, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Noise of shifts (Å) and of strains for so many crystals, each ``(count,)``."""
    shift, strain = torch.rand(2, count, generator=generator)
    strain = options.coupling * shift + (1 - options.coupling) * strain
    sigma = options.min_noise * (options.max_noise / options.min_noise) ** shift
    tau = options.min_strain * (options.max_strain / options.min_strain) ** strain
    return sigma, tau


class RefinerTrainer:
    """Train a :class:`~crystalvae.refinement.network.Refiner` as a config says.

    Args:
        config: the run.
        root: directory that paths of the config are relative to.
        output: directory for checkpoints and ``metrics.csv``.
        device: where to train; None is CUDA if there is one.

    Raises:
        CheckpointError: ``init`` names no refiner, or one of another shape.
    """

    def __init__(
        self, config: RefinerRun, root: Path, output: Path, device: str | None = None
    ):
        self.config = config
        self.output = output
        device = resolve_device(device)
        options = config.training
        torch.manual_seed(options.seed)
        limits = DecoderConfig()
        self.crystals = load_sources(config.data.train, root, limits)
        self.crystals = dataclasses.replace(
            self.crystals, store=self.crystals.store.to(device)
        )
        self.val_store = load_sources(config.data.val, root, limits).store.to(device)
        self.refiner = Refiner(config.refiner).to(device)
        if config.init is not None:
            start = load_refiner(root / config.init)
            if start is None or start.config != config.refiner:
                raise CheckpointError(
                    f"init: {root / config.init} holds no refiner of this shape"
                )
            self.refiner.load_state_dict(start.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.refiner.parameters(),
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
            betas=(0.9, 0.98),
        )
        self.step, self.seconds, self.best = 0, 0.0, math.inf

    def fit(self, *, progress: bool = False, resume: bool = False) -> Path:
        """Train to the end of the last epoch.

        Args:
            progress: show a bar on stderr.
            resume: go on from ``last.pt`` in the output directory if there is one.

        Returns:
            Directory of the best refiner.

        Raises:
            CheckpointError: ``last.pt`` is truncated or of another config.
            DataError: the output directory holds another run.
        """
        options = self.config.training
        self.output.mkdir(parents=True, exist_ok=True)
        last = self.output / "last.pt"
        if may_resume(last, resume):
            self._load(last)
        truncate_rows(self.output / "metrics.csv", self.step)
        per_epoch = len(self._batches(0))
        total = per_epoch * options.epochs
        began = time.perf_counter() - self.seconds
        with tqdm(
            total=total,
            initial=self.step,
            disable=None if progress else True,
            unit="step",
        ) as bar:
            for epoch in range(self.step // per_epoch, options.epochs):
                losses = []
                self.refiner.train()
                for index in self._batches(epoch):
                    losses.append(self._step(index, total))
                    bar.update()
                self.seconds = time.perf_counter() - began
                loss = float(torch.stack(losses).mean())
                require_finite(loss, f"in epoch {epoch + 1}")
                self._end_of_epoch(epoch, loss)
                self._save(last)
        return self.output / "best"

    def _batches(self, epoch: int) -> list[Tensor]:
        options = self.config.training
        return epoch_batches(
            self.crystals.store.num_sites,
            options.batch_size,
            options.bucket,
            options.seed,
            epoch,
            self.crystals.rows(options.seed, epoch),
        )

    def _step(self, index: Tensor, total: int) -> Tensor:
        options = self.config.training
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, total, options)
        seed = options.seed * 1_000_003 + self.step
        generator = torch.Generator().manual_seed(seed)
        store = self.crystals.store
        levels = noise_levels(options, len(index), generator)
        sigma, tau = (level.to(store.number.device) for level in levels)
        batch = store.batch(index)
        errors = denoising_errors(self.refiner, batch, sigma, tau, generator)
        loss = errors.loss(sigma, tau).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.refiner.parameters(), options.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss.detach()

    def _end_of_epoch(self, epoch: int, train_loss: float) -> None:
        report = validate_refiner(
            self.refiner.eval(),
            self.val_store,
            self.config.data.max_val,
            self.config.training.max_noise,
        )
        row = {
            "epoch": epoch + 1,
            "step": self.step,
            "minutes": round(self.seconds / 60, 2),
            "train_loss": round(train_loss, 4),
            **{name: round(value, 4) for name, value in report.items()},
        }
        append_row(self.output / "metrics.csv", row)
        left = [name for name in report if name.startswith("shift_left_")]
        logger.info(
            "epoch %d: train %.3f, val %.3f; of noise of %s A is left %s",
            epoch + 1,
            train_loss,
            report["val_loss"],
            "/".join(name.removeprefix("shift_left_") for name in left),
            "/".join(f"{report[name]:.2f}" for name in left),
        )
        if report["val_loss"] < self.best:
            self.best = report["val_loss"]
            self.refiner.card = {**row, "run": dataclasses.asdict(self.config)}
            save_refiner(self.refiner, self.output / "best")

    def _save(self, path: Path) -> None:
        state = {
            "refiner": self.refiner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "config": json.dumps(dataclasses.asdict(self.config)),
        }
        write_checkpoint(path, state)

    def _load(self, path: Path) -> None:
        state = read_checkpoint(path, next(self.refiner.parameters()).device)
        if not same_config(RefinerRun, json.loads(state["config"]), self.config):
            raise CheckpointError(
                f"{path} was made with another config; use that one or another output "
                "directory"
            )
        self.refiner.load_state_dict(state["refiner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.best = state["best"]


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
