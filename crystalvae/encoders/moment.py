"""The strong encoder: gated messages that also see angles, through moments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from crystalvae.encoders.base import Encoder
from crystalvae.encoders.gated import GatedConvolution
from crystalvae.nn.basic import RadialBasis
from crystalvae.nn.wyckoff import MAX_Z, WyckoffTables


@dataclass(frozen=True)
class MomentConfig:
    """Sizes of the moment encoder."""

    dim: int = 128
    """Size of node states."""
    num_layers: int = 3
    """Message-passing layers."""
    cutoff: float = 8.0
    """Largest distance that counts, Å."""
    num_radial: int = 32
    """Gaussians on the distance."""
    message_dim: int = 64
    """Size of messages; most of the encoder's time goes with it."""
    num_channels: int = 8
    """Weightings of the neighbours, each with its first and second moment."""


class NeighborMoments(nn.Module):
    """Angular features of each edge from moments of the neighbour density.

    For channel c, ``w_c`` a positive weight from distance and element of a neighbour,
    and ``r̂`` unit vectors from the site: edge j gets Σ_k w_c(k) cos θ_jk,
    Σ_k w_c(k) cos² θ_jk and Σ_k w_c(k), at the cost of a sum over neighbours instead
    of one over pairs. All are invariant under rotation and equal for
    symmetry-equivalent atoms. They are the l ≤ 2 terms of the density expansion of
    R. Drautz, Phys. Rev. B 99, 014104 (2019), eq. 29, contracted with the edge.

    Args:
        num_radial: size of the radial basis.
        num_channels: weightings c.
    """

    def __init__(self, num_radial: int, num_channels: int):
        super().__init__()
        self.radial = nn.Linear(num_radial, num_channels)
        self.species = nn.Embedding(MAX_Z, num_channels)
        self.out_dim = 3 * num_channels

    def forward(self, basis: Tensor, envelope: Tensor, data: Data) -> Tensor:
        """Return edge features ``(N, K, 3 * num_channels)``."""
        num_nodes, num_neighbors = data.distance.shape
        source = data.edge_index[0].view(num_nodes, num_neighbors)
        weight = self.radial(basis) + self.species(data.species)[source]
        weight = torch.sigmoid(weight.float()) * envelope  # (N, K, C)
        cosine = data.direction @ data.direction.transpose(1, 2)  # (N, K, K)
        zeroth = weight.sum(1, keepdim=True).expand_as(weight)
        return torch.cat([zeroth, cosine @ weight, (cosine**2) @ weight], -1) / 4


class MomentEncoder(Encoder):
    """Gated convolutions whose edges carry radial and angular features.

    Args:
        config: sizes.
        tables: symmetry tables.
    """

    def __init__(self, config: MomentConfig, tables: WyckoffTables):
        super().__init__(tables, config.dim)
        self.radial = RadialBasis(config.num_radial, config.cutoff)
        self.moments = NeighborMoments(config.num_radial, config.num_channels)
        edge_dim = config.num_radial + self.moments.out_dim
        self.layers = nn.ModuleList(
            GatedConvolution(config.dim, edge_dim, config.message_dim)
            for _ in range(config.num_layers)
        )

    def update(self, state: Tensor, data: Data) -> Tensor:
        """Pass messages: ``(N, dim)`` to ``(N, dim)``."""
        basis, envelope = self.radial(data.distance)
        edge = torch.cat([basis, self.moments(basis, envelope, data)], -1)
        for layer in self.layers:
            state = layer(state, data, edge, envelope)
        return state
