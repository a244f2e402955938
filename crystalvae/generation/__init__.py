"""Decoding: from latent vectors to complete, symmetric, collision-free crystals."""

from crystalvae.generation.constraints import Constraints
from crystalvae.generation.decode import generate
from crystalvae.generation.options import Generated, Refinement, SamplingOptions

__all__ = ["Constraints", "Generated", "Refinement", "SamplingOptions", "generate"]
