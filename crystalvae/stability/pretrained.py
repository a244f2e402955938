"""Stability networks beside the model that they belong to."""

from __future__ import annotations

from pathlib import Path

from crystalvae.refinement.pretrained import load_network, save_network
from crystalvae.stability.network import StabilityConfig, StabilityNetwork

STABILITY = "stability"
"""Stem of the files."""


def save_stability(network: StabilityNetwork, directory: Path) -> None:
    """:func:`~crystalvae.refinement.pretrained.save_network` of such a network."""
    save_network(network, directory, STABILITY)


def load_stability(directory: Path) -> StabilityNetwork | None:
    """:func:`~crystalvae.refinement.pretrained.load_network` of such a network."""
    return load_network(StabilityNetwork, StabilityConfig, directory, STABILITY)
