"""Where atoms are while a crystal is being built, and what is too close to what."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import torch
from torch import Tensor

from crystalvae.nn.wyckoff import NUM_LETTERS, orbit_operations
from crystalvae.screening.base import element_array
from crystalvae.screening.distance import radius_share


@cache
def shortest_distances(min_distance: float) -> Tensor:
    """Shortest allowed distance of two elements in Å, ``(119, 119)``.

    What the check of radii in :mod:`crystalvae.screening.distance` asks for, with radii
    of B. Cordero et al. (2008), at least ``min_distance``.
    """
    radii, species = element_array("radius"), np.arange(119)
    share = radius_share(species[:, None], species)
    limits = np.maximum(share * (radii[:, None] + radii), min_distance)
    return torch.from_numpy(limits).float()


def expand_orbits(
    number: Tensor, letter: Tensor, coords: Tensor
) -> tuple[Tensor, Tensor]:
    """All atoms of one orbit a crystal.

    Args:
        number: ``(M,)`` space-group numbers.
        letter: ``(M,)`` letter indices.
        coords: representatives on the first triplet ``(M, 3)``.

    Returns:
        Fractional coordinates ``(M, A, 3)``, the representative first, and a mask of
        the real ones ``(M, A)``.
    """
    rotation, translation, start = (t.to(coords.device) for t in orbit_operations())
    row = number * NUM_LETTERS + letter
    size = start[row + 1] - start[row]
    slot = torch.arange(int(size.max()), device=coords.device)
    mask = slot < size[:, None]
    index = torch.where(mask, start[row][:, None] + slot, start[row][:, None])
    points = torch.einsum("maij,mj->mai", rotation[index], coords) + translation[index]
    return points - torch.floor(points), mask


class Placement:
    """Atoms placed so far in each of B crystals under construction.

    Args:
        lattice: conventional lattices ``(B, 3, 3)`` in Å.
        capacity: largest number of atoms in a conventional cell.
        limits: shortest allowed distance of two elements in Å, ``(119, 119)``.
    """

    def __init__(self, lattice: Tensor, capacity: int, limits: Tensor):
        self.lattice = lattice
        size = len(lattice)
        self.coords = lattice.new_zeros(size, capacity, 3)
        self.species = torch.zeros(size, capacity, dtype=torch.long).to(lattice.device)
        self.count = torch.zeros(size, dtype=torch.long, device=lattice.device)
        self.limits = limits.to(lattice.device)
        shifts = list(itertools.product((-1, 0, 1), repeat=3))
        shifts.sort(key=lambda shift: shift != (0, 0, 0))
        self.shifts = torch.tensor(shifts, dtype=lattice.dtype, device=lattice.device)

    def _too_close(
        self,
        rows: Tensor,
        delta: Tensor,
        limit: Tensor,
        mask: Tensor,
        skip_self: bool,
    ) -> Tensor:
        """Whether any image of a difference ``(M, A, 3)`` is shorter than allowed."""
        delta = delta - torch.round(delta)
        images = (delta[:, :, None] + self.shifts).flatten(1, 2)  # (M, A * 27, 3)
        squared = (images @ self.lattice[rows]).square().sum(-1)
        squared = squared.view(len(rows), -1, len(self.shifts))
        if skip_self:
            squared[:, 0, 0] = torch.inf
        return ((squared.amin(-1) < limit**2) & mask).any(-1)

    def collides(
        self, rows: Tensor, orbit: Tensor, mask: Tensor, species: Tensor
    ) -> Tensor:
        """Whether a new orbit touches itself, its images or what is placed.

        By symmetry the representative alone needs looking at.

        Args:
            rows: crystals ``(M,)``.
            orbit: atoms of the orbit, representative first, ``(M, A, 3)``.
            mask: real atoms ``(M, A)``.
            species: element of the orbit ``(M,)``.
        """
        here = orbit[:, :1]
        own = self.limits[species, species][:, None].expand_as(mask)
        hit = self._too_close(rows, orbit - here, own, mask, skip_self=True)
        most = int(self.count[rows].max())
        if most:
            placed = self.coords[rows, :most]
            limit = self.limits[species[:, None], self.species[rows, :most]]
            real = torch.arange(most, device=here.device) < self.count[rows][:, None]
            hit |= self._too_close(rows, placed - here, limit, real, skip_self=False)
        return hit

    def add(self, rows: Tensor, orbit: Tensor, mask: Tensor, species: Tensor) -> None:
        """Place orbits, as in :meth:`collides`."""
        slot = self.count[rows][:, None] + torch.arange(
            orbit.shape[1], device=orbit.device
        )
        crystal = rows[:, None].expand_as(slot)
        self.coords[crystal[mask], slot[mask]] = orbit[mask]
        element = species[:, None].expand_as(slot)
        self.species[crystal[mask], slot[mask]] = element[mask]
        self.count[rows] += mask.sum(1)
