"""Crystal structure prediction: crystals of a given composition.

The decoder is given the composition instead of choosing it. z is the prior's mean or a
draw from it, at a large β, where it says little of the composition. Analogues, known
crystals with their elements replaced, can come before the model's own draws. Encoding
and decoding them did not bring them nearer to the truth, so they are left as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from crystalvae.errors import ConfigError
from crystalvae.generation import Constraints, Generated, SamplingOptions
from crystalvae.generation.options import Held
from crystalvae.generation.prefix import Decoding
from crystalvae.generation.sites import SitePlacer

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.design.analogues import Analogues
    from crystalvae.model import CrystalVAE

BATCH = 256
TEMPERATURE = 0.7
"""Of the draws, where none is asked for."""


@torch.no_grad()
def decode_compositions(
    model: CrystalVAE,
    z: Tensor,
    compositions: Sequence[dict[int, int]],
    *,
    beta: float | None = None,
    options: SamplingOptions | None = None,
    constraints: Constraints | None = None,
    generator: torch.Generator | None = None,
) -> list[AsymmetricUnit | None]:
    """Decode latent vectors to crystals of given compositions, all at once.

    Args:
        model: the model.
        z: latent vectors ``(B, D)``.
        compositions: atomic number → count in the primitive cell, one a vector.
        beta: the β that the vectors were made for; None is the largest.
        options: how to draw. A crystal that collides is decoded again, at a temperature
            of at least 0.5.
        constraints: only its space groups are heeded.
        generator: source of randomness, on the CPU.

    Returns:
        The crystals, None where no Wyckoff positions could hold the composition.

    Raises:
        ConfigError: a composition is larger than the model can emit.
    """
    for composition in compositions:
        if not model.config.decoder.fits(1, composition):
            raise ConfigError(
                f"a composition of {len(composition)} elements and up to "
                f"{max(composition.values())} atoms of one is too large for this model"
            )
    options, constraints = options or SamplingOptions(), constraints or Constraints()
    beta = model.config.latent.beta_max if beta is None else beta
    z, betas = z.to(model.device), model.beta_tensor(beta, len(z))
    table = _padded(compositions, model.config.decoder.max_elements + 1)
    elements, counts = table.to(model.device).unbind(1)

    def decode(
        rows: Tensor, how: SamplingOptions, abandon: bool, number: Tensor | None = None
    ) -> Generated:
        held = Held(
            element=elements[rows],
            count=counts[rows],
            number=torch.ones_like(rows) if number is None else number,
            composition_held=torch.ones_like(rows, dtype=torch.bool),
            group_held=torch.full_like(rows, number is not None, dtype=torch.bool),
        )
        run = Decoding(model, z[rows], betas[rows], how, constraints, generator, held)
        run.compositions()
        run.groups()
        run.lattices()
        return SitePlacer(run, abandon=abandon).place_all()

    rounds = options.restarts
    found = decode(torch.arange(len(z), device=z.device), options, rounds > 0)
    warmer = replace(options, temperature=max(options.temperature, 0.5))
    for attempt in range(rounds):
        failed = (found.collides | ~found.complete).nonzero().squeeze(1)
        if not len(failed):
            break
        rows = failed.repeat_interleave(options.restart_copies)
        number = found.number[rows] if attempt == 0 else None
        drafts = decode(rows, warmer, attempt + 1 < rounds, number)
        good = (drafts.complete & ~drafts.collides).view(len(failed), -1)
        first = good.int().argmax(1)
        source = first + torch.arange(len(failed), device=z.device) * good.shape[1]
        found.replace(failed, drafts, source)
    return found.crystals()


def _padded(compositions: Sequence[dict[int, int]], width: int) -> Tensor:
    """Elements and counts, ascending, then zeros, ``(B, 2, width)``."""
    table = torch.zeros(len(compositions), 2, width, dtype=torch.long)
    for row, composition in enumerate(compositions):
        pairs = torch.tensor(sorted(composition.items()))
        table[row, :, : len(pairs)] = pairs.T
    return table


def predict(
    model: CrystalVAE,
    compositions: Sequence[dict[int, int]],
    num: int,
    *,
    analogues: Analogues | None = None,
    beta: float | None = None,
    temperature: float | None = None,
    seed: int = 0,
    constraints: Constraints | None = None,
    batch_size: int = BATCH,
    advance: Callable[[int], object] | None = None,
) -> list[list[AsymmetricUnit | None]]:
    """Draw crystals of each composition.

    Args:
        model: the model.
        compositions: atomic number → count in the primitive cell.
        num: draws for each, at least 1. The first is greedy, from the prior's mean, the
            others are from the prior. With ``analogues``, up to three quarters of them,
            the first ones, are analogues as they are.
        analogues: known crystals, with whose elements replaced a prediction can begin.
        beta: the knob of the draws from the prior; None is the largest of the trained
            range.
        temperature: of those after the greedy one; None is :data:`TEMPERATURE`.
        seed: any integer; the same seed gives the same crystals.
        constraints: only its space groups are heeded.
        batch_size: crystals decoded together.
        advance: called with the number of crystals done.

    Returns:
        ``num`` crystals for each composition, None for one that was not completed.
    """
    warm = SamplingOptions(
        temperature=TEMPERATURE if temperature is None else temperature
    )
    greedy, dim = SamplingOptions(), model.config.latent.dim
    found: list[list[AsymmetricUnit | None]] = [[] for _ in compositions]
    batches = itertools.count()

    def draw(rows: list[int], options: SamplingOptions, z: Tensor | None) -> None:
        if not rows:
            return
        for part in torch.arange(len(rows)).split(batch_size):
            number = seed * 1_000_003 + next(batches)
            generator = torch.Generator().manual_seed(number)
            own = [rows[i] for i in part.tolist()]
            noise = torch.randn(len(own), dim, generator=generator)
            crystals = decode_compositions(
                model,
                noise if z is None else z[part],
                [compositions[row] for row in own],
                beta=beta,
                options=options,
                constraints=constraints,
                generator=generator,
            )
            for row, crystal in zip(own, crystals):
                found[row].append(crystal)
            if advance is not None:
                advance(len(own))

    if analogues is not None:
        most = num - num // 4
        for row, composition in enumerate(compositions):
            for known in analogues.propose(composition, most):
                found[row].append(known.crystal)
    short = [row for row, own in enumerate(found) if len(own) < num]
    draw(short, greedy, torch.zeros(len(short), dim))
    more = [row for row, own in enumerate(found) for _ in range(num - len(own))]
    draw(more, warm, None)
    return found
