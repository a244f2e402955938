"""Decoding: from latent vectors to complete, symmetric, collision-free crystals."""

from crystalvae.generation.decode import (
    Constraints,
    Generated,
    SamplingOptions,
    generate,
)

__all__ = ["Constraints", "Generated", "SamplingOptions", "generate"]
