"""Priors over the latent: N(0, I), or a flow fitted to the aggregated posterior."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crystalvae.latent import BetaFeatures, LatentConfig

PRIORS = ("gaussian", "flow")


@dataclass(frozen=True)
class PriorConfig:
    """Which prior a model carries."""

    name: str = "gaussian"
    """``gaussian`` or ``flow``."""
    hidden_dim: int = 256
    """Width of the flow's network."""
    num_layers: int = 3
    """Its residual blocks."""
    num_steps: int = 32
    """Steps of the integration when sampling."""

    def __post_init__(self) -> None:
        if self.name not in PRIORS:
            raise ValueError(
                f"prior {self.name!r} is unknown; known: {', '.join(PRIORS)}"
            )


class LatentFlow(nn.Module):
    """Flow matching from N(0, I) to the aggregated posterior at a given β.

    The network learns the velocity z₁ - z₀ at (1 - t) z₀ + t z₁; sampling integrates
    it from t = 0 to 1. Reference: Y. Lipman et al., Flow Matching for Generative
    Modeling, ICLR 2023, eq. 23 (with σ_min = 0).

    Args:
        config: sizes.
        latent: the latent space.
    """

    def __init__(self, config: PriorConfig, latent: LatentConfig):
        super().__init__()
        self.config = config
        self.dim = latent.dim
        self.beta_features = BetaFeatures(latent)
        hidden = config.hidden_dim
        self.register_buffer("frequencies", 2.0 ** torch.arange(6), persistent=False)
        self.into = nn.Linear(latent.dim + 12 + BetaFeatures.dim, hidden)
        self.condition = nn.Linear(12 + BetaFeatures.dim, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden),
                nn.Linear(hidden, 2 * hidden),
                nn.SiLU(),
                nn.Linear(2 * hidden, hidden),
            )
            for _ in range(config.num_layers)
        )
        self.out = nn.Linear(hidden, latent.dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, z: Tensor, time: Tensor, beta: Tensor) -> Tensor:
        """Velocity at ``z`` ``(B, D)``, ``time`` ``(B, 1)``, ``beta`` ``(B,)``."""
        phase = time * self.frequencies
        context = torch.cat([phase.sin(), phase.cos(), self.beta_features(beta)], -1)
        state = self.into(torch.cat([z, context], -1))
        shift = self.condition(context)
        for block in self.blocks:
            state = state + block(state + shift)
        return self.out(state)

    def loss(self, z: Tensor, beta: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the velocity for posterior draws ``z`` ``(B, D)``."""
        start = torch.randn(z.shape, generator=generator).to(z.device)
        time = torch.rand(len(z), 1, generator=generator).to(z.device)
        velocity = self(torch.lerp(start, z, time), time, beta)
        return (velocity - (z - start)).square().mean()

    @torch.no_grad()
    def transport(self, noise: Tensor, beta: Tensor) -> Tensor:
        """Carry standard normal noise ``(B, D)`` to the aggregated posterior (Heun)."""
        z, steps = noise, self.config.num_steps
        for step in range(steps):
            time = torch.full_like(z[:, :1], step / steps)
            velocity = self(z, time, beta)
            ahead = self(z + velocity / steps, time + 1 / steps, beta)
            z = z + 0.5 * (velocity + ahead) / steps
        return z
