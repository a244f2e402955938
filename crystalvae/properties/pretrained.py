"""Property networks beside the model that they belong to."""

from __future__ import annotations

from pathlib import Path

from crystalvae.properties.network import PropertyConfig, PropertyNetwork
from crystalvae.refinement.pretrained import load_network, save_network

PROPERTIES = "properties"
"""Stem of the files."""


def save_properties(network: PropertyNetwork, directory: Path) -> None:
    """:func:`~crystalvae.refinement.pretrained.save_network` of such a network."""
    save_network(network, directory, PROPERTIES)


def load_properties(directory: Path) -> PropertyNetwork | None:
    """:func:`~crystalvae.refinement.pretrained.load_network` of such a network."""
    return load_network(PropertyNetwork, PropertyConfig, directory, PROPERTIES)
