"""What the networks on moving geometries share: messages on the orbit graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from crystalvae.encoders.base import OrbitPooling
from crystalvae.encoders.gated import GatedConvolution
from crystalvae.encoders.moment import NeighborMoments
from crystalvae.nn.basic import RadialBasis
from crystalvae.nn.wyckoff import MAX_Z, WyckoffTables
from crystalvae.refinement.neighbors import Sites, orbit_neighbors


@dataclass(frozen=True)
class TrunkConfig:
    """Sizes of the message passing."""

    dim: int = 128
    """Size of node states."""
    num_layers: int = 4
    """Message-passing layers."""
    message_dim: int = 64
    """Size of messages."""
    num_neighbors: int = 20
    """Neighbours of a site."""
    cutoff: float = 6.0
    """Largest distance that counts, Å."""
    num_radial: int = 64
    """Gaussians on the distance; narrow ones see small strains far sooner."""
    num_channels: int = 12
    """Weightings of the neighbours for angles."""


@dataclass(frozen=True)
class ReaderConfig(TrunkConfig):
    """Sizes of a network that reads numbers off crystals."""

    hidden_dim: int = 256
    """Of the perceptron that reads the crystal."""
    dropout: float = 0.1
    """In front of its last layer."""


class OrbitTrunk(nn.Module):
    """Scalars on the orbit graph of a crystal, made anew wherever its atoms move.

    Elements, distances and angles are all that it sees: neither the space group nor the
    setting.

    Args:
        config: sizes.
        tables: symmetry tables; None builds them.
    """

    def __init__(self, config: TrunkConfig, tables: WyckoffTables | None = None):
        super().__init__()
        self.config = config
        self.tables = tables or WyckoffTables()
        self.species = nn.Embedding(MAX_Z, config.dim)
        self.radial = RadialBasis(config.num_radial, config.cutoff)
        self.moments = NeighborMoments(config.num_radial, config.num_channels)
        self.edge_dim = config.num_radial + self.moments.out_dim
        self.layers = nn.ModuleList(
            GatedConvolution(config.dim, self.edge_dim, config.message_dim)
            for _ in range(config.num_layers)
        )

    def graph(self, sites: Sites, lattice: Tensor, coords: Tensor) -> Data:
        """The orbit graph that the network looks at."""
        return orbit_neighbors(
            sites, lattice, coords, self.tables, self.config.num_neighbors
        )

    def edges(self, data: Data) -> tuple[Tensor, Tensor]:
        """Features ``(N, K, edge_dim)`` and envelopes ``(N, K, 1)`` of the edges."""
        basis, envelope = self.radial(data.distance)
        return torch.cat([basis, self.moments(basis, envelope, data)], -1), envelope

    def states(
        self, data: Data, start: Tensor, edge: Tensor, envelope: Tensor
    ) -> Tensor:
        """Node states ``(N, dim)`` after all layers, from those at the start."""
        for layer in self.layers:
            start = layer(start, data, edge, envelope)
        return start


class OrbitReader(OrbitTrunk):
    """Numbers of whole crystals, relaxed or nearly so.

    It begins with the weights of a :class:`~crystalvae.refinement.network.Refiner`, as
    in S. Zaidi et al., Pre-training via Denoising for Molecular Property Prediction,
    ICLR 2023: who knows where atoms of relaxed crystals belong has learned about
    forces. Crystals are disturbed in training while their numbers stay those of the
    relaxed crystal, so that it judges what a draft will relax to.

    Args:
        config: sizes.
        out_dim: numbers of a crystal.
        tables: symmetry tables; None builds them.
    """

    def __init__(
        self, config: ReaderConfig, out_dim: int, tables: WyckoffTables | None = None
    ):
        super().__init__(config, tables)
        self.pooling = OrbitPooling(config.dim)
        self.head = nn.Sequential(
            nn.LayerNorm(self.pooling.out_dim),
            nn.Linear(self.pooling.out_dim, config.hidden_dim),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_dim, out_dim),
        )
        self.card: dict[str, Any] = {}

    @property
    def names(self) -> list[str]:
        """The properties that it judges."""
        raise NotImplementedError

    def read(self, data: Data) -> Tensor:
        """What the head says of the B crystals of :meth:`graph`, ``(B, out_dim)``."""
        edge, envelope = self.edges(data)
        state = self.states(data, self.species(data.species), edge, envelope)
        return self.head(self.pooling(state, data))
