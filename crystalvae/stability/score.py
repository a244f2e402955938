"""Estimates of stability for any crystals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from crystalvae.refinement.score import CHUNK, refiner_inputs
from crystalvae.stability.network import THRESHOLD

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.stability.network import StabilityNetwork


@dataclass(frozen=True)
class StabilityEstimate:
    """What a network expects of a crystal once it is relaxed."""

    e_above_hull: float
    """Median of the energy above the hull, eV/atom."""
    probability: float
    """That it is at most :data:`~crystalvae.stability.network.THRESHOLD`."""


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
    device = next(network.parameters()).device
    order = sorted(range(len(crystals)), key=lambda i: len(crystals[i].wyckoffs))
    found: list[StabilityEstimate | None] = [None] * len(crystals)
    for start in range(0, len(order), CHUNK):
        rows = order[start : start + CHUNK]
        sites, lattice, coords = refiner_inputs([crystals[row] for row in rows])
        graph = network.graph(sites.to(device), lattice.to(device), coords.to(device))
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
