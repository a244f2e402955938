"""A small equivariant network that moves atoms and strains the cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from crystalvae.encoders.gated import joint_states
from crystalvae.geometry.lattice import (
    bound_coords,
    cholesky_lattice,
    complete_coords,
    coords_to_lattice,
    lattice_to_coords,
    metric_tensor,
)
from crystalvae.geometry.torus import torus_difference
from crystalvae.nn.basic import mlp
from crystalvae.nn.wyckoff import WyckoffTables
from crystalvae.refinement.neighbors import Sites
from crystalvae.refinement.trunk import OrbitTrunk, TrunkConfig
from crystalvae.symmetry.tables import symmetry_tables

NUM_WAVES = 6
LAST_NOISE = 0.02
"""Å that the last pass assumes."""
LAST_STRAIN = 0.003
"""Strain that the last pass assumes."""
RESIDUAL_NOISE = 0.1
"""Å at which residuals are computed at one level of noise."""
RESIDUAL_RANGE = (0.03, 0.4)
"""Å, the first and the last of several levels."""
STRAIN_OF_NOISE = 0.1
"""Strain that goes with 1 Å where residuals are computed."""
_PAIRS = ((0, 0), (1, 1), (2, 2), (1, 0), (2, 0), (2, 1))


@dataclass(frozen=True)
class RefinerConfig(TrunkConfig):
    """Sizes of the refiner."""

    max_strain: float = 0.1
    """Largest strain (Frobenius norm) of one pass."""
    max_shift: float = 0.5
    """Largest shift of an atom in one pass, Å."""


@cache
def group_projectors() -> tuple[Tensor, Tensor]:
    """What a group leaves of a metric tensor and of a common shift.

    Returns:
        ``(231, 6, 6)`` on the metric's entries 11, 22, 33, 21, 31, 32, and
        ``(231, 3, 3)`` on fractional vectors: (1/P) Σ Wᵀ G W and (1/P) Σ W.
    """
    tables = symmetry_tables()
    metric, shift = np.zeros((231, 6, 6)), np.zeros((231, 3, 3))
    rows, columns = np.array(_PAIRS).T
    for number in range(1, 231):
        rotations = tables.point_rotations(number).astype(float)
        shift[number] = rotations.mean(0)
        flat = rotations.reshape(-1, 9)
        mean = (flat.T @ flat / len(flat)).reshape(3, 3, 3, 3)  # of W_ka W_lb
        mean = mean.transpose(1, 3, 0, 2)[rows, columns]
        mean = mean + mean.swapaxes(1, 2)
        metric[number] = mean[:, rows, columns] / np.where(rows == columns, 2, 1)
    return torch.from_numpy(metric).float(), torch.from_numpy(shift).float()


class Refiner(OrbitTrunk):
    """Displacements and a strain that take a crystal to a likelier geometry.

    Scalars on the orbit graph pass messages; the displacement of a site is
    Σ_j a_ij r̂_ij and the strain Σ_i s_i Σ_j b_ij r̂_ij r̂_ijᵀ with s_i the site's share
    of the atoms. Both turn with the crystal and keep its space group: a site is moved
    within its Wyckoff position, the metric is averaged over the point group. It is
    trained to take noise away (:mod:`crystalvae.training.refiner`), as in
    S. Zaidi et al., Pre-training via Denoising for Molecular Property Prediction,
    ICLR 2023, section 3.

    Args:
        config: sizes.
        tables: symmetry tables; None builds them.
    """

    def __init__(self, config: RefinerConfig, tables: WyckoffTables | None = None):
        super().__init__(config, tables)
        self.config: RefinerConfig = config
        self.level = mlp(4 * NUM_WAVES, config.dim, config.dim)
        waves = 2.0 ** torch.arange(NUM_WAVES) * (math.pi / 8)
        self.register_buffer("waves", waves, False)
        hidden = 2 * config.message_dim
        self.target = nn.Linear(config.dim, hidden)
        self.source = nn.Linear(config.dim, hidden, bias=False)
        self.edge = nn.Linear(self.edge_dim, hidden, bias=False)
        self.out = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 2))
        nn.init.zeros_(self.out[1].weight)
        nn.init.zeros_(self.out[1].bias)
        self.card: dict[str, Any] = {}
        metric, shift = group_projectors()
        self.register_buffer("metric_projector", metric, False)
        self.register_buffer("shift_projector", shift, False)

    def forward(self, data: Data, sigma: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Displacements in Å ``(N, 3)`` and strains ``(B, 3, 3)``, not yet projected.

        Args:
            data: of :meth:`graph`.
            sigma: noise of atoms that is assumed, Å, ``(B,)``.
            tau: noise of strains that is assumed, ``(B,)``.
        """
        edge, envelope = self.edges(data)
        levels = torch.stack([sigma.log() + 3, tau.log() + 5], 1)
        phase = (levels[:, :, None] * self.waves).flatten(1)
        level = self.level(torch.cat([phase.sin(), phase.cos()], -1))
        start = self.species(data.species) + level[data.owner]
        state = self.states(data, start, edge, envelope)
        source = self.source(state).index_select(0, data.edge_index[0])
        joint = joint_states(source, self.target(state), edge, self.edge)
        weight = self.out(joint).float() * envelope
        moved = (weight[..., :1] * data.direction).sum(1) * sigma[data.owner][:, None]
        outer = data.direction[..., :, None] * data.direction[..., None, :]
        pull = (weight[..., 1, None, None] * outer).sum(1) * data.share[:, None, None]
        strain = pull.new_zeros(data.num_crystals, 3, 3)
        strain = strain.index_add_(0, data.owner, pull)
        return moved, strain * tau[:, None, None]

    def project_strain(self, number: Tensor, lattice: Tensor, strain: Tensor) -> Tensor:
        """The part of a strain ``(B, 3, 3)`` that the group allows."""
        change = lattice @ strain @ lattice.transpose(1, 2)
        entries = torch.stack([change[:, i, j] for i, j in _PAIRS], -1)
        kept = torch.einsum("bij,bj->bi", self.metric_projector[number], entries)
        index = torch.tensor([[0, 3, 4], [3, 1, 5], [4, 5, 2]], device=kept.device)
        inverse = torch.linalg.inv(lattice)
        return inverse @ kept[:, index] @ inverse.transpose(1, 2)

    def centre(self, sites: Sites, share: Tensor, shift: Tensor) -> Tensor:
        """Fractional shifts ``(N, 3)`` without the common one along polar axes."""
        number = sites.number
        mean = shift.new_zeros(len(number), 3)
        mean.index_add_(0, sites.owner, share[:, None] * shift)
        common = torch.einsum("bij,bj->bi", self.shift_projector[number], mean)
        return shift - common[sites.owner]

    def shift(
        self,
        sites: Sites,
        lattice: Tensor,
        coords: Tensor,
        moved: Tensor,
        limited: bool = True,
    ) -> Tensor:
        """The coordinates of :meth:`move`, the cell as it is."""
        if limited:
            moved = _at_most(moved, self.config.max_shift)
        inverse = torch.linalg.inv(lattice)
        shift = torch.einsum("ni,nij->nj", moved, inverse[sites.owner])
        number = sites.number[sites.owner]
        return self.tables.project(number, sites.wyckoff, coords + shift)

    def move(
        self,
        sites: Sites,
        lattice: Tensor,
        coords: Tensor,
        moved: Tensor,
        strain: Tensor,
        limited: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Shift atoms and strain cells as far as the groups allow.

        Args:
            sites: the sites.
            lattice: ``(B, 3, 3)`` in Å, Cholesky form.
            coords: ``(N, 3)``.
            moved: displacements in Å ``(N, 3)``.
            strain: symmetric strains ε ``(B, 3, 3)``; the metric becomes
                L exp(2ε) Lᵀ, positive definite for any of them.
            limited: keep to the largest shift and strain of one pass.

        Returns:
            New lattices, within :func:`~crystalvae.geometry.lattice.bound_coords` and
            the old ones where the new ones are no lattices, and coordinates.
        """
        placed = self.shift(sites, lattice, coords, moved, limited)
        strain = self.project_strain(sites.number, lattice, strain)
        if limited:
            largest = self.config.max_strain
            strain = _at_most(strain.flatten(1), largest).view_as(strain)
        metric = lattice @ torch.matrix_exp(2 * strain) @ lattice.mT
        metric = 0.5 * (metric + metric.mT)
        sound = torch.isfinite(metric).flatten(1).all(1)
        sound &= torch.linalg.cholesky_ex(metric)[1] == 0
        metric = torch.where(sound[:, None, None], metric, metric_tensor(lattice))
        free = bound_coords(lattice_to_coords(cholesky_lattice(metric)))
        exact = complete_coords(free, self.tables.system[sites.number])
        return coords_to_lattice(exact), placed

    @torch.no_grad()
    def refine(
        self,
        sites: Sites,
        lattice: Tensor,
        coords: Tensor,
        *,
        passes: int = 10,
        noise: float = 0.2,
        strain_noise: float = 0.02,
    ) -> tuple[Tensor, Tensor]:
        """Take noise away in some passes that assume less and less of it.

        The deterministic sampler of J. Song et al., Denoising Diffusion Implicit
        Models, ICLR 2021, eq. 12, for noise that is added to the data: from σ to σ'
        a pass takes the share 1 - σ'/σ of the way to the network's estimate.

        Args:
            sites: the sites.
            lattice: ``(B, 3, 3)`` in Å, Cholesky form.
            coords: ``(N, 3)``.
            passes: how often the network looks.
            noise: that the first pass assumes of atoms, Å; the last one
                assumes :data:`LAST_NOISE`.
            strain_noise: that the first pass assumes in strains; the last one assumes
                :data:`LAST_STRAIN`.

        Returns:
            New lattices and coordinates.
        """
        levels = _falling(noise, min(LAST_NOISE, noise), passes)
        strains = _falling(strain_noise, min(LAST_STRAIN, strain_noise), passes)
        for (sigma, next_sigma), (tau, next_tau) in zip(levels, strains):
            one = torch.ones_like(lattice[:, 0, 0])
            graph = self.graph(sites, lattice, coords)
            moved, strain = self(graph, sigma * one, tau * one)
            lattice, coords = self.move(
                sites,
                lattice,
                coords,
                (1 - next_sigma / sigma) * moved,
                (1 - next_tau / tau) * strain,
            )
        return lattice, coords

    @torch.no_grad()
    def residual(
        self,
        data: Data,
        sites: Sites,
        lattice: Tensor,
        coords: Tensor,
        levels: int = 1,
    ) -> Tensor:
        """How far crystals are from where the network would put them, ``(B,)``.

        √(mean |u|² / σ² + |ε|² / τ²) of the displacements u and the strain ε of one
        pass that assumes noise σ and strain τ, as far as the groups allow them; of
        several levels of noise the geometric mean. Real crystals have small residuals.

        Args:
            data: of :meth:`graph`.
            sites: the sites.
            lattice: ``(B, 3, 3)`` in Å, Cholesky form.
            coords: ``(N, 3)``.
            levels: 1 is σ = :data:`RESIDUAL_NOISE`; more are spaced over
                :data:`RESIDUAL_RANGE`.
        """
        one = torch.ones_like(lattice[:, 0, 0])
        product = one
        for noise in residual_noises(levels):
            moved, strain = self(data, noise * one, STRAIN_OF_NOISE * noise * one)
            placed = self.shift(sites, lattice, coords, moved)
            shift = self.centre(sites, data.share, torus_difference(placed, coords))
            shift = torch.einsum("ni,nij->nj", shift, lattice[sites.owner])
            squared = data.share * shift.square().sum(1)
            total = torch.zeros_like(one).index_add_(0, sites.owner, squared)
            strain = self.project_strain(sites.number, lattice, strain)
            total = total + (strain / STRAIN_OF_NOISE).square().flatten(1).sum(1)
            product = product * total.sqrt() / noise
        return product ** (1 / levels)


def residual_noises(levels: int) -> list[float]:
    """The σ of :meth:`Refiner.residual` in Å."""
    if levels == 1:
        return [RESIDUAL_NOISE]
    return np.geomspace(*RESIDUAL_RANGE, levels).tolist()


def _falling(first: float, last: float, steps: int) -> list[tuple[float, float]]:
    """Levels of a geometric descent, each with the next one, which is 0 at the end."""
    levels = torch.logspace(math.log10(first), math.log10(last), steps).tolist()
    return list(zip(levels, [*levels[1:], 0.0]))


def _at_most(vectors: Tensor, limit: float) -> Tensor:
    """Vectors ``(M, n)``, the longer ones shortened to a length."""
    length = vectors.norm(dim=-1, keepdim=True)
    return vectors * (limit / length.clamp(min=limit))


def strain_between(lattice: Tensor, other: Tensor) -> Tensor:
    """The ε of lattices ``(B, 3, 3)`` with which L exp(2ε) Lᵀ is other's metric."""
    inverse = torch.linalg.inv(lattice)
    whole = inverse @ metric_tensor(other) @ inverse.mT
    values, axes = torch.linalg.eigh(0.5 * (whole + whole.mT))
    return 0.5 * axes @ (values.clamp(min=1e-12).log()[:, :, None] * axes.mT)
