"""From a crystal, relaxed or nearly so, to properties such as its band gap."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data

from crystalvae.conditions import Axes, Quantity
from crystalvae.nn.wyckoff import WyckoffTables
from crystalvae.refinement.trunk import OrbitReader, ReaderConfig
from crystalvae.screening.base import HULL

LEAST_SCALE = 0.003
"""Smallest scale of a prediction, as a share of the axis of a property."""


ONE_SIGMA = 1.148
"""Scales of a Laplace distribution on either side that hold 68 % of it."""


@dataclass(frozen=True)
class PropertyConfig(ReaderConfig):
    """Sizes of the network, and what it judges."""

    quantities: list[Quantity] = field(default_factory=list)
    """The properties."""

    def __post_init__(self) -> None:
        names = self.names
        if HULL in names:
            raise ValueError(f"{HULL} is what stability networks judge; rename it")
        if len(set(names)) < len(names):
            raise ValueError(f"quantities names a property twice ({', '.join(names)})")

    @property
    def names(self) -> list[str]:
        """Of the P properties."""
        return [quantity.name for quantity in self.quantities]


@dataclass
class PropertyEstimates:
    """Laplace distributions of P properties of B crystals, each on its axis."""

    location: Tensor
    """``(B, P)``, 0 to 1 in the range of a property."""
    scale: Tensor
    """``(B, P)``."""
    axes: Axes
    """Of the properties."""

    def median(self) -> Tensor:
        """Values that are as likely to be exceeded as not, ``(B, P)``."""
        return self.axes.values(self.location)

    def uncertainty(self) -> Tensor:
        """Half the range that holds the middle 68 % of a distribution, ``(B, P)``.

        At an end of an axis that is not 0, where values are cut off that could go on,
        it is what the inner half of the range says.
        """
        reach = ONE_SIGMA * self.scale
        place = self.location.clamp(0, 1)
        median = self.axes.values(place)
        above = self.axes.values(place + reach) - median
        below = median - self.axes.values(place - reach)
        low, high = self.axes.ends.T
        above = torch.where((place + reach > 1) & (high != 0), below, above)
        below = torch.where((place - reach < 0) & (low != 0), above, below)
        return (above + below) / 2

    def loss(self, values: Tensor) -> Tensor:
        """Negative log-likelihood of values ``(B, P)``; 0 where they are NaN."""
        known = values.isfinite()
        error = (self.axes(values.nan_to_num()) - self.location).abs()
        return known * (error / self.scale + (2 * self.scale).log())


class PropertyNetwork(OrbitReader):
    """Properties that a data set knows, with their uncertainty.

    Args:
        config: sizes and properties.
        tables: symmetry tables; None builds them.

    Raises:
        ValueError: there is no property.
    """

    def __init__(self, config: PropertyConfig, tables: WyckoffTables | None = None):
        if not config.quantities:
            raise ValueError("a property network needs [[network.quantities]]")
        super().__init__(config, 2 * len(config.quantities), tables)
        self.axes = Axes(config.quantities)

    @property
    def names(self) -> list[str]:
        """Of the P properties."""
        return self.config.names

    def forward(self, data: Data) -> PropertyEstimates:
        """Judge the B crystals of :meth:`graph`."""
        location, scale = self.read(data).chunk(2, dim=1)
        return PropertyEstimates(
            location + 0.5, 0.1 * F.softplus(scale) + LEAST_SCALE, self.axes
        )
