"""How relaxed crystals look: residuals of a refiner, for any crystals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from crystalvae.refinement.neighbors import Sites

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.refinement.network import Refiner
    from crystalvae.refinement.trunk import OrbitTrunk

LEVELS = 3
"""Levels of noise at which crystals are judged."""
CHUNK = 64
"""Crystals at a time."""


def refiner_inputs(crystals: Sequence[AsymmetricUnit]) -> tuple[Sites, Tensor, Tensor]:
    """What a refiner takes of B crystals with N sites.

    Returns:
        Sites, lattices ``(B, 3, 3)`` in Å, Cholesky form, and fractional coordinates
        ``(N, 3)``.
    """
    size = torch.tensor([len(crystal.wyckoffs) for crystal in crystals])
    wyckoffs = np.concatenate([crystal.wyckoffs for crystal in crystals])
    species = np.concatenate([crystal.atomic_numbers for crystal in crystals])
    sites = Sites(
        number=torch.tensor([crystal.number for crystal in crystals]),
        owner=torch.repeat_interleave(size),
        wyckoff=torch.as_tensor(wyckoffs).long(),
        species=torch.as_tensor(species).long(),
    )
    lattice = torch.as_tensor(np.stack([c.lattice for c in crystals])).float()
    coords = torch.as_tensor(np.concatenate([c.frac_coords for c in crystals])).float()
    return sites, lattice, coords


def graphs_in_chunks(
    network: OrbitTrunk, crystals: Sequence[AsymmetricUnit]
) -> Iterator[tuple[list[int], Sites, Tensor, Tensor, Data]]:
    """Crystals of similar length together, on the network's device.

    Yields:
        Their rows, sites, lattices ``(B, 3, 3)`` in Å, fractional coordinates ``(N,
        3)`` and the graph that the network looks at.
    """
    device = next(network.parameters()).device
    order = sorted(range(len(crystals)), key=lambda i: len(crystals[i].wyckoffs))
    for start in range(0, len(order), CHUNK):
        rows = order[start : start + CHUNK]
        sites, lattice, coords = refiner_inputs([crystals[row] for row in rows])
        sites, lattice, coords = sites.to(device), lattice.to(device), coords.to(device)
        yield rows, sites, lattice, coords, network.graph(sites, lattice, coords)


@torch.no_grad()
def residuals(
    refiner: Refiner, crystals: Sequence[AsymmetricUnit], levels: int = LEVELS
) -> list[float]:
    """What a refiner would change of each crystal, in units of the noise it assumes.

    See :meth:`crystalvae.refinement.network.Refiner.residual`. The refiner learned from
    relaxed crystals where atoms belong; what it would change much is likely to change
    much when it is relaxed, and to be unstable.

    Args:
        refiner: trained on such crystals.
        crystals: asymmetric units in canonical form.
        levels: of noise.

    Returns:
        One number a crystal, infinite where there is none.
    """
    found = [math.inf] * len(crystals)
    for rows, sites, lattice, coords, graph in graphs_in_chunks(refiner, crystals):
        values = refiner.residual(graph, sites, lattice, coords, levels).tolist()
        for row, value in zip(rows, values):
            found[row] = value if math.isfinite(value) else math.inf
    return found
