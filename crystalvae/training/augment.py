"""Crystals that training never saw: other elements, other coordinates, other cells.

At small β the model should be a faithful copier of any crystal, not only of likely
ones. Half of the crystals that are trained there get some elements exchanged at random,
or their free coordinates and cell disturbed; the group and the Wyckoff positions stay.
At large β nothing is changed, so what is generated follows the data.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from crystalvae.batch import CrystalBatch
from crystalvae.geometry.lattice import complete_coords
from crystalvae.nn.wyckoff import MAX_Z, WyckoffTables


def exchange_elements(
    batch: CrystalBatch,
    chosen: Tensor,
    frequency: Tensor,
    generator: torch.Generator,
    share: float = 0.5,
) -> CrystalBatch:
    """Replace elements of some crystals by others, drawn by their frequency.

    Args:
        batch: the crystals.
        chosen: which of them to change ``(B,)``.
        frequency: weight of each atomic number ``(119,)``, 0 for those never drawn.
        generator: source of randomness, on the CPU.
        share: probability that an element is replaced.

    Returns:
        A batch whose composition and sites are sorted again.
    """
    size, slots = batch.comp_element.shape
    device = batch.number.device
    # distinct elements by Gumbel top-k over those that the crystal does not have
    uniform = torch.rand(size, MAX_Z, generator=generator).clamp(1e-9, 1 - 1e-7)
    score = frequency.clamp(min=1e-12).log() - (-uniform.log()).log()
    score = score.masked_fill(frequency <= 0, -1e9).to(device)
    score = score.scatter(1, batch.comp_element, -1e9)
    fresh = score.topk(slots, dim=1).indices
    replaced = torch.rand(size, slots, generator=generator).to(device) < share
    replaced &= chosen[:, None] & (batch.comp_element > 0)
    element = torch.where(replaced, fresh, batch.comp_element)

    same = batch.comp_element[:, None, :] == batch.atomic_numbers[..., None]
    place = same.float().argmax(-1)
    species = torch.gather(element, 1, place) * batch.site_mask
    order = torch.where(element > 0, element, MAX_Z + 1).argsort(1)
    changed = dataclasses.replace(
        batch,
        comp_element=torch.gather(element, 1, order),
        comp_count=torch.gather(batch.comp_count, 1, order),
        atomic_numbers=species,
    )
    return _sort_sites(changed)


def _sort_sites(batch: CrystalBatch) -> CrystalBatch:
    """Sort sites by (letter, element), keeping the order among equal ones."""
    key = batch.wyckoff * 256 + batch.atomic_numbers
    key = key.masked_fill(~batch.site_mask, 1 << 20)
    order = key.argsort(dim=1, stable=True)
    inverse = order.argsort(1)

    def rows(values: Tensor) -> Tensor:
        index = order.view(*order.shape, *(1,) * (values.dim() - 2))
        return torch.gather(values, 1, index.expand_as(values))

    neighbor = batch.neighbor.flatten(1)
    neighbor = torch.gather(inverse, 1, neighbor).view_as(batch.neighbor)
    return dataclasses.replace(
        batch,
        wyckoff=rows(batch.wyckoff),
        atomic_numbers=rows(batch.atomic_numbers),
        frac_coords=rows(batch.frac_coords),
        multiplicity=rows(batch.multiplicity),
        site_mask=rows(batch.site_mask),
        neighbor=rows(neighbor) * rows(batch.site_mask)[..., None],
        distance=rows(batch.distance),
        direction=rows(batch.direction),
    )


def disturb(
    batch: CrystalBatch,
    chosen: Tensor,
    tables: WyckoffTables,
    generator: torch.Generator,
    coord_noise: float = 0.03,
    lattice_noise: float = 0.05,
) -> CrystalBatch:
    """Shift free coordinates and strain the cell of some crystals within their group.

    Args:
        batch: the crystals.
        chosen: which of them to change ``(B,)``.
        tables: symmetry tables.
        generator: source of randomness, on the CPU.
        coord_noise: standard deviation of the shifts, fractional.
        lattice_noise: standard deviation on the log-Cholesky coordinates.
    """
    device = batch.number.device
    shift = torch.randn(batch.frac_coords.shape, generator=generator).to(device)
    active = chosen[:, None] & batch.site_mask
    number = batch.number[:, None].expand_as(batch.wyckoff)[active]
    moved = batch.frac_coords[active] + coord_noise * shift[active]
    coords = batch.frac_coords.clone()
    coords[active] = tables.project(number, batch.wyckoff[active], moved)
    strain = torch.randn(batch.lattice_coords.shape, generator=generator).to(device)
    strained = batch.lattice_coords + lattice_noise * strain * chosen[:, None]
    lattice = complete_coords(strained, tables.system[batch.number])
    lattice = torch.where(chosen[:, None], lattice, batch.lattice_coords)
    return dataclasses.replace(batch, frac_coords=coords, lattice_coords=lattice)
