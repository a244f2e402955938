"""Wyckoff positions as tensors, and an embedding that shares between groups."""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from crystalvae.symmetry.tables import symmetry_tables

NUM_GROUPS = 231
NUM_LETTERS = 27
MAX_Z = 119


@cache
def orbit_operations() -> tuple[Tensor, Tensor, Tensor]:
    """The maps of all Wyckoff positions, flat.

    Returns:
        Rotations ``(total, 3, 3)``, translations ``(total, 3)``, and the start of each
        position ``(231 * 27 + 1,)``; the first map of a position is the identity.
    """
    tables = symmetry_tables()
    rotations, translations = [], []
    start = np.zeros(NUM_GROUPS * NUM_LETTERS + 1, np.int64)
    for number in range(NUM_GROUPS):
        for letter in range(NUM_LETTERS):
            row = number * NUM_LETTERS + letter
            size = int(tables.multiplicity[number, letter])
            start[row + 1] = start[row] + size
            if size:
                rotation, translation = tables.orbit_ops(number, letter)
                rotations.append(rotation)
                translations.append(translation)
    return (
        torch.as_tensor(np.concatenate(rotations), dtype=torch.float),
        torch.as_tensor(np.concatenate(translations), dtype=torch.float),
        torch.from_numpy(start),
    )


class WyckoffTables(nn.Module):
    """The symmetry tables as buffers that follow the module to its device.

    All are indexed by space-group number (0 unused) and letter index; see
    :func:`crystalvae.symmetry.tables.symmetry_tables`.
    """

    def __init__(self):
        super().__init__()
        tables = symmetry_tables()

        def buffer(name: str, array: np.ndarray, dtype: torch.dtype) -> None:
            self.register_buffer(
                name, torch.as_tensor(np.ascontiguousarray(array), dtype=dtype), False
            )

        buffer("multiplicity", tables.multiplicity, torch.long)
        buffer("exists", tables.multiplicity > 0, torch.bool)
        buffer("dof", tables.dof, torch.long)
        buffer("free", tables.free, torch.bool)
        buffer("embed", tables.embed, torch.float)
        buffer("offset", tables.offset, torch.float)
        buffer("centring", tables.centring, torch.long)
        buffer("primitive", tables.primitive, torch.float)
        buffer("system", tables.system, torch.long)
        self.register_buffer("features", self._features(), False)

    def _features(self) -> Tensor:
        """What a position looks like: embedding map, offset, freedom, multiplicity."""
        phase = 2 * math.pi * self.offset[..., None] * torch.tensor([1.0, 2.0, 3.0])
        general = self.multiplicity.amax(-1, keepdim=True).clamp(min=1)
        share = (self.multiplicity / general)[..., None]
        system = torch.nn.functional.one_hot(self.system.clamp(min=0), 7).float()
        return torch.cat(
            [
                self.embed.flatten(-2),
                phase.sin().flatten(-2),
                phase.cos().flatten(-2),
                torch.nn.functional.one_hot(self.dof.clamp(min=0), 4).float(),
                share,
                share.clamp(min=1e-3).log(),
                (self.multiplicity.clamp(min=1).float()).log()[..., None],
                system[:, None].expand(-1, NUM_LETTERS, -1),
            ],
            -1,
        )

    def project(self, number: Tensor, letter: Tensor, coords: Tensor) -> Tensor:
        """Put coordinates exactly on the first triplet of their Wyckoff position.

        Args:
            number: space-group numbers ``(M,)``.
            letter: letter indices ``(M,)``.
            coords: fractional coordinates ``(M, 3)``; only the free ones matter.

        Returns:
            Coordinates in [0, 1), ``(M, 3)``.
        """
        embed = self.embed[number, letter]
        exact = torch.einsum("mij,mj->mi", embed, coords) + self.offset[number, letter]
        return exact - torch.floor(exact)


class WyckoffEmbedding(nn.Module):
    """Embedding of (space group, letter): a free vector plus one of its geometry.

    The free vector lets common positions be themselves; the part linear in the
    position's geometry carries over to groups that are rare in the data.

    Args:
        tables: the shared tables.
        dim: size of the embedding.
    """

    def __init__(self, tables: WyckoffTables, dim: int):
        super().__init__()
        exists = tables.exists
        row = torch.zeros(exists.shape, dtype=torch.long)
        row[exists] = torch.arange(1, int(exists.sum()) + 1)
        self.register_buffer("row", row, False)
        features = torch.cat([tables.features[:1, 0] * 0, tables.features[exists]])
        self.register_buffer("features", features, False)
        self.free = nn.Embedding(len(features), dim)
        self.shared = nn.Linear(features.shape[-1], dim)
        nn.init.normal_(self.free.weight, std=0.3)

    def table(self) -> Tensor:
        """Embeddings of all 1731 positions, ``(1 + 1731, dim)``; row 0 is for none."""
        return self.free.weight + self.shared(self.features)

    def look_up(self, table: Tensor, number: Tensor, letter: Tensor) -> Tensor:
        """Rows of :meth:`table`, or of something computed from it, ``(..., F)``.

        Args:
            table: ``(1 + 1731, F)``.
            number: space-group numbers, broadcastable with ``letter``.
            letter: letter indices.
        """
        return nn.functional.embedding(self.row[number, letter], table)

    def look_up_groups(self, table: Tensor, number: Tensor) -> Tensor:
        """All letters of each group: ``(B,)`` to ``(B, 27, F)``."""
        return nn.functional.embedding(self.row[number], table)

    def forward(self, number: Tensor, letter: Tensor) -> Tensor:
        """Embed positions given by broadcastable number and letter ``(...)``."""
        return self.look_up(self.table(), number, letter)
