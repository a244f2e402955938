"""Training a property network on what a data set knows of its crystals."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from crystalvae.errors import ConfigError
from crystalvae.properties.network import PropertyConfig, PropertyNetwork
from crystalvae.properties.pretrained import save_properties
from crystalvae.training.data import require_known
from crystalvae.training.reader import BATCH, ReaderRun, ReaderTrainer

logger = logging.getLogger(__name__)

FEW = 20
"""Values by which a network can hardly be judged."""


@dataclass(frozen=True)
class PropertyRun(ReaderRun):
    """A training run: data sets some of whose crystals have the properties."""

    network: PropertyConfig = field(default_factory=PropertyConfig)
    """The network and its properties."""
    starts = ("refiner", "stability", "properties")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.network.quantities:
            raise ValueError("[[network.quantities]] names no property to learn")


class PropertyTrainer(ReaderTrainer):
    """Train a :class:`~crystalvae.properties.network.PropertyNetwork`.

    Args:
        config: the run.
        root: directory that paths of the config are relative to.
        output: directory for checkpoints and ``metrics.csv``.
        device: where to train; None is CUDA if there is one.

    Raises:
        ConfigError: no crystal that trains or none that validates has one of the
            properties, or all have the same value.
    """

    network: PropertyNetwork

    def __init__(
        self, config: PropertyRun, root: Path, output: Path, device: str | None = None
    ):
        names = config.network.names
        super().__init__(config, root, output, device, told=names)
        require_known(
            self.crystals, config.network.quantities, table="network.quantities"
        )
        self._require_judges(names)

    def _require_judges(self, names: list[str]) -> None:
        """Refuse properties that cannot be learned or judged, warn where few judge."""
        told = self.crystals.told[torch.from_numpy(~self.held).to(self.device)]
        judged = self.val.told[self.val_rows]
        for column, name in enumerate(names):
            values = told[:, column]
            values = values[values.isfinite()]
            if not len(values) or values.min() == values.max():
                raise ConfigError(
                    f"{name}: all crystals that train have the same value, or none; "
                    "there is nothing to learn"
                )
            known = int(judged[:, column].isfinite().sum())
            if not known:
                raise ConfigError(
                    f"no crystal that validates has a {name}; name a [data] val, or "
                    "raise training.held_out"
                )
            if known < FEW:
                logger.warning(
                    f"{known} crystals that validate have a {name}: too few to tell "
                    "good networks from bad ones; raise training.held_out"
                )

    def build(self) -> PropertyNetwork:
        """The network, not trained."""
        return PropertyNetwork(self.config.network)

    def loss(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Mean negative log-likelihood, the properties added up."""
        found = self.judge(self.crystals, index, generator)
        return found.loss(self.crystals.told[index]).sum(1).mean()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """How good it is on validation crystals, disturbed in a fixed way.

        Returns:
            ``val_loss``, and the mean absolute error of each property in its unit.
        """
        generator = torch.Generator().manual_seed(0)
        losses, errors = [], []
        for index in self.val_rows.split(BATCH):
            truth = self.val.told[index]
            found = self.judge(self.val, index, generator)
            losses.append(found.loss(truth)[truth.isfinite()])
            errors.append((found.median() - truth).abs())
        error = torch.cat(errors).nanmean(0).tolist()
        named = zip(self.network.names, error)
        return {
            "val_loss": float(torch.cat(losses).mean()),
            **{f"error_{name}": value for name, value in named},
        }

    def save(self, directory: Path) -> None:
        """Write the network."""
        save_properties(self.network, directory)
