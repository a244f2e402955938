"""Noise on crystals that keeps their space group, and how well it was taken away."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from crystalvae.batch import CrystalBatch
from crystalvae.geometry.lattice import coords_to_lattice
from crystalvae.geometry.torus import torus_difference
from crystalvae.nn.wyckoff import WyckoffTables
from crystalvae.refinement.neighbors import Sites
from crystalvae.refinement.network import Refiner, strain_between


@dataclass
class Errors:
    """Squared errors of each crystal ``(B,)``, before and after one pass."""

    shift: Tensor
    """Mean over atoms of the squared displacement that is left, Å²."""
    shift_before: Tensor
    """The same without the refiner."""
    strain: Tensor
    """Squared Frobenius norm of the strain that is left."""
    strain_before: Tensor
    """The same without the refiner."""

    def loss(self, sigma: Tensor, tau: Tensor) -> Tensor:
        """Errors in units of the noise, ``(B,)``."""
        return self.shift / sigma**2 + self.strain / tau**2


def sites_of(batch: CrystalBatch) -> tuple[Sites, Tensor]:
    """The sites of a batch without padding, and their coordinates ``(N, 3)``."""
    mask = batch.site_mask
    sites = Sites.padded(batch.number, mask, batch.wyckoff, batch.atomic_numbers)
    return sites, batch.frac_coords[mask]


def disturb(
    refiner: Refiner,
    sites: Sites,
    lattice: Tensor,
    coords: Tensor,
    sigma: Tensor,
    tau: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Shift atoms within their positions and strain cells within their groups.

    Args:
        refiner: knows the projections.
        sites: the sites.
        lattice: ``(B, 3, 3)`` in Å.
        coords: ``(N, 3)``.
        sigma: standard deviation of each crystal's displacements along each direction
            that a position allows, Å, ``(B,)``.
        tau: standard deviation of a diagonal strain of each, ``(B,)``.
        generator: source of randomness, on the CPU.

    Returns:
        Disturbed lattices and coordinates.
    """
    device = lattice.device
    shift = torch.randn(coords.shape, generator=generator).to(device)
    shift = shift * sigma[sites.owner][:, None]
    shift = within_positions(refiner.tables, sites, lattice, shift)
    noise = torch.randn(lattice.shape, generator=generator).to(device)
    strain = 0.5 * tau[:, None, None] * (noise + noise.mT)
    return refiner.move(sites, lattice, coords, shift, strain, limited=False)


def within_positions(
    tables: WyckoffTables, sites: Sites, lattice: Tensor, shift: Tensor
) -> Tensor:
    """The part of displacements in Å ``(N, 3)`` that Wyckoff positions allow.

    An orthogonal projection on the lines and planes of the positions.

    Args:
        tables: symmetry tables.
        sites: the sites.
        lattice: ``(B, 3, 3)`` in Å.
        shift: the displacements.
    """
    number = sites.number[sites.owner]
    embed = tables.embed[number, sites.wyckoff]
    axes = lattice.mT[sites.owner] @ embed
    fixed = (~tables.free[number, sites.wyckoff]).to(axes.dtype)
    gram = axes.mT @ axes + torch.diag_embed(fixed)
    along = torch.linalg.solve(gram, axes.mT @ shift[:, :, None])
    return (axes @ along).squeeze(2)


def denoising_errors(
    refiner: Refiner,
    batch: CrystalBatch,
    sigma: Tensor,
    tau: Tensor,
    generator: torch.Generator,
) -> Errors:
    """Disturb a batch, look at it once, and compare with what was done.

    What no network could see, a common shift along polar axes, does not count.

    Args:
        refiner: the network.
        batch: real crystals.
        sigma: noise of each in Å, as in :func:`disturb`.
        tau: strain of each, likewise.
        generator: source of randomness, on the CPU.
    """
    sites, coords = sites_of(batch)
    lattice = coords_to_lattice(batch.lattice_coords)
    noisy_lattice, noisy = disturb(
        refiner, sites, lattice, coords, sigma, tau, generator
    )
    data = refiner.graph(sites, noisy_lattice, noisy)
    moved, strain = refiner(data, sigma, tau)
    strain = refiner.project_strain(sites.number, noisy_lattice, strain)
    back = refiner.centre(sites, data.share, torus_difference(coords, noisy))
    back = torch.einsum("ni,nij->nj", back, noisy_lattice[sites.owner])
    truth = strain_between(noisy_lattice, lattice)

    def of_atoms(error: Tensor) -> Tensor:
        squared = data.share * error.square().sum(1)
        return squared.new_zeros(len(batch)).index_add_(0, sites.owner, squared)

    def of_cells(error: Tensor) -> Tensor:
        return error.square().flatten(1).sum(1)

    return Errors(
        shift=of_atoms(moved - back),
        shift_before=of_atoms(back),
        strain=of_cells(strain - truth),
        strain_before=of_cells(truth),
    )
