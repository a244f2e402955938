"""Training a property network on what a data set knows of its crystals."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from crystalvae.properties.network import PropertyConfig, PropertyNetwork
from crystalvae.properties.pretrained import save_properties
from crystalvae.training.data import require_known
from crystalvae.training.reader import BATCH, ReaderRun, ReaderTrainer


@dataclass(frozen=True)
class PropertyRun(ReaderRun):
    """A training run: data sets some of whose crystals have the properties."""

    network: PropertyConfig = field(default_factory=PropertyConfig)
    """The network and its properties."""
    starts = ("refiner", "stability", "properties")


class PropertyTrainer(ReaderTrainer):
    """Train a :class:`~crystalvae.properties.network.PropertyNetwork`.

    Args:
        config: the run.
        root: directory that paths of the config are relative to.
        output: directory for checkpoints and ``metrics.csv``.
        device: where to train; None is CUDA if there is one.

    Raises:
        ConfigError: no crystal has one of the properties.
    """

    network: PropertyNetwork

    def __init__(
        self, config: PropertyRun, root: Path, output: Path, device: str | None = None
    ):
        names = [quantity.name for quantity in config.network.quantities]
        super().__init__(config, root, output, device, told=names)
        for crystals in (self.crystals, self.val):
            require_known(crystals, config.network.quantities)

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
            losses.append(found.loss(truth).sum(1))
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
