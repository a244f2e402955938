"""Refining what a decoder made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data

from crystalvae.generation.placement import shortest_distances
from crystalvae.refinement.neighbors import Sites

if TYPE_CHECKING:
    from crystalvae.generation.options import Generated, Refinement
    from crystalvae.refinement.network import Refiner

CHUNK = 256
"""Crystals at a time; all pairs of their atoms are looked at."""


@torch.no_grad()
def refine(
    refiner: Refiner, found: Generated, how: Refinement, min_distance: float
) -> None:
    """Refine complete crystals in place, and note their residuals.

    One that comes out with atoms closer than decoding allows, or with a number that is
    not finite, stays as it was; its residual is infinite.

    Args:
        refiner: the network.
        found: the crystals.
        how: how.
        min_distance: of :class:`~crystalvae.generation.options.SamplingOptions`.
    """
    limits = shortest_distances(min_distance).to(found.lattice.device)
    usable = (found.complete & ~found.collides).nonzero().squeeze(1)
    order = usable[found.num_sites[usable].argsort(stable=True)]
    for rows in order.split(CHUNK) if len(order) else ():
        slot = torch.arange(found.wyckoff.shape[1], device=rows.device)
        mask = slot < found.num_sites[rows][:, None]
        sites = Sites(
            number=found.number[rows],
            owner=mask.nonzero()[:, 0],
            wyckoff=found.wyckoff[rows][mask],
            species=found.atomic_numbers[rows][mask],
        )
        start = found.lattice[rows], found.frac_coords[rows][mask]
        lattice, moved = refiner.refine(
            sites,
            *start,
            passes=how.passes,
            noise=how.noise,
            strain_noise=how.strain,
        )
        data = refiner.graph(sites, lattice, moved)
        residual = refiner.residual(data, sites, lattice, moved)
        lost = ~torch.isfinite(moved).all(1)
        lost = torch.zeros_like(residual).index_add_(0, sites.owner, lost.float())
        good = ~_touches(data, limits) & (lost == 0) & torch.isfinite(residual)
        found.residual[rows] = residual.masked_fill(~good, torch.inf)
        coords = found.frac_coords[rows]
        coords[mask] = moved
        found.lattice[rows[good]] = lattice[good]
        found.frac_coords[rows[good]] = coords[good]


def _touches(data: Data, limits: Tensor) -> Tensor:
    """Whether atoms of a crystal are closer than ``limits`` allow, ``(B,)``."""
    source = data.species[data.edge_index[0]].view_as(data.distance)
    close = (data.distance < limits[data.species[:, None], source]).any(1)
    hits = torch.zeros(data.num_crystals, device=close.device)
    return hits.index_add_(0, data.owner, close.float()) > 0
