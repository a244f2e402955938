"""From latent vectors to crystals, in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from crystalvae.generation.options import Constraints, Generated, SamplingOptions
from crystalvae.generation.prefix import Decoding
from crystalvae.generation.sites import SitePlacer

if TYPE_CHECKING:
    from crystalvae.model import CrystalVAE


@torch.no_grad()
def generate(
    model: CrystalVAE,
    z: Tensor,
    *,
    beta: float | Tensor | None = None,
    options: SamplingOptions | None = None,
    constraints: Constraints | None = None,
    generator: torch.Generator | None = None,
) -> Generated:
    """Decode latent vectors.

    Args:
        model: the model.
        z: latent vectors ``(B, D)``.
        beta: the β that the vectors were made for; None is the smallest.
        options: how to draw.
        constraints: what must hold.
        generator: source of randomness, on the CPU.
    """
    z = z.to(model.device)
    beta = model.beta_tensor(beta, len(z))
    options, constraints = options or SamplingOptions(), constraints or Constraints()

    def decode(rows: Tensor, how: SamplingOptions) -> Generated:
        decoding = Decoding(model, z[rows], beta[rows], how, constraints, generator)
        decoding.compositions()
        decoding.groups()
        decoding.lattices()
        return SitePlacer(decoding).place_all()

    found = decode(torch.arange(len(z), device=z.device), options)
    for _ in range(options.restarts if options.temperature > 0 else 0):
        rows = (found.collides | ~found.complete).nonzero().squeeze(1)
        if not len(rows):
            break
        found.replace(rows, decode(rows, options))
    return found
