"""Refining what a decoder made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data

from crystalvae.generation.options import TOO_SHORT
from crystalvae.generation.placement import shortest_distances
from crystalvae.refinement.neighbors import Sites
from crystalvae.screening.bonds import bond_limits

if TYPE_CHECKING:
    from crystalvae.generation.options import Generated, Refinement
    from crystalvae.refinement.network import Refiner

CHUNK = {"cpu": 400, "cuda": 20_000}
"""Sites at a time: what a core's cache holds, or a GPU's memory."""


@torch.no_grad()
def refine(
    refiner: Refiner, found: Generated, how: Refinement, min_distance: float
) -> None:
    """Refine complete crystals in place, and note their residuals.

    What stays above the limit, has too short bonds, or atoms closer than decoding
    allows, descends again from where it came to, as often as ``how`` says. Atoms on top
    of each other come apart in this way. Of its descents a crystal keeps the one that
    ended with the smallest residual. One whose atoms were too close at the end of each
    stays as it was decoded; its residual is infinite. One that ends well does not
    collide any more.

    Args:
        refiner: the network.
        found: the crystals.
        how: how.
        min_distance: of :class:`~crystalvae.generation.options.SamplingOptions`.
    """
    limits = shortest_distances(min_distance).to(found.lattice.device)
    bonds = torch.from_numpy(bond_limits(how.bonds)).to(limits)
    usable = found.complete.nonzero().squeeze(1)
    pending = usable[found.num_sites[usable].argsort(stable=True)]
    best = found.lattice.clone(), found.frac_coords.clone()
    lowest = torch.full_like(found.residual, torch.inf)
    levels = [(how.noise, how.strain)]
    levels += [(how.repeat_noise, how.repeat_strain)] * how.repeats
    for turn, (noise, strain) in enumerate(levels):
        for rows in _chunks(pending, found.num_sites[pending]):
            found.residual[rows] = _descend(
                refiner, found, rows, how, noise, strain, limits, bonds
            )
        better = pending[found.residual[pending] < lowest[pending]]
        best[0][better], best[1][better] = (
            found.lattice[better],
            found.frac_coords[better],
        )
        lowest[better] = found.residual[better]
        residual = found.residual[pending]
        again = how.doubts(residual)
        if turn >= how.close_repeats:
            again &= ~how.stuck(residual)
        pending = pending[again]
    found.lattice[usable], found.frac_coords[usable] = best[0][usable], best[1][usable]
    found.residual[usable] = lowest[usable]
    found.collides[usable] &= lowest[usable].isinf()


def _chunks(rows: Tensor, num_sites: Tensor) -> list[Tensor]:
    """Crystals in parts of about as many sites as suit the device."""
    size = CHUNK.get(rows.device.type, CHUNK["cpu"])
    part = (num_sites.cumsum(0) - 1) // size
    return list(
        rows.split(torch.unique_consecutive(part, return_counts=True)[1].tolist())
    )


def _descend(
    refiner: Refiner,
    found: Generated,
    rows: Tensor,
    how: Refinement,
    noise: float,
    strain: float,
    limits: Tensor,
    bonds: Tensor,
) -> Tensor:
    """One descent of some crystals in place.

    What comes out with numbers that are not finite stays as it was.

    Returns:
        Residuals ``(len(rows),)``, infinite where atoms are too close or a number is
        not finite, :data:`~crystalvae.generation.options.TOO_SHORT` more where bonds
        are too short.
    """
    slot = torch.arange(found.wyckoff.shape[1], device=rows.device)
    mask = slot < found.num_sites[rows][:, None]
    sites = Sites.padded(
        found.number[rows], mask, found.wyckoff[rows], found.atomic_numbers[rows]
    )
    coords = found.frac_coords[rows]
    lattice, moved = refiner.refine(
        sites,
        found.lattice[rows],
        coords[mask],
        passes=how.passes,
        noise=noise,
        strain_noise=strain,
    )
    data = refiner.graph(sites, lattice, moved)
    residual = refiner.residual(data, sites, lattice, moved, how.levels)
    lost = ~torch.isfinite(moved).all(1)
    sound = torch.isfinite(residual) & ~_any_site(lost, data)
    coords[mask] = moved
    found.lattice[rows[sound]] = lattice[sound]
    found.frac_coords[rows[sound]] = coords[sound]
    if how.bonds:
        residual = residual + TOO_SHORT * _touches(data, bonds)
    return residual.masked_fill(~sound | _touches(data, limits), torch.inf)


def _touches(data: Data, limits: Tensor) -> Tensor:
    """Whether atoms of a crystal are closer than ``limits`` allow, ``(B,)``."""
    source = data.species[data.edge_index[0]].view_as(data.distance)
    close = (data.distance < limits[data.species[:, None], source]).any(1)
    return _any_site(close, data)


def _any_site(flags: Tensor, data: Data) -> Tensor:
    """Which crystals ``(B,)`` have a site that is flagged, from ``(N,)``."""
    hits = torch.zeros(data.num_crystals, device=flags.device)
    return hits.index_add_(0, data.owner, flags.float()) > 0
