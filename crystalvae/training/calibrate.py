"""Fit a model's element bias, so that draws have the mean atomic mass of a data set."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping

import torch
from ase.data import atomic_masses, chemical_symbols
from torch import Tensor
from tqdm import tqdm

from crystalvae.conditions import Told, told_values
from crystalvae.errors import ConfigError
from crystalvae.generation import Constraints, SamplingOptions
from crystalvae.generation.options import MOST_BIAS
from crystalvae.generation.prefix import Decoding
from crystalvae.model import CrystalVAE
from crystalvae.nn.wyckoff import MAX_Z

logger = logging.getLogger(__name__)

BATCH = 1024
MATCHES = ("mass", "elements")
STEP = 0.8
"""Share of what is missing by which a round changes the bias."""
PSEUDO_COUNT = 10
"""Crystals of an element alone that both sides are given, so that the bias of rare
elements is no noise."""


def element_shares(compositions: Iterable[Mapping[int, int]]) -> Tensor:
    """Mean over crystals of the atomic fraction of each element, ``(119,)``.

    Args:
        compositions: atomic number → count, one a crystal.

    Raises:
        ValueError: there is none.
    """
    shares = torch.zeros(MAX_Z, dtype=torch.double)
    size = 0
    for composition in compositions:
        size += 1
        numbers, counts = zip(*composition.items())
        fraction = torch.tensor(counts, dtype=torch.double) / sum(counts)
        shares[list(numbers)] += fraction
    if not size:
        raise ValueError("no composition")
    return shares / size


def calibrate_elements(
    model: CrystalVAE,
    shares: Tensor,
    *,
    beta: float,
    options: SamplingOptions,
    conditions: Told | None = None,
    match: str = "mass",
    rounds: int = 12,
    num: int = 16384,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, float]:
    """The element bias with which draws have the mean mass or elements of a data set.

    Draws from the prior are not distributed as what the decoder was trained on:
    posterior and prior differ, and a low temperature of the counts favours common
    compositions. Each round draws compositions and changes the bias by what is still
    missing; the mean of the last half of the biases is the result (stochastic
    approximation with averaging: B. T. Polyak and A. B. Juditsky, SIAM J. Control
    Optim. 30, 838, 1992). The least change that gives a mean is an exponential tilt
    (E. T. Jaynes, Phys. Rev. 106, 620, 1957), here of probabilities in the atomic mass.
    Compositions are those of first drafts, not of what is drawn again or falls in
    checks.

    Args:
        model: the model.
        shares: what is wanted, of :func:`element_shares`.
        beta: β of the draws.
        options: how draws are made; their element bias is the start.
        conditions: what the decoder is told.
        match: ``mass``, a bias proportional to the atomic mass with which its mean, and
            so the density, is right; or ``elements``, the share of each element.
        rounds: how often.
        num: compositions a round.
        seed: everything random follows from it.
        progress: show a bar on stderr.

    Returns:
        Symbol → bias, without those that round to 0.000 and elements that are not to be
        drawn (a bias of -:data:`~crystalvae.generation.options.MOST_BIAS`).

    Raises:
        ConfigError: there is nothing of that name to match, or all draws are of one
            element.
    """
    if match not in MATCHES:
        raise ConfigError(f"match is one of {', '.join(MATCHES)}, not {match!r}")
    bias = options.bias_of_elements().double()
    banned = bias <= -MOST_BIAS
    mass = torch.from_numpy(atomic_masses[:MAX_Z])
    mean = shares @ mass
    wanted = num * shares + PSEUDO_COUNT
    total = torch.zeros_like(bias)
    for turn in tqdm(range(rounds), unit="round", disable=None if progress else True):
        biased = dataclasses.replace(options, element_bias=_named(bias))
        found = element_shares(
            draw_compositions(
                model,
                num,
                beta=beta,
                options=biased,
                conditions=conditions,
                seed=seed + turn,
            )
        )
        if match == "mass":
            spread = found @ (mass - found @ mass).square()
            if spread < 1e-6:
                raise ConfigError("draws of a single element have nothing to calibrate")
            change = (mass - mean) * (mean - found @ mass) / spread
        else:
            change = (wanted / (num * found + PSEUDO_COUNT)).log()
        bias[1:] += STEP * change[1:]
        bias = bias.clamp(-MOST_BIAS, MOST_BIAS).masked_fill(banned, -MOST_BIAS)
        if turn >= rounds // 2:
            total += bias / (rounds - rounds // 2)
        logger.info(
            "round %d: shares differ by %.4f in all, the mean atomic mass by %.2f u",
            turn + 1,
            float((found - shares).abs().sum()),
            float(found @ mass - mean),
        )
    return _named(total.masked_fill(banned, 0.0))


@torch.no_grad()
def draw_compositions(
    model: CrystalVAE,
    num: int,
    *,
    beta: float,
    options: SamplingOptions,
    conditions: Told | None = None,
    seed: int,
) -> list[dict[int, int]]:
    """Compositions alone of draws from the prior, atomic number → count.

    Args:
        model: the model.
        num: how many.
        beta: the knob.
        options: how to draw.
        conditions: what the decoder is told.
        seed: any integer.
    """
    generator = torch.Generator().manual_seed(seed)
    found: list[dict[int, int]] = []
    while len(found) < num:
        size = min(BATCH, num - len(found))
        z = model.prior_sample(size, beta=beta, generator=generator)
        decoding = Decoding(
            model,
            z,
            model.beta_tensor(beta, size),
            options,
            Constraints(),
            generator,
            composition_only=True,
            told=told_values(
                model.config.conditions, conditions or {}, size, generator
            ),
        )
        decoding.compositions()
        rows = zip(decoding.element.tolist(), decoding.count.tolist())
        found += [{e: n for e, n in zip(*row) if e} for row in rows]
    return found


def _named(bias: Tensor) -> dict[str, float]:
    values = [round(value, 3) for value in bias.tolist()]
    return {chemical_symbols[z]: value for z, value in enumerate(values) if z and value}
