"""Estimates of stability for any crystals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from crystalvae.refinement.score import graphs_in_chunks
from crystalvae.screening.base import THRESHOLD

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.stability.network import StabilityNetwork


@dataclass(frozen=True)
class StabilityEstimate:
    """What a network expects of a crystal once it is relaxed."""

    e_above_hull: float
    """Median of the energy above the hull, eV/atom."""
    probability: float
    """That it is at most :data:`~crystalvae.screening.base.THRESHOLD`."""


@torch.no_grad()
def stability_estimates(
    network: StabilityNetwork,
    crystals: Sequence[AsymmetricUnit],
    threshold: float = THRESHOLD,
) -> list[StabilityEstimate | None]:
    """How likely crystals are to be stable, against the hull the network learned.

    No potential is evaluated and no reference set is asked: it is an estimate to choose
    by, and no verdict.

    Args:
        network: trained on crystals of the same kinds.
        crystals: asymmetric units in canonical form.
        threshold: eV/atom above the hull that count as stable.

    Returns:
        One a crystal, None where the network gives no number.
    """
    found: list[StabilityEstimate | None] = [None] * len(crystals)
    for rows, *_, graph in graphs_in_chunks(network, crystals):
        energy = network(graph)
        values = zip(
            rows,
            energy.median().tolist(),
            energy.probability_below(threshold).tolist(),
        )
        for row, median, probability in values:
            if math.isfinite(median) and math.isfinite(probability):
                found[row] = StabilityEstimate(median, probability)
    return found
