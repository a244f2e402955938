"""From latent vectors to crystals, in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from crystalvae.generation.options import (
    Constraints,
    Generated,
    Held,
    SamplingOptions,
)
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

    rounds = options.restarts if options.temperature > 0 else 0

    def decode(rows: Tensor, again: bool, held: Held | None = None) -> Generated:
        decoding = Decoding(
            model, z[rows], beta[rows], options, constraints, generator, held
        )
        decoding.compositions()
        decoding.groups()
        decoding.lattices()
        return SitePlacer(decoding, abandon=again).place_all()

    found = decode(torch.arange(len(z), device=z.device), rounds > 0)
    for attempt in range(rounds):
        failed = (found.collides | ~found.complete).nonzero().squeeze(1)
        if not len(failed):
            break
        rows = failed.repeat_interleave(options.restart_copies)
        collides = found.collides[rows]
        held = Held(
            element=found.element[rows],
            count=found.count[rows],
            number=found.number[rows],
            composition_held=collides & (attempt < 2),
            group_held=collides & (attempt < 1),
        )
        drafts = decode(rows, attempt + 1 < rounds, held)
        good = (drafts.complete & ~drafts.collides).view(len(failed), -1)
        first = good.int().argmax(1)
        source = first + torch.arange(len(failed), device=z.device) * good.shape[1]
        found.replace(failed, drafts, source)
    return found
