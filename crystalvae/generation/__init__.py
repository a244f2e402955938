"""Decoding: from latent vectors to complete, symmetric, collision-free crystals."""

from crystalvae.generation.decode import generate
from crystalvae.generation.options import (
    Constraints,
    Generated,
    Refinement,
    SamplingOptions,
)

__all__ = ["Constraints", "Generated", "Refinement", "SamplingOptions", "generate"]
