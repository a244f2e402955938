"""The simple encoder: gated messages on distances, after CGCNN."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

from crystalvae.encoders.base import Encoder, RegularMessagePassing
from crystalvae.nn.basic import RadialBasis, mlp
from crystalvae.nn.wyckoff import WyckoffTables


@dataclass(frozen=True)
class GatedConfig:
    """Sizes of the gated encoder."""

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


def joint_states(
    source: Tensor, target: Tensor, edge: Tensor, linear: nn.Linear
) -> Tensor:
    """Sum of what both ends of edges and the edges say, made in place of ``source``.

    These are the largest tensors of a layer, and most of its time on a CPU went into
    moving them.

    Args:
        source: states at the edges' sources, overwritten, ``(N * K, F)``.
        target: states at their targets ``(N, F)``.
        edge: edge features ``(N, K, E)``.
        linear: maps these to F, without a bias.

    Returns:
        ``(N, K, F)``.
    """
    joint = source.view(*edge.shape[:2], -1).add_(target[:, None])
    features = edge.flatten(0, 1).to(joint.dtype)
    joint.flatten(0, 1).addmm_(features, linear.weight.to(joint.dtype).t())
    return joint


class GatedConvolution(RegularMessagePassing):
    """One layer: h_i + U(Σ_j σ(g_ij) ⊙ silu(v_ij) env_ij), then a feed-forward.

    ``(g, v) = A h_i + B h_j + R rbf(d_ij)``. References: T. Xie and J. C. Grossman,
    Phys. Rev. Lett. 120, 145301 (2018), eq. 5.

    Args:
        dim: size of node states.
        edge_dim: size of the radial (and angular) edge features.
        message_dim: size of a message.
    """

    def __init__(self, dim: int, edge_dim: int, message_dim: int):
        super().__init__(aggr="sum")
        self.norm = nn.LayerNorm(dim)
        self.target = nn.Linear(dim, 2 * message_dim)
        self.source = nn.Linear(dim, 2 * message_dim, bias=False)
        self.edge = nn.Linear(edge_dim, 2 * message_dim, bias=False)
        self.mix = mlp(message_dim, 2 * dim, dim)
        self.feed = nn.Sequential(nn.LayerNorm(dim), mlp(dim, 2 * dim, dim))

    def forward(
        self, state: Tensor, data: Data, edge: Tensor, envelope: Tensor
    ) -> Tensor:
        """Update ``(N, dim)`` from edge features ``(N, K, edge_dim)``."""
        normed = self.norm(state)
        total = self.propagate(
            data.edge_index,
            source=self.source(normed),
            target=self.target(normed),
            edge=edge,
            envelope=envelope,
            size=None,
        )
        state = state + self.mix(total / 4).to(state.dtype)
        return state + self.feed(state).to(state.dtype)

    def message(
        self, source_j: Tensor, target: Tensor, edge: Tensor, envelope: Tensor
    ) -> Tensor:
        """Gate, value and envelope of each edge, ``(N * K, message_dim)``."""
        gate, value = joint_states(source_j, target, edge, self.edge).chunk(2, -1)
        message = torch.sigmoid(gate) * F.silu(value) * envelope.to(value.dtype)
        return message.flatten(0, 1)


class GatedEncoder(Encoder):
    """Gated convolutions on the orbit graph; sees distances only.

    Args:
        config: sizes.
        tables: symmetry tables.
    """

    def __init__(self, config: GatedConfig, tables: WyckoffTables):
        super().__init__(tables, config.dim)
        self.radial = RadialBasis(config.num_radial, config.cutoff)
        self.layers = nn.ModuleList(
            GatedConvolution(config.dim, config.num_radial, config.message_dim)
            for _ in range(config.num_layers)
        )

    def update(self, state: Tensor, data: Data) -> Tensor:
        """Pass messages: ``(N, dim)`` to ``(N, dim)``."""
        edge, envelope = self.radial(data.distance)
        for layer in self.layers:
            state = layer(state, data, edge, envelope)
        return state
