"""What the networks that read numbers off disturbed crystals share in training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from crystalvae.batch import CrystalStore
from crystalvae.data.packed import unflatten
from crystalvae.errors import CheckpointError, ConfigError
from crystalvae.geometry.lattice import coords_to_lattice
from crystalvae.model import CrystalVAE
from crystalvae.refinement.network import Refiner, RefinerConfig
from crystalvae.refinement.noise import disturb, sites_of
from crystalvae.refinement.trunk import OrbitReader
from crystalvae.training.config import DataConfig
from crystalvae.training.data import Crystals
from crystalvae.training.network import NetworkTrainer, NetworkTraining, noise_levels
from crystalvae.training.split import hold_out

BATCH = 128
"""Crystals that are validated together."""


@dataclass(frozen=True)
class ReaderTraining(NetworkTraining):
    """How to train such a network."""

    epochs: int = 16
    """Passes over the training crystals."""
    learning_rate: float = 1e-3
    """Peak of the schedule: linear warm-up, then cosine."""
    min_noise: float = 0.005
    """Smallest noise, Å; it is drawn log-uniformly for each crystal."""
    max_noise: float = 0.3
    """Largest noise, Å."""
    min_strain: float = 0.001
    """Smallest strain."""
    max_strain: float = 0.03
    """Largest strain."""
    held_out: float = 0.03
    """Share of the crystals that validate, where no data sets are named for it; whole
    formulas."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.held_out < 1:
            raise ValueError("held_out is a share between 0 and 1")


@dataclass(frozen=True)
class ReaderRun:
    """A training run, less the network."""

    data: DataConfig = field(default_factory=DataConfig)
    """Data sets with what is learned; those that train should be as various as what is
    to be judged."""
    training: ReaderTraining = field(default_factory=ReaderTraining)
    """The optimisation."""
    init: str | None = None
    """Shipped name, or directory relative to the config, of a model whose refiner
    disturbs crystals, and from which the weights start."""
    start: str = "refiner"
    """Which network of ``init`` they start from."""

    starts: ClassVar[tuple[str, ...]] = ("refiner",)

    def __post_init__(self) -> None:
        if self.start not in self.starts:
            raise ValueError(f"start is one of {', '.join(self.starts)}")
        if self.start != "refiner" and self.init is None:
            raise ValueError(f"start = {self.start!r} needs an init")


class ReaderTrainer(NetworkTrainer):
    """Train an :class:`~crystalvae.refinement.trunk.OrbitReader`.

    Args:
        config: the run.
        root: directory that paths of the config are relative to.
        output: directory for checkpoints and ``metrics.csv``.
        device: where to train; None is CUDA if there is one.
        label: property that the crystals must have; None asks for none.
        told: properties of which they must have one.

    Raises:
        CheckpointError: a network of ``init`` has another shape.
        ConfigError: ``init`` has no refiner, a data set lacks the property, or there is
            but one crystal.
    """

    network: OrbitReader

    def __init__(
        self,
        config: ReaderRun,
        root: Path,
        output: Path,
        device: str | None = None,
        **asked: Any,
    ):
        super().__init__(config, root, output, device, **asked)
        size = len(self.crystals.store)
        self.held = np.zeros(size, bool)
        if config.data.val:
            self.val = self.load(config.data.val)
            self.val_rows = torch.randperm(len(self.val.store))
        else:
            self.held = hold_out(
                compositions_of(self.crystals.store),
                config.training.held_out,
                config.training.seed,
            )
            self.val = self.crystals
            self.val_rows = torch.from_numpy(np.flatnonzero(self.held))
            self.val_rows = self.val_rows[torch.randperm(len(self.val_rows))]
        self.val_rows = self.val_rows[: config.data.max_val]
        if not len(self.val_rows):
            raise ConfigError("no crystal is left to validate; add others")
        network = self.build()
        if config.init is None:
            self.mover = Refiner(RefinerConfig(), network.tables)
        else:
            self._begin_with(network)
        self.mover.to(self.device)
        self.start(network)

    @abstractmethod
    def build(self) -> OrbitReader:
        """The network, not trained."""

    def _begin_with(self, network: OrbitReader) -> None:
        """Take the trunk of ``init``, all of it where it says the same."""
        config = self.config
        path = self.root / config.init
        name = str(path) if path.is_dir() else config.init
        model = CrystalVAE.from_pretrained(name, device="cpu")
        self.mover = model.require_refiner()
        source = getattr(model, config.start)
        if source is None:
            raise ConfigError(
                f"init: {name} has no {config.start} network to start from"
            )
        weights, own = source.state_dict(), network.state_dict()
        same = type(source) is type(network) and source.names == network.names
        if not same:
            shared = own.keys() & weights.keys()
            weights = {n: weights[n] for n in shared if not n.startswith("head.")}
        try:
            network.load_state_dict(weights, strict=same)
        except RuntimeError as error:
            raise CheckpointError(
                f"init: the {config.start} network of {name} has another shape than "
                "that of the config"
            ) from error

    def rows(self, epoch: int) -> np.ndarray:
        """Those that do not validate."""
        rows = super().rows(epoch)
        return rows[~self.held[rows]]

    def judge(
        self, crystals: Crystals, index: Tensor, generator: torch.Generator
    ) -> Any:
        """Disturb crystals and judge them."""
        levels = noise_levels(self.config.training, len(index), generator)
        sigma, tau = (level.to(self.device) for level in levels)
        batch = crystals.store.batch(index)
        sites, coords = sites_of(batch)
        lattice = coords_to_lattice(batch.lattice_coords)
        with torch.no_grad():
            lattice, coords = disturb(
                self.mover, sites, lattice, coords, sigma, tau, generator
            )
        return self.network(self.network.graph(sites, lattice, coords))


def compositions_of(store: CrystalStore) -> Iterator[dict[int, int]]:
    """Atomic number → count in the primitive cell of each crystal."""
    return unflatten(
        store.comps["comp_element"].tolist(),
        store.comps["comp_count"].tolist(),
        store.comp_offset.tolist(),
    )
