"""Estimates of properties for any crystals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from crystalvae.refinement.score import graphs_in_chunks

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.properties.network import PropertyNetwork


@dataclass(frozen=True)
class PropertyEstimate:
    """What a network expects of a property, in the unit of its training data."""

    value: float
    """The median."""
    uncertainty: float
    """Half the range that holds the middle 68 %."""


@torch.no_grad()
def property_estimates(
    network: PropertyNetwork, crystals: Sequence[AsymmetricUnit]
) -> list[dict[str, PropertyEstimate]]:
    """What properties crystals probably have once they are relaxed.

    Args:
        network: trained on crystals of the same kinds.
        crystals: asymmetric units in canonical form.

    Returns:
        By property, one dictionary a crystal, without what is no number.
    """
    found: list[dict[str, PropertyEstimate]] = [{} for _ in crystals]
    for rows, *_, graph in graphs_in_chunks(network, crystals):
        judged = network(graph)
        both = torch.stack([judged.median(), judged.uncertainty()], -1).tolist()
        for row, values in zip(rows, both):
            for name, (value, uncertainty) in zip(network.names, values):
                if math.isfinite(value) and math.isfinite(uncertainty):
                    found[row][name] = PropertyEstimate(value, uncertainty)
    return found
