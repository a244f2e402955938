"""Orbit graphs of many crystals at once, for geometries that change."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Data

from crystalvae.nn.wyckoff import NUM_LETTERS, WyckoffTables, orbit_operations


@dataclass
class Sites:
    """The sites of B crystals in one row, without padding."""

    number: Tensor
    """Space group of each crystal ``(B,)``."""
    owner: Tensor
    """Crystal of each site, ascending, ``(N,)``."""
    wyckoff: Tensor
    """Letter index of each site ``(N,)``."""
    species: Tensor
    """Element of each site ``(N,)``."""

    @classmethod
    def padded(
        cls, number: Tensor, mask: Tensor, wyckoff: Tensor, species: Tensor
    ) -> Sites:
        """From tables with a row for each crystal.

        Args:
            number: space groups ``(B,)``.
            mask: which places hold sites ``(B, S)``.
            wyckoff: letter indices ``(B, S)``.
            species: elements ``(B, S)``.
        """
        return cls(number, mask.nonzero()[:, 0], wyckoff[mask], species[mask])

    def to(self, device: torch.device | str) -> Sites:
        """The same on another device."""
        return Sites(
            self.number.to(device),
            self.owner.to(device),
            self.wyckoff.to(device),
            self.species.to(device),
        )

    def share(self, tables: WyckoffTables) -> Tensor:
        """Multiplicity over the atoms of the crystal, ``(N,)``."""
        atoms = tables.multiplicity[self.number[self.owner], self.wyckoff].float()
        total = atoms.new_zeros(len(self.number)).index_add_(0, self.owner, atoms)
        return atoms / total[self.owner]


def _counted(size: Tensor) -> tuple[Tensor, Tensor]:
    """Owner and place within the owner of Σ ``size`` things."""
    owner = torch.repeat_interleave(size)
    start = size.cumsum(0) - size
    place = torch.arange(len(owner), device=size.device)
    return owner, place - start.index_select(0, owner)


def orbit_neighbors(
    sites: Sites,
    lattice: Tensor,
    coords: Tensor,
    tables: WyckoffTables,
    num_neighbors: int,
) -> Data:
    """The orbit graph of :func:`crystalvae.encoders.base.orbit_data`, made anew.

    Args:
        sites: the sites.
        lattice: conventional lattices in Å ``(B, 3, 3)``.
        coords: representatives on the first triplet ``(N, 3)``.
        tables: symmetry tables.
        num_neighbors: neighbours K of each site. A site with fewer within reach has
            more at the reach, where the envelope is zero.

    Returns:
        Data with ``edge_index``, ``distance`` ``(N, K)`` ascending, ``direction``
        ``(N, K, 3)``, ``species``, ``owner``, ``share`` and ``num_crystals``.
    """
    number, owner = sites.number, sites.owner
    group = number[owner]
    centring = tables.centring[number]
    basis = tables.primitive[number]
    cell = basis @ lattice
    inverse_basis = torch.linalg.inv(basis)

    rotation, translation, start = (t.to(coords.device) for t in orbit_operations())
    first = start[group * NUM_LETTERS + sites.wyckoff]
    atoms = tables.multiplicity[group, sites.wyckoff] // centring[owner]
    site, place = _counted(atoms)
    first_atom = atoms.cumsum(0) - atoms
    operation = first[site] + place
    points = torch.einsum("aij,aj->ai", rotation[operation], coords[site])
    points = points + translation[operation]
    crystal = owner[site]
    points = torch.einsum("ai,aij->aj", points, inverse_basis[crystal])
    centres = torch.einsum("ai,aij->aj", coords, inverse_basis[owner])

    num_atoms = torch.bincount(crystal, minlength=len(number))
    volume = torch.linalg.det(cell).abs()
    reach = 0.5 + (1.2 * num_neighbors * volume / (math.pi * num_atoms)) ** (1 / 3)
    heights = torch.linalg.inv(cell).square().sum(1).rsqrt()
    steps = torch.floor(reach[:, None] / heights + 0.5).long().clamp(max=8)
    images = (2 * steps + 1).prod(1)

    # all images of a cell, then all pairs of site and atom, then all triples
    crystal_of_image, rank = _counted(images)
    shift = []
    for axis in range(3):
        width = 2 * steps[crystal_of_image, axis] + 1
        shift.append(rank % width - steps[crystal_of_image, axis])
        rank = rank // width
    shift = torch.stack(shift, -1).to(cell.dtype)
    shift = torch.einsum("ti,tij->tj", shift, cell[crystal_of_image])
    atom_start = num_atoms.cumsum(0) - num_atoms
    site_of_pair, rank = _counted(num_atoms[owner])
    here = owner[site_of_pair]
    atom_of_pair = atom_start[here] + rank
    delta = points[atom_of_pair] - centres[site_of_pair]
    delta = torch.einsum("pi,pij->pj", delta - torch.round(delta), cell[here])
    image_start = images.cumsum(0) - images
    pair, rank = _counted(images[here])
    image = image_start[here].index_select(0, pair) + rank
    vector = delta.index_select(0, pair) + shift.index_select(0, image)
    distance = vector.square().sum(-1).clamp(min=1e-12).sqrt()
    centre, atom = (t.index_select(0, pair) for t in (site_of_pair, atom_of_pair))
    here = here.index_select(0, pair)
    # the first atom of each site is its representative; its zero image comes in the
    # middle of all images
    first = (first_atom[site_of_pair] == atom_of_pair).index_select(0, pair)
    own = first & (rank == (images.index_select(0, here) - 1) // 2)
    near = ((distance < reach.index_select(0, here)) & ~own).nonzero().squeeze(1)

    key = centre[near].double() * 1e3 + distance[near].double()
    near = near[key.argsort()]
    found = torch.bincount(centre[near], minlength=len(owner))
    _, rank = _counted(found)
    kept = rank < num_neighbors
    near, rank = near[kept], rank[kept]
    target = centre[near]
    size = (len(owner), num_neighbors)
    lengths = reach[owner][:, None].repeat(1, num_neighbors)
    lengths[target, rank] = distance[near]
    unit = coords.new_zeros(*size, 3)
    unit[target, rank] = vector[near] / distance[near][:, None]
    source = torch.arange(len(owner), device=owner.device)[:, None].repeat(1, size[1])
    source[target, rank] = site[atom[near]]
    own = torch.arange(len(owner), device=owner.device)[:, None].expand(size)
    return Data(
        edge_index=torch.stack([source.flatten(), own.flatten()]),
        num_nodes=len(owner),
        species=sites.species,
        share=sites.share(tables),
        owner=owner,
        distance=lengths,
        direction=unit,
        num_crystals=len(number),
    )
