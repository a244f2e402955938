"""The latent space: posterior, its divergence from the prior, and the β that turns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crystalvae.batch import CrystalBatch
from crystalvae.nn.basic import mlp
from crystalvae.nn.wyckoff import (
    MAX_Z,
    NUM_LETTERS,
    WyckoffEmbedding,
    WyckoffTables,
)

ELEMENT_SLOTS = 10
"""Places of the sorted composition that enter the latent linearly."""
SITE_SLOTS = 12
"""Places of the sorted sites that do."""
SITE_FEATURES = NUM_LETTERS + ELEMENT_SLOTS + 12
"""Letter, place of the element in the composition, waves of the free coordinates."""


@dataclass(frozen=True)
class LatentConfig:
    """The latent space and the range of β that the model is trained over."""

    dim: int = 256
    """Latent dimensions D."""
    hidden_dim: int = 512
    """Hidden size of the posterior's perceptron."""
    pair_dim: int = 256
    """Size of the (Wyckoff position, element) features that enter linearly."""
    beta_min: float = 0.003
    """Smallest β, where the latent keeps most."""
    beta_max: float = 1.0
    """Largest β; 1 is the evidence lower bound."""

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError(
                f"0 < beta_min <= beta_max is needed, not {self.beta_min=}, "
                f"{self.beta_max=}"
            )

    def nearest_beta(self, beta: float) -> float:
        """The β of the trained range that is nearest to one."""
        return float(min(max(beta, self.beta_min), self.beta_max))


class BetaFeatures(nn.Module):
    """Features of β on its logarithmic scale, for encoder and decoder.

    Args:
        config: gives the range of β; values outside it are clamped.
    """

    dim = 4

    def __init__(self, config: LatentConfig):
        super().__init__()
        self.low = math.log(config.beta_min)
        self.high = math.log(config.beta_max)

    def forward(self, beta: Tensor) -> Tensor:
        """Map β ``(B,)`` to ``(B, 4)``."""
        span = max(self.high - self.low, 1e-6)
        t = (beta.clamp(min=1e-12).log() - self.low) / span
        t = t.clamp(0, 1) * 2 - 1
        return torch.stack([t, t**2, t**3, torch.cos(math.pi * t)], -1)


@dataclass
class Posterior:
    """Diagonal Gaussian over the latent vector."""

    mu: Tensor
    """Mean, ``(B, D)``."""
    logvar: Tensor
    """Logarithm of the variance, ``(B, D)``."""

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw z = mu + sigma ε, ``(B, D)``, with noise on the generator's device."""
        noise_device = generator.device if generator is not None else self.mu.device
        noise = torch.randn(
            self.mu.shape, generator=generator, device=noise_device, dtype=self.mu.dtype
        )
        return self.mu + noise.to(self.mu.device) * (0.5 * self.logvar).exp()

    def kl_per_dim(self) -> Tensor:
        """KL(q(z|x) || N(0, I)) of each dimension in nats, ``(B, D)``."""
        return 0.5 * (self.mu**2 + self.logvar.exp() - 1 - self.logvar)

    def kl(self, free_bits: float = 0.0) -> Tensor:
        """Rate in nats per crystal, ``(B,)``.

        Args:
            free_bits: nats below which a dimension's mean rate over the batch is not
                penalised (Kingma et al., NeurIPS 29 (2016), eq. 15).
        """
        rate = self.kl_per_dim()
        if free_bits <= 0:
            return rate.sum(-1)
        kept = (rate.mean(0) > free_bits).to(rate.dtype)
        return (rate * kept + free_bits * (1 - kept)).sum(-1)


def composition_features(element: Tensor, count: Tensor) -> Tensor:
    """Features of a composition that are linear in its elements.

    Args:
        element: atomic numbers, 0 for padding, ``(B, C)``.
        count: counts in the primitive cell, ``(B, C)``.

    Returns:
        For each element presence, share, logarithm and number / 8, ``(B, 4 * 119)``.
    """
    size = len(element)
    share = count / count.sum(1, keepdim=True).clamp(min=1)
    parts = torch.stack(
        [torch.ones_like(share), 2 * share, (1 + count).log(), count / 8], -1
    )
    parts = parts * (element > 0)[..., None]
    table = parts.new_zeros(size, MAX_Z, 4)
    table.scatter_add_(1, element[..., None].expand(-1, -1, 4), parts)
    return table.flatten(1)


def slot_features(batch: CrystalBatch, free: Tensor) -> Tensor:
    """What stands at each place of the sorted composition and the sorted sites.

    Stoichiometry and decoration by place do not depend on which elements they are, so
    that a linear map of these carries over to crystals of any elements.

    Args:
        batch: the crystals.
        free: which coordinates are free at each site ``(B, S, 3)``.

    Returns:
        ``(B, ELEMENT_SLOTS * 4 + SITE_SLOTS * SITE_FEATURES)``.
    """
    present = (batch.comp_element > 0).float()
    count = batch.comp_count.float()
    share = count / count.sum(1, keepdim=True).clamp(min=1)
    elements = torch.stack([present, 2 * share, (1 + count).log(), count / 8], -1)
    elements = elements * present[..., None]
    same = batch.comp_element[:, None, :] == batch.atomic_numbers[..., None]
    rank = _fit_slots(same.float(), 2, ELEMENT_SLOTS)
    letter = nn.functional.one_hot(batch.wyckoff, NUM_LETTERS).float()
    phase = 2 * math.pi * batch.frac_coords
    waves = [phase.sin(), phase.cos(), (2 * phase).sin(), (2 * phase).cos()]
    coords = torch.cat([wave * free for wave in waves], -1)
    sites = torch.cat([letter, rank, coords], -1) * batch.site_mask[..., None]
    return torch.cat(
        [
            _fit_slots(elements, 1, ELEMENT_SLOTS).flatten(1),
            _fit_slots(sites, 1, SITE_SLOTS).flatten(1),
        ],
        -1,
    )


def _fit_slots(values: Tensor, axis: int, slots: int) -> Tensor:
    """Cut or zero-pad an axis to ``slots``."""
    size = values.shape[axis]
    if size >= slots:
        return values.narrow(axis, 0, slots)
    shape = list(values.shape)
    shape[axis] = slots - size
    return torch.cat([values, values.new_zeros(shape)], axis)


def size_free_lattice(batch: CrystalBatch) -> Tensor:
    """Log-Cholesky coordinates with the size of the cell divided out, ``(B, 6)``."""
    scale = batch.num_atoms.float().log()[:, None] / 3
    return torch.cat(
        [batch.lattice_coords[:, :3] - scale, batch.lattice_coords[:, 3:]], 1
    )


class PosteriorHead(nn.Module):
    """From the encoder's vector, and linearly from what must survive, to q(z|x, β).

    A perceptron sees everything; beside it composition, group, lattice, the sum over
    sites of products of (position, element) features and what stands at each place of
    the sorted sites enter the mean *linearly*, which carries over to compositions and
    decorations that training never showed. β opens or
    closes each dimension (J. Bae et al., Multi-Rate VAE, ICLR 2023, eq. 8).

    Args:
        config: sizes.
        tables: symmetry tables.
        encoder_dim: size of the encoder's output.
    """

    def __init__(self, config: LatentConfig, tables: WyckoffTables, encoder_dim: int):
        super().__init__()
        self.beta_features = BetaFeatures(config)
        self.group = nn.Embedding(231, 64)
        self.position = WyckoffEmbedding(tables, config.pair_dim)
        self.species = nn.Embedding(MAX_Z, config.pair_dim)
        self.tables = tables
        slot_dim = 4 * ELEMENT_SLOTS + SITE_SLOTS * SITE_FEATURES
        linear_dim = 4 * MAX_Z + 64 + 6 + 2 + 2 * config.pair_dim + slot_dim
        in_dim = encoder_dim + linear_dim + BetaFeatures.dim
        self.perceptron = mlp(in_dim, config.hidden_dim, 2 * config.dim)
        self.linear = nn.Linear(linear_dim, config.dim)
        self.gate = nn.Linear(BetaFeatures.dim, 2 * config.dim)
        nn.init.normal_(self.gate.weight, std=0.02)
        nn.init.zeros_(self.gate.bias)

    def forward(self, pooled: Tensor, batch: CrystalBatch, beta: Tensor) -> Posterior:
        """Compute the posterior.

        Args:
            pooled: the encoder's vectors ``(B, encoder_dim)``.
            batch: the crystals.
            beta: β of each crystal ``(B,)``.
        """
        condition = self.beta_features(beta)
        position = self.position(batch.number[:, None], batch.wyckoff)
        pair = position * self.species(batch.atomic_numbers)
        pair = pair * batch.site_mask[..., None]
        share = (batch.multiplicity / batch.num_atoms[:, None])[..., None]
        primitive = batch.comp_count.sum(1, keepdim=True).float()
        linear = torch.cat(
            [
                composition_features(batch.comp_element, batch.comp_count),
                self.group(batch.number),
                size_free_lattice(batch),
                primitive / 10,
                primitive.clamp(min=1).log(),
                pair.sum(1),
                (pair * share).sum(1),
                slot_features(
                    batch, self.tables.free[batch.number[:, None], batch.wyckoff]
                ),
            ],
            -1,
        )
        raw = self.perceptron(torch.cat([pooled, linear, condition], -1)).float()
        mu, logvar = raw.chunk(2, -1)
        gate, shift = self.gate(condition).float().chunk(2, -1)
        mu = (mu + self.linear(linear).float()) * 2 * torch.sigmoid(gate)
        return Posterior(mu, (logvar + shift).clamp(-12, 3))
