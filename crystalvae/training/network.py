"""One loop for the small networks that go beside a model."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from crystalvae.config import require_at_least
from crystalvae.decoder import DecoderConfig
from crystalvae.errors import CheckpointError
from crystalvae.pretrained import resolve_device
from crystalvae.training.checkpoint import (
    may_resume,
    read_checkpoint,
    require_finite,
    require_same_data,
    same_config,
    write_checkpoint,
    writing,
)
from crystalvae.training.config import Source
from crystalvae.training.data import Crystals, epoch_batches, load_sources
from crystalvae.training.rows import append_row, truncate_rows
from crystalvae.training.schedule import (
    rate_at,
    share_done,
    warn_if_ended,
    warn_if_short,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NetworkTraining:
    """How to train such a network."""

    epochs: int = 40
    """Passes over the training crystals."""
    minutes: float | None = None
    """Longest time to train; the learning rate has come down by then, and the steps
    depend on the machine. None trains all epochs."""
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
        require_at_least(self, 1, "epochs", "batch_size", "bucket")
        require_at_least(self, 0, "seed", "warmup_steps")
        if self.minutes is not None and self.minutes <= 0:
            raise ValueError(f"minutes must be positive, not {self.minutes}")
        if not 0 < self.min_noise < self.max_noise:
            raise ValueError("min_noise is positive and below max_noise")
        if not 0 < self.min_strain < self.max_strain:
            raise ValueError("min_strain is positive and below max_strain")
        if not 0 <= self.coupling <= 1:
            raise ValueError("coupling goes from 0 to 1")


def noise_levels(
    options: NetworkTraining, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Noise of shifts (Å) and of strains for so many crystals, each ``(count,)``."""
    shift, strain = torch.rand(2, count, generator=generator)
    strain = options.coupling * shift + (1 - options.coupling) * strain
    sigma = options.min_noise * (options.max_noise / options.min_noise) ** shift
    tau = options.min_strain * (options.max_strain / options.min_strain) ** strain
    return sigma, tau


class NetworkTrainer(ABC):
    """Train a network on real crystals with noise.

    Args:
        config: a dataclass with ``data`` and ``training``.
        root: directory that paths of the config are relative to.
        output: directory for checkpoints and ``metrics.csv``.
        device: where to train; None is CUDA if there is one.
        label: property that the crystals must have; None asks for none.
        told: properties of which they must have one.
    """

    network: nn.Module
    """What is trained; has a ``card``."""

    def __init__(
        self,
        config: Any,
        root: Path,
        output: Path,
        device: str | None = None,
        label: str | None = None,
        told: Sequence[str] = (),
    ):
        self.config = config
        self.root = root
        self.output = output
        self.device = resolve_device(device)
        torch.manual_seed(config.training.seed)
        self.label, self.told = label, told
        self.crystals = self.load(config.data.train)
        self.fingerprint = self.crystals.fingerprint()
        self.step, self.epochs = 0, 0
        self.seconds, self.best = 0.0, math.inf

    def load(self, sources: list[Source]) -> Crystals:
        """The crystals of some data sets, on the device."""
        limits = DecoderConfig()
        found = load_sources(
            sources, self.root, limits, self.label, self.told, bool(self.told)
        )
        return found.to(self.device)

    def start(self, network: nn.Module) -> None:
        """Take a network on, with an optimiser for it."""
        options = self.config.training
        self.network = network.to(self.device)
        self.optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
            betas=(0.9, 0.98),
        )

    def rows(self, epoch: int) -> np.ndarray:
        """Training crystals that an epoch meets."""
        return self.crystals.rows(self.config.training.seed, epoch)

    @abstractmethod
    def loss(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Mean loss of some training crystals."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Measures on validation crystals, ``val_loss`` among them."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the network."""

    def fit(self, *, progress: bool = False, resume: bool = False) -> Path:
        """Train to the end of the last epoch.

        Args:
            progress: show a bar on stderr.
            resume: go on from ``last.pt`` in the output directory if there is one.

        Returns:
            Directory of the best network.

        Raises:
            CheckpointError: ``last.pt`` is truncated or of another config, or the loss
                became no number.
            DataError: the output directory holds another run.
        """
        options = self.config.training
        self.output.mkdir(parents=True, exist_ok=True)
        last = self.output / "last.pt"
        if may_resume(last, resume):
            self._load(last)
        truncate_rows(self.output / "metrics.csv", self.step)
        total = sum(len(self._batches(epoch)) for epoch in range(options.epochs))
        warn_if_short(total, options)
        began = time.perf_counter() - self.seconds
        with tqdm(
            total=total,
            initial=self.step,
            disable=None if progress else True,
            unit="step",
        ) as bar:
            for epoch in range(self.epochs, options.epochs):
                losses = []
                self.network.train()
                for index in self._batches(epoch):
                    done = share_done(self.step, total, self.seconds, options)
                    if done >= 1:
                        break
                    losses.append(self._step(index, done))
                    self.seconds = time.perf_counter() - began
                    bar.update()
                if not losses:
                    break
                loss = float(torch.stack(losses).mean())
                require_finite(loss, f"in epoch {epoch + 1}")
                self._end_of_epoch(epoch, loss)
                self.epochs = epoch + 1
                self._save(last)
        warn_if_ended(self.step, total, options)
        if math.isinf(self.best):
            raise CheckpointError(
                f"no network in {self.output} was worth keeping: there was no step to "
                "train, or its validation loss was never a number"
            )
        return self.output / "best"

    def _batches(self, epoch: int) -> list[Tensor]:
        options = self.config.training
        return epoch_batches(
            self.crystals.store.num_sites,
            options.batch_size,
            options.bucket,
            options.seed,
            epoch,
            self.rows(epoch),
        )

    def _step(self, index: Tensor, done: float) -> Tensor:
        options = self.config.training
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, done, options)
        seed = options.seed * 1_000_003 + self.step
        torch.manual_seed(seed)
        loss = self.loss(index, torch.Generator().manual_seed(seed))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), options.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss.detach()

    def _end_of_epoch(self, epoch: int, train_loss: float) -> None:
        self.network.eval()
        report = self.validate()
        row = {
            "epoch": epoch + 1,
            "step": self.step,
            "minutes": round(self.seconds / 60, 2),
            "train_loss": round(train_loss, 4),
            **{name: round(value, 4) for name, value in report.items()},
        }
        append_row(self.output / "metrics.csv", row)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in report.items())
        logger.info("epoch %d: train %.3f, %s", epoch + 1, train_loss, shown)
        if report["val_loss"] < self.best:
            self.best = report["val_loss"]
            self.network.card = {**row, "run": dataclasses.asdict(self.config)}
            with writing(self.output / "best"):
                self.save(self.output / "best")

    def _save(self, path: Path) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "epochs": self.epochs,
            "seconds": self.seconds,
            "best": self.best,
            "config": json.dumps(dataclasses.asdict(self.config)),
            "data": self.fingerprint,
        }
        write_checkpoint(path, state)

    def _load(self, path: Path) -> None:
        state = read_checkpoint(path, self.device)
        saved = json.loads(state["config"])
        if not same_config(type(self.config), saved, self.config):
            raise CheckpointError(
                f"{path} was made with another config; use that one or another output "
                "directory"
            )
        require_same_data(path, state, self.fingerprint)
        if "network" not in state or "epochs" not in state:
            raise CheckpointError(
                f"{path} was made by an older version; start again in another directory"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.epochs = state["step"], state["epochs"]
        self.seconds = state["seconds"]
        self.best = state["best"]
