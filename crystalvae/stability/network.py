"""From a crystal, relaxed or nearly so, to its energy above the hull."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data

from crystalvae.nn.wyckoff import WyckoffTables
from crystalvae.refinement.trunk import OrbitReader, ReaderConfig
from crystalvae.screening.base import HULL, THRESHOLD

OFFSET = 0.05
"""eV/atom: energies e are learned as log(e + OFFSET), fine near the hull, coarse far
above it."""
HIGHEST = 3.0
"""eV/atom above which all crystals are alike."""
LEAST_SCALE = 0.02
"""Smallest scale of a prediction."""


@dataclass(frozen=True)
class StabilityConfig(ReaderConfig):
    """Sizes of the network."""


@dataclass
class HullEnergy:
    """A Laplace distribution of log(e + :data:`OFFSET`) for each crystal."""

    location: Tensor
    """``(B,)``."""
    scale: Tensor
    """``(B,)``."""

    def median(self) -> Tensor:
        """The e that is as likely to be exceeded as not, eV/atom, ``(B,)``."""
        return (self.location.exp() - OFFSET).clamp(0, HIGHEST)

    def probability_below(self, energy: float = THRESHOLD) -> Tensor:
        """Probability of lying at most so many eV/atom above the hull, ``(B,)``."""
        x = (math.log(energy + OFFSET) - self.location) / self.scale
        tail = 0.5 * (-x.abs()).exp()
        return torch.where(x > 0, 1 - tail, tail)

    def loss(self, energy: Tensor) -> Tensor:
        """Negative log-likelihood of energies above the hull in eV/atom, ``(B,)``."""
        error = (logarithm(energy) - self.location).abs()
        return error / self.scale + (2 * self.scale).log()


def logarithm(energy: Tensor) -> Tensor:
    """The log(e + :data:`OFFSET`) of energies, clipped to 0 and :data:`HIGHEST`."""
    return (energy.clamp(0, HIGHEST) + OFFSET).log()


class StabilityNetwork(OrbitReader):
    """Energy above the convex hull of known crystals, with its uncertainty.

    Args:
        config: sizes.
        tables: symmetry tables; None builds them.
    """

    def __init__(self, config: StabilityConfig, tables: WyckoffTables | None = None):
        super().__init__(config, 2, tables)

    @property
    def names(self) -> list[str]:
        """The property that it judges."""
        return [HULL]

    def forward(self, data: Data) -> HullEnergy:
        """Judge the B crystals of :meth:`graph`."""
        location, scale = self.read(data).unbind(1)
        return HullEnergy(location - 2.0, F.softplus(scale) + LEAST_SCALE)
