"""Encoders: a table of interchangeable networks over the orbit graph."""

from torch import nn

from crystalvae.encoders.base import Encoder, orbit_data
from crystalvae.encoders.gated import GatedConfig, GatedEncoder
from crystalvae.encoders.moment import MomentConfig, MomentEncoder
from crystalvae.nn.wyckoff import WyckoffTables

ENCODERS: dict[str, tuple[type, type[nn.Module]]] = {
    "gated": (GatedConfig, GatedEncoder),
    "moment": (MomentConfig, MomentEncoder),
}

__all__ = ["ENCODERS", "Encoder", "build_encoder", "orbit_data"]


def build_encoder(name: str, config: object, tables: WyckoffTables) -> Encoder:
    """Make the encoder ``name`` of :data:`ENCODERS` from its config."""
    return ENCODERS[name][1](config, tables)
