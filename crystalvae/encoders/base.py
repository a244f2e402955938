"""What every encoder is: orbit graph in, one vector per crystal out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing

from crystalvae.batch import CrystalBatch
from crystalvae.nn.basic import TorusFourier, rows_of
from crystalvae.nn.wyckoff import MAX_Z, WyckoffEmbedding, WyckoffTables


def orbit_data(batch: CrystalBatch) -> Data:
    """The batch as one torch-geometric graph, one node per orbit (design.md §4).

    Edges run from a neighbour's orbit (source, ``edge_index[0]``) to the orbit whose
    representative looks at it (target, ``edge_index[1]``); they are sorted by target,
    K for each.

    Returns:
        Data with ``num_nodes`` N, per-node ``species``, ``wyckoff``, ``number``,
        ``coords`` ``(N, 3)``, ``share`` (multiplicity / atoms, sums to 1 over a
        crystal; 0 for the surplus nodes of :func:`rows_of`), ``owner`` (crystal of the
        node), per-edge ``distance`` ``(N, K)`` and ``direction`` ``(N, K, 3)``, and
        ``num_crystals``.
    """
    mask = batch.site_mask
    size, slots = mask.shape
    device = mask.device
    rows, real = rows_of(mask)
    position = torch.cumsum(mask.flatten(), 0).view(size, slots) - 1
    owner = rows // slots
    source = torch.gather(position, 1, batch.neighbor.flatten(1))
    source = source.view(size * slots, -1)[rows]
    num_nodes = len(owner)

    def of_site(values: Tensor) -> Tensor:
        return values.flatten(0, 1)[rows]

    target = torch.arange(num_nodes, device=device)[:, None].expand_as(source)
    return Data(
        edge_index=torch.stack([source.flatten(), target.flatten()]),
        num_nodes=num_nodes,
        species=of_site(batch.atomic_numbers),
        wyckoff=of_site(batch.wyckoff),
        number=batch.number[owner],
        coords=of_site(batch.frac_coords),
        share=of_site(batch.multiplicity) * real / batch.num_atoms[owner],
        owner=owner,
        distance=of_site(batch.distance),
        direction=of_site(batch.direction),
        num_crystals=size,
    )


class NodeEmbedding(nn.Module):
    """Initial node state from element, Wyckoff position, share and coordinates.

    Args:
        tables: symmetry tables.
        dim: size of the state.
    """

    def __init__(self, tables: WyckoffTables, dim: int):
        super().__init__()
        self.species = nn.Embedding(MAX_Z, dim)
        self.group = nn.Embedding(231, dim)
        self.wyckoff = WyckoffEmbedding(tables, dim)
        self.fourier = TorusFourier()
        self.coords = nn.Linear(3 * self.fourier.dim, dim)
        self.share = nn.Linear(1, dim)

    def forward(self, data: Data) -> Tensor:
        """Return node states ``(N, dim)``."""
        return (
            self.species(data.species)
            + self.group(data.number)
            + self.wyckoff(data.number, data.wyckoff)
            + self.coords(self.fourier(data.coords))
            + self.share(data.share[:, None])
        )


class RegularMessagePassing(MessagePassing):
    """Message passing on a graph with K edges per node, sorted by target.

    The sum over a node's edges is then a reshape and a sum, with no scatter.
    """

    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int) -> Tensor:
        """Sum messages ``(N * K, F)`` to ``(N, F)``."""
        return inputs.view(dim_size, -1, inputs.shape[-1]).sum(1)


class OrbitPooling(nn.Module):
    """Pool node states to crystals: mean and soft attention, weighted by multiplicity.

    With these weights the quotient graph gives exactly what the full periodic graph
    gives under plain mean and attention pooling.

    Args:
        dim: size of node states.
        num_heads: attention heads.
    """

    def __init__(self, dim: int, num_heads: int = 8):
        super().__init__()
        self.score = nn.Linear(dim, num_heads)
        self.out_dim = dim * (num_heads + 1)

    def forward(self, state: Tensor, data: Data) -> Tensor:
        """Map ``(N, dim)`` to ``(B, out_dim)``."""
        state = state.float()
        score = self.score(state).float().clamp(-15, 15).exp() * data.share[:, None]
        size = (data.num_crystals, score.shape[1])
        total = score.new_zeros(size).index_add_(0, data.owner, score)
        weight = score / total[data.owner]
        weight = torch.cat([data.share[:, None], weight], 1)
        spread = (weight[:, :, None] * state[:, None, :]).flatten(1)
        pooled = spread.new_zeros(data.num_crystals, spread.shape[1])
        return pooled.index_add_(0, data.owner, spread)


class Encoder(nn.Module):
    """Base class: a subclass fills in :meth:`update`, the node states.

    Args:
        tables: symmetry tables.
        dim: size of node states.
    """

    def __init__(self, tables: WyckoffTables, dim: int):
        super().__init__()
        self.embedding = NodeEmbedding(tables, dim)
        self.pooling = OrbitPooling(dim)
        self.out_dim = self.pooling.out_dim

    def update(self, state: Tensor, data: Data) -> Tensor:
        """Pass messages: ``(N, dim)`` to ``(N, dim)``."""
        raise NotImplementedError

    def forward(self, data: Data) -> Tensor:
        """Map an orbit graph to crystal vectors ``(B, out_dim)``."""
        return self.pooling(self.update(self.embedding(data), data), data)
