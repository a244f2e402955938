"""Fit a model's element bias: draws with as much of each element as a data set."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping

import torch
from ase.data import chemical_symbols
from torch import Tensor
from tqdm import tqdm

from crystalvae.generation import Constraints, SamplingOptions
from crystalvae.generation.prefix import Decoding
from crystalvae.model import CrystalVAE
from crystalvae.nn.wyckoff import MAX_Z

logger = logging.getLogger(__name__)

BATCH = 1024
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
    rounds: int = 10,
    num: int = 16384,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, float]:
    """The element bias with which draws have given shares of the elements.

    Draws from the prior are not distributed as what the decoder was trained on:
    posterior and prior differ, and a low temperature of the counts favours common
    compositions. Each round draws compositions, and adds to the bias of an element the
    logarithm of what its share should be over what it is, in steps that become smaller
    (stochastic approximation: H. Robbins and S. Monro, Ann. Math. Stat. 22, 400, 1951).

    Args:
        model: the model.
        shares: what is wanted, of :func:`element_shares`.
        beta: β of the draws.
        options: how draws are made; their element bias is the start.
        rounds: how often.
        num: compositions a round.
        seed: everything random follows from it.
        progress: show a bar on stderr.

    Returns:
        Symbol → bias, without those that round to 0.00.
    """
    bias = torch.zeros(MAX_Z, dtype=torch.double)
    for symbol, value in options.element_bias.items():
        bias[chemical_symbols.index(symbol)] = value
    wanted = num * shares + PSEUDO_COUNT
    for turn in tqdm(range(rounds), unit="round", disable=None if progress else True):
        biased = dataclasses.replace(options, element_bias=_named(bias))
        found = element_shares(
            draw_compositions(model, num, beta=beta, options=biased, seed=seed + turn)
        )
        change = (wanted / (num * found + PSEUDO_COUNT)).log()
        bias[1:] += min(0.8, 4 / (turn + 1)) * change[1:]
        logger.info(
            "round %d: shares differ by %.4f in all",
            turn + 1,
            float((found - shares).abs().sum()),
        )
    return _named(bias)


@torch.no_grad()
def draw_compositions(
    model: CrystalVAE, num: int, *, beta: float, options: SamplingOptions, seed: int
) -> list[dict[int, int]]:
    """Compositions alone of draws from the prior, atomic number → count.

    Args:
        model: the model.
        num: how many.
        beta: the knob.
        options: how to draw.
        seed: any integer.
    """
    generator = torch.Generator().manual_seed(seed)
    found: list[dict[int, int]] = []
    while len(found) < num:
        size = min(BATCH, num - len(found))
        z = model.prior_sample(size, beta=beta, generator=generator)
        decoding = Decoding(
            model, z, model.beta_tensor(beta, size), options, Constraints(), generator
        )
        decoding.compositions()
        rows = zip(decoding.element.tolist(), decoding.count.tolist())
        found += [{e: n for e, n in zip(*row) if e} for row in rows]
    return found


def _named(bias: Tensor) -> dict[str, float]:
    values = [round(value, 2) for value in bias.tolist()]
    return {chemical_symbols[z]: value for z, value in enumerate(values) if z and value}
