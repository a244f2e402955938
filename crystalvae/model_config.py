"""What defines the shape of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from crystalvae.conditions import Condition, Told, require_conditions
from crystalvae.decoder import DecoderConfig
from crystalvae.encoders import ENCODERS
from crystalvae.errors import ConfigError
from crystalvae.latent import LatentConfig
from crystalvae.prior import PriorConfig


@dataclass(frozen=True)
class EncoderConfig:
    """Which encoder of :data:`crystalvae.encoders.ENCODERS`, and its options."""

    name: str = "moment"
    """Name in the table."""
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of that encoder's own config."""

    def __post_init__(self) -> None:
        if self.name not in ENCODERS:
            raise ConfigError(
                f"unknown encoder {self.name!r}; known are {', '.join(ENCODERS)}"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Everything that defines the shape of a model."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The encoder."""
    latent: LatentConfig = field(default_factory=LatentConfig)
    """The latent space."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """The decoder."""
    prior: PriorConfig = field(default_factory=PriorConfig)
    """The prior from which latents are drawn."""
    conditions: list[Condition] = field(default_factory=list)
    """Properties that the decoder can be told."""
    told_beta: float = 0.1
    """Smallest β at which it listens; below, the latent says what a crystal is."""

    def __post_init__(self) -> None:
        names = [condition.name for condition in self.conditions]
        if len(set(names)) < len(names):
            raise ValueError(f"a condition is named twice: {', '.join(sorted(names))}")
        if self.conditions and not 0 <= self.told_beta <= self.latent.beta_max:
            raise ValueError(
                f"told_beta goes from 0 to latent.beta_max, not {self.told_beta}"
            )

    def require_heard(self, asked: Told, beta: float) -> None:
        """Refuse to tell a decoder what it does not know or will not listen to.

        Args:
            asked: what was asked for.
            beta: the knob.

        Raises:
            ConfigError: it cannot be told that, or not at this β.
        """
        require_conditions(self.conditions, asked)
        least = self.told_beta
        if beta < least and any(value is not None for value in asked.values()):
            raise ConfigError(
                f"this model listens to conditions from beta {least:g} upwards, not at "
                f"{beta:g}"
            )
