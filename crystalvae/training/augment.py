"""Crystals that training never saw: other elements, fewer sites, other coordinates.

At small β the model should be a faithful copier of any crystal, not only of likely
ones. A share of the crystals that are trained there get some elements exchanged at
random, some orbits taken away, or their free coordinates and cell disturbed; the group
stays. At large β nothing is changed, so what is generated follows the data.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from crystalvae.batch import CrystalBatch
from crystalvae.geometry.lattice import complete_coords, coords_to_lattice
from crystalvae.nn.wyckoff import MAX_Z, WyckoffTables
from crystalvae.refinement.neighbors import Sites, orbit_neighbors


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
    replaced &= score.gather(1, fresh) > -1e8  # where too few elements are to be had
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


def drop_sites(
    batch: CrystalBatch,
    chosen: Tensor,
    centring: Tensor,
    generator: torch.Generator,
    share: float = 0.3,
) -> CrystalBatch:
    """Take orbits away from some crystals and shrink these to the same density.

    Edges to what was taken away get the cutoff's distance, where they do not count.

    Args:
        batch: the crystals.
        chosen: which of them to change ``(B,)``.
        centring: lattice points of the conventional cell by group number ``(231,)``.
        generator: source of randomness, on the CPU.
        share: probability that a site goes; one always stays.
    """
    device = batch.number.device
    drawn = torch.rand(batch.site_mask.shape, generator=generator).to(device) < share
    gone = drawn & chosen[:, None] & batch.site_mask
    gone &= (batch.site_mask & ~gone).any(1, keepdim=True)
    lost = (batch.multiplicity * gone) // centring[batch.number][:, None]
    same = batch.comp_element[:, None, :] == batch.atomic_numbers[..., None]
    count = batch.comp_count - (same * lost[..., None]).sum(1)
    element = batch.comp_element * (count > 0)
    order = torch.where(element > 0, element, MAX_Z + 1).argsort(1)
    num_atoms = batch.num_atoms - (batch.multiplicity * gone).sum(1)
    scale = (num_atoms / batch.num_atoms) ** (1 / 3)
    growth = torch.cat(
        [scale.log()[:, None].expand(-1, 3), scale.new_zeros(len(scale), 3)], 1
    )

    rows = torch.arange(len(batch), device=device)[:, None, None]
    cut = batch.distance[..., -1:]
    cut_off = gone[rows, batch.neighbor]
    own = torch.arange(gone.shape[1], device=device)[:, None]
    neighbor = torch.where(cut_off, own, batch.neighbor)
    far = torch.where(cut_off, cut, batch.distance)
    far, rank = far.sort(dim=-1, stable=True)
    kept = batch.site_mask & ~gone

    def keep(values: Tensor) -> Tensor:
        return values * kept.view(*kept.shape, *(1,) * (values.dim() - 2))

    changed = dataclasses.replace(
        batch,
        lattice_coords=batch.lattice_coords + growth,
        num_atoms=num_atoms,
        num_sites=kept.sum(1),
        comp_element=torch.gather(element, 1, order),
        comp_count=torch.gather(count * (element > 0), 1, order),
        wyckoff=keep(batch.wyckoff),
        atomic_numbers=keep(batch.atomic_numbers),
        frac_coords=keep(batch.frac_coords),
        multiplicity=keep(batch.multiplicity),
        site_mask=kept,
        neighbor=keep(torch.gather(neighbor, -1, rank)),
        distance=keep(far) * scale[:, None, None],
        direction=keep(
            torch.gather(batch.direction, 2, rank[..., None].expand_as(batch.direction))
        ),
    )
    return _sort_sites(changed)


def disturb(
    batch: CrystalBatch,
    chosen: Tensor,
    tables: WyckoffTables,
    generator: torch.Generator,
    coord_noise: float = 0.03,
    lattice_noise: float = 0.05,
) -> CrystalBatch:
    """Shift free coordinates and strain the cell of some crystals within their group.

    Their neighbours are found anew; one of which too few are near stays as it was.

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
    changed = dataclasses.replace(batch, frac_coords=coords, lattice_coords=lattice)
    graph, whole = _graph_of(changed, chosen, tables)
    kept = {
        name: torch.where(
            whole.view(-1, *(1,) * (value.dim() - 1)),
            value,
            getattr(batch, name),
        )
        for name, value in {
            "frac_coords": coords,
            "lattice_coords": lattice,
            **graph,
        }.items()
    }
    return dataclasses.replace(batch, **kept)


def _graph_of(
    batch: CrystalBatch, chosen: Tensor, tables: WyckoffTables
) -> tuple[dict[str, Tensor], Tensor]:
    """Neighbours of the sites of some crystals, those of the others as they are.

    Returns:
        ``neighbor``, ``distance`` and ``direction``, and which crystals ``(B,)`` have
        as many neighbours as these hold.
    """
    mask = batch.site_mask & chosen[:, None]
    rows = chosen.nonzero().squeeze(1)
    own = mask[rows]
    sites = Sites.padded(
        batch.number[rows], own, batch.wyckoff[rows], batch.atomic_numbers[rows]
    )
    found = orbit_neighbors(
        sites,
        coords_to_lattice(batch.lattice_coords[rows]),
        batch.frac_coords[mask],
        tables,
        batch.neighbor.shape[-1],
    )
    start = own.sum(1).cumsum(0) - own.sum(1)
    source = found.edge_index[0].view_as(found.distance)
    values = {
        "neighbor": source - start[sites.owner][:, None],
        "distance": found.distance,
        "direction": found.direction,
    }
    graph = {}
    for name, value in values.items():
        graph[name] = getattr(batch, name).clone()
        graph[name][mask] = value
    missing = (found.direction == 0).all(-1).any(-1)
    whole = torch.ones_like(chosen)
    whole[rows[sites.owner[missing]]] = False
    return graph, whole
