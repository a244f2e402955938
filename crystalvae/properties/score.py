"""Estimates of properties for any crystals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from crystalvae.refinement.score import graphs_in_chunks

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.properties.network import PropertyNetwork


@torch.no_grad()
def property_estimates(
    network: PropertyNetwork, crystals: Sequence[AsymmetricUnit]
) -> list[dict[str, float]]:
    """What properties crystals probably have once they are relaxed.

    Args:
        network: trained on crystals of the same kinds.
        crystals: asymmetric units in canonical form.

    Returns:
        Property → median, in the unit of the data that the network learned from; one
        dictionary a crystal, without what is no number.
    """
    found: list[dict[str, float]] = [{} for _ in crystals]
    for rows, *_, graph in graphs_in_chunks(network, crystals):
        for row, values in zip(rows, network(graph).median().tolist()):
            named = zip(network.names, values)
            found[row] = {name: v for name, v in named if math.isfinite(v)}
    return found
