"""From latent vectors to crystals, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from crystalvae.errors import ConfigError
from crystalvae.generation.constraints import Constraints
from crystalvae.generation.options import (
    Generated,
    Held,
    Refinement,
    SamplingOptions,
)
from crystalvae.generation.prefix import Decoding
from crystalvae.generation.refine import refine
from crystalvae.generation.sites import SitePlacer

if TYPE_CHECKING:
    from crystalvae.model import CrystalVAE


UNFIT = 1e9
"""Taken from the log weight of a composition that no allowed group can hold."""
WORST = 1e6
"""Residual of a crystal that could not be refined."""


@torch.no_grad()
def generate(
    model: CrystalVAE,
    z: Tensor,
    *,
    beta: float | Tensor | None = None,
    told: Tensor | None = None,
    options: SamplingOptions | None = None,
    constraints: Constraints | None = None,
    refinement: Refinement | None = None,
    compositions: Sequence[dict[int, int]] | Held | None = None,
    generator: torch.Generator | None = None,
) -> Generated:
    """Decode latent vectors.

    A crystal with a site that had to be given up, unless refining mends it, or that the
    refiner would still change by more than :attr:`Refinement.limit` allows, is decoded
    again from its z.

    Args:
        model: the model.
        z: latent vectors ``(B, D)``.
        beta: the β that the vectors were made for; None is the smallest.
        told: properties of each ``(B, P)``, in the order of the model's conditions, NaN
            for what is not told.
        options: how to draw.
        constraints: what must hold.
        refinement: how the model's refiner is used; None leaves it out.
        compositions: atomic number → count in the primitive cell, one a vector, or
            what :func:`required_compositions` chose; None draws them.
        generator: source of randomness, on the CPU.

    Raises:
        ConfigError: a composition is larger than the model can emit, the constraints
            cannot be obeyed, or the model has no refiner to use.
    """
    z = z.to(model.device)
    if told is not None:
        if told.shape != (len(z), len(model.config.conditions)):
            raise ConfigError(
                f"what is told has the shape {tuple(told.shape)}, not "
                f"{(len(z), len(model.config.conditions))}"
            )
        told = told.to(model.device)
    beta = model.beta_tensor(beta, len(z))
    options, constraints = options or SamplingOptions(), constraints or Constraints()
    constraints.check(model.config.decoder)
    refiner = None
    if refinement is not None and refinement.passes:
        refiner = model.require_refiner()
    heals = refiner is not None and refinement.repeats > 0
    warmer = replace(
        options, temperature=max(options.temperature, options.restart_temperature)
    )
    tries = options.restarts * options.restart_copies if warmer.temperature > 0 else 0

    def decode(
        rows: Tensor, how: SamplingOptions, again: bool, held: Held | None
    ) -> Generated:
        decoding = Decoding(
            model,
            z[rows],
            beta[rows],
            how,
            constraints,
            generator,
            held,
            told=None if told is None else told[rows],
        )
        decoding.compositions()
        decoding.groups()
        decoding.lattices()
        made = SitePlacer(decoding, abandon=again and not heals).place_all()
        if refiner is not None:
            refine(refiner, made, refinement, options.min_distance)
        return made

    def badness(made: Generated) -> Tensor:
        """0 for what is good, the residual above its limit, infinite for no crystal."""
        badness = torch.zeros_like(made.residual)
        if refiner is not None and (refinement.limit is not None or refinement.bonds):
            doubts = refinement.doubts(made.residual)
            badness[doubts] = made.residual[doubts].clamp(max=WORST)
        return badness.masked_fill(made.collides | ~made.complete, torch.inf)

    given = None if compositions is None else _held(model, compositions)
    asked = compositions is not None and not isinstance(compositions, Held)
    found = decode(torch.arange(len(z), device=z.device), options, tries > 0, given)
    for attempt in range(tries):
        bad = badness(found)
        failed = (bad > 0).nonzero().squeeze(1)
        if not len(failed):
            break
        turn = attempt // options.restart_copies
        drawn = found.collides[failed] | found.complete[failed]
        again = drawn & (turn == 0)
        held = Held(
            element=found.element[failed],
            count=found.count[failed],
            number=found.number[failed],
            composition_held=again | asked,
            group_held=again,
        )
        drafts = decode(failed, warmer, attempt + 1 < tries, held)
        better = (badness(drafts) < bad[failed]) | bad[failed].isinf()
        found.replace(failed[better], drafts, better.nonzero().squeeze(1))
    return found


def _held(model: CrystalVAE, compositions: Sequence[dict[int, int]] | Held) -> Held:
    """Compositions as what decoding keeps; groups are still drawn."""
    if isinstance(compositions, Held):
        return compositions
    limits = model.config.decoder
    table = torch.zeros(len(compositions), 2, limits.max_elements + 1, dtype=torch.long)
    for row, composition in enumerate(compositions):
        limits.require(composition)
        pairs = torch.tensor(sorted(composition.items()))
        table[row, :, : len(pairs)] = pairs.T
    element, count = table.to(model.device).unbind(1)
    yes = torch.ones_like(element[:, 0], dtype=torch.bool)
    return Held(
        element=element,
        count=count,
        number=torch.ones_like(element[:, 0]),
        composition_held=yes,
        group_held=~yes,
    )


def required_compositions(
    model: CrystalVAE,
    z: Tensor,
    num: int,
    *,
    beta: Tensor,
    told: Tensor | None = None,
    options: SamplingOptions,
    constraints: Constraints,
    generator: torch.Generator | None,
) -> tuple[Tensor, Held]:
    """Latents and compositions with all required elements.

    Masks alone would favour what often comes before a required element, whether that
    follows or not. So one composition is drawn for each z, and some are chosen by the
    probability that the masks took away (sampling importance resampling: D. B. Rubin,
    Bayesian Statistics 3, 395 (1988)).

    Args:
        model: the model.
        z: latent vectors ``(B, D)``, some for each that is wanted.
        num: how many are wanted.
        beta: β of each ``(B,)``.
        told: properties of each ``(B, P)``.
        options: how to draw.
        constraints: what must hold.
        generator: source of randomness, on the CPU.

    Returns:
        Rows of z that were chosen ``(num,)``, and their compositions, for decoding to
        keep.
    """
    told = None if told is None else told.to(z.device)
    elements, counts, weights = [], [], []
    for rows in torch.arange(len(z), device=z.device).split(num):
        drawn = Decoding(
            model,
            z[rows],
            beta[rows],
            options,
            constraints,
            generator,
            composition_only=True,
            told=None if told is None else told[rows],
        )
        drawn.compositions()
        elements.append(drawn.element)
        counts.append(drawn.count)
        weights.append(drawn.log_weight)
    element, count = torch.cat(elements), torch.cat(counts)
    weight = torch.cat(weights).double().cpu()
    if constraints.space_groups is not None:
        fits = [constraints.can_hold([n for n in row if n]) for row in count.tolist()]
        weight = weight.masked_fill(~torch.tensor(fits), -UNFIT)
    rows = _weighted_choice(weight, num, generator).to(z.device)
    yes = torch.ones(num, dtype=torch.bool, device=z.device)
    return rows, Held(
        element=element[rows],
        count=count[rows],
        number=torch.ones(num, dtype=torch.long, device=z.device),
        composition_held=yes,
        group_held=~yes,
    )


def _weighted_choice(
    log_weight: Tensor, num: int, generator: torch.Generator | None
) -> Tensor:
    """Places ``(num,)``, drawn without putting back (the Gumbel top-k trick)."""
    uniform = torch.rand(log_weight.shape, generator=generator, dtype=torch.double)
    gumbel = -(-uniform.clamp(min=1e-300).log()).log()
    return (log_weight + gumbel).topk(num).indices.sort().values
