"""Training a stability network on the energies of disturbed crystals."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from crystalvae.batch import CrystalStore
from crystalvae.errors import CheckpointError, ConfigError
from crystalvae.geometry.lattice import coords_to_lattice
from crystalvae.model import CrystalVAE
from crystalvae.refinement.network import Refiner, RefinerConfig
from crystalvae.refinement.noise import disturb, sites_of
from crystalvae.screening.base import THRESHOLD
from crystalvae.screening.uniqueness import formula_key
from crystalvae.stability.network import HullEnergy, StabilityConfig, StabilityNetwork
from crystalvae.stability.pretrained import save_stability
from crystalvae.training.config import DataConfig
from crystalvae.training.data import Crystals
from crystalvae.training.network import NetworkTrainer, NetworkTraining, noise_levels

logger = logging.getLogger(__name__)

PROPERTY = "e_above_hull"
"""What crystals must have, eV/atom."""
BATCH = 128
"""Crystals that are validated together."""
STARTS = ("refiner", "stability")
"""Networks beside a model from which one can start."""


@dataclass(frozen=True)
class StabilityTraining(NetworkTraining):
    """How to train a stability network."""

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
class StabilityRun:
    """A training run: data, network and training."""

    data: DataConfig = field(default_factory=DataConfig)
    """Data sets with the property ``e_above_hull`` (eV/atom); those that train should
    hold unstable crystals as well as stable ones."""
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    """The network."""
    training: StabilityTraining = field(default_factory=StabilityTraining)
    """The optimisation."""
    init: str | None = None
    """Shipped name, or directory relative to the config, of a model whose refiner
    disturbs crystals, and from which the weights start."""
    start: str = "refiner"
    """Where in ``init`` they start: its ``refiner``, or its ``stability`` network."""

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise ValueError(f"start is one of {', '.join(STARTS)}")
        if self.start != STARTS[0] and self.init is None:
            raise ValueError(f"start = {self.start!r} needs an init")


class StabilityTrainer(NetworkTrainer):
    """Train a :class:`~crystalvae.stability.network.StabilityNetwork`.

    Args:
        config: the run.
        root: directory that paths of the config are relative to.
        output: directory for checkpoints and ``metrics.csv``.
        device: where to train; None is CUDA if there is one.

    Raises:
        CheckpointError: the refiner of ``init`` has another shape.
        ConfigError: ``init`` has no refiner, a data set lacks the property, or there is
            but one crystal.
    """

    network: StabilityNetwork

    def __init__(
        self, config: StabilityRun, root: Path, output: Path, device: str | None = None
    ):
        super().__init__(config, root, output, device, label=PROPERTY)
        size = len(self.crystals.store)
        self.held = np.zeros(size, bool)
        if config.data.val:
            self.val = self.load(config.data.val)
            self.val_rows = torch.randperm(len(self.val.store))
        else:
            self.held = hold_out(
                self.crystals.store, config.training.held_out, config.training.seed
            )
            self.val = self.crystals
            self.val_rows = torch.from_numpy(np.flatnonzero(self.held))
            self.val_rows = self.val_rows[torch.randperm(len(self.val_rows))]
        self.val_rows = self.val_rows[: config.data.max_val]
        if not len(self.val_rows):
            raise ConfigError("no crystal is left to validate; add others")
        network = StabilityNetwork(config.stability)
        if config.init is None:
            self.mover = Refiner(RefinerConfig(), network.tables)
        else:
            path = root / config.init
            name = str(path) if path.is_dir() else config.init
            model = CrystalVAE.from_pretrained(name, device="cpu")
            self.mover = model.require_refiner()
            own = config.start == "stability"
            weights = (model.require_stability() if own else self.mover).state_dict()
            shared = network.state_dict().keys() & weights.keys()
            try:
                network.load_state_dict({n: weights[n] for n in shared}, strict=own)
            except RuntimeError as error:
                raise CheckpointError(
                    f"init: the {config.start} network of {name} has another shape "
                    "than [stability]"
                ) from error
        self.mover.to(self.device)
        self.start(network)

    def rows(self, epoch: int) -> np.ndarray:
        """Those that do not validate."""
        rows = super().rows(epoch)
        return rows[~self.held[rows]]

    def loss(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Mean negative log-likelihood."""
        found = self._judge(self.crystals, index, generator)
        return found.loss(self.crystals.labels[index]).mean()

    def _judge(
        self, crystals: Crystals, index: Tensor, generator: torch.Generator
    ) -> HullEnergy:
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
            found = self._judge(self.val, index, generator)
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


def hold_out(store: CrystalStore, share: float, seed: int) -> np.ndarray:
    """Choose crystals that validate, with all others of their formulas.

    What is tested on polymorphs of what it was trained on looks too good. Where the
    formulas are too few for that, crystals are chosen one by one.

    Args:
        store: all crystals.
        share: of them, about.
        seed: any integer.

    Returns:
        Which they are ``(N,)``.
    """
    elements = store.comps["comp_element"].cpu().numpy()
    counts = store.comps["comp_count"].cpu().numpy()
    offsets = store.comp_offset.cpu().numpy()
    formulas: dict[tuple, list[int]] = defaultdict(list)
    for row, part in enumerate(map(slice, offsets[:-1], offsets[1:])):
        composition = dict(zip(elements[part].tolist(), counts[part].tolist()))
        formulas[formula_key(composition)].append(row)
    rng, groups = np.random.default_rng(seed), list(formulas.values())
    wanted, held = max(1, round(share * len(store))), np.zeros(len(store), bool)
    wanted = min(wanted, len(store) - 1)
    for number in rng.permutation(len(groups)):
        if held.sum() + len(groups[number]) <= wanted:
            held[groups[number]] = True
        if held.sum() == wanted:
            break
    if held.sum() < wanted / 2:
        held[rng.permutation(len(store))[:wanted]] = True
    return held


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
