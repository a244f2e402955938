"""Wyckoff letter and element of the next site."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crystalvae.heads.composition import MASKED
from crystalvae.nn.basic import mlp
from crystalvae.nn.wyckoff import MAX_Z


class WyckoffHead(nn.Module):
    """Letter of the next site, scored against embeddings of the group's positions.

    Args:
        dim: size of decoder states and of position embeddings.
        latent_dim: latent dimensions.
        key_dim: size of queries and keys.
    """

    def __init__(self, dim: int, latent_dim: int, key_dim: int = 128):
        super().__init__()
        self.query = mlp(dim, dim, key_dim)
        self.latent_query = nn.Linear(latent_dim, key_dim)
        self.key = nn.Linear(dim, key_dim)

    def keys(self, table: Tensor) -> Tensor:
        """Keys of all positions from their embeddings ``(231, 27, dim)``."""
        return self.key(table)

    def logits(
        self, state: Tensor, latent: Tensor, keys: Tensor, allowed: Tensor
    ) -> Tensor:
        """Logits of the letters.

        Args:
            state: decoder states ``(B, S, dim)``.
            latent: ``(B, D)``.
            keys: keys of each crystal's group ``(B, 27, key_dim)``.
            allowed: letters that may come, ``(B, S, 27)``.

        Returns:
            ``(B, S, 27)``.
        """
        query = self.query(state) + self.latent_query(latent)[:, None]
        logits = (query @ keys.transpose(1, 2)).float()
        return (logits / query.shape[-1] ** 0.5).masked_fill(~allowed, MASKED)

    def loss(
        self,
        state: Tensor,
        latent: Tensor,
        keys: Tensor,
        allowed: Tensor,
        letter: Tensor,
        place: Tensor,
    ) -> Tensor:
        """Negative log-likelihood in nats of the sites at flat places ``(M,)``."""
        logits = self.logits(state, latent, keys, allowed).flatten(0, 1)[place]
        return F.cross_entropy(logits, letter, reduction="none")


class SpeciesHead(nn.Module):
    """Element of a site, given its Wyckoff position.

    Beside a perceptron, the logits hold Σ_r (P z)_r (U position)_r V_{r,element}: a
    linear readout of the latent for every pair of position and element, the
    counterpart of what enters the posterior's mean linearly.

    Args:
        dim: size of decoder states and of position embeddings.
        latent_dim: latent dimensions.
        rank: terms r of the readout.
    """

    def __init__(self, dim: int, latent_dim: int, rank: int = 128):
        super().__init__()
        self.perceptron = mlp(2 * dim, dim, MAX_Z)
        self.latent_factor = nn.Linear(latent_dim, rank)
        self.position_factor = nn.Linear(dim, rank)
        self.species_factor = nn.Linear(rank, MAX_Z, bias=False)

    def factors(self, latent: Tensor) -> Tensor:
        """What the readout takes from the latent ``(B, D)``, once a crystal."""
        return self.latent_factor(latent)

    def logits(
        self, state: Tensor, latent: Tensor, position: Tensor, allowed: Tensor
    ) -> Tensor:
        """Logits of the elements.

        Args:
            state: decoder states ``(M, dim)``.
            latent: :meth:`factors` of the site's crystal ``(M, rank)``.
            position: embedding of the site's Wyckoff position ``(M, dim)``.
            allowed: elements of which enough atoms remain, ``(M, 119)``.

        Returns:
            ``(M, 119)``.
        """
        logits = self.perceptron(torch.cat([state, position.to(state.dtype)], -1))
        factor = latent * self.position_factor(position)
        logits = logits.float() + self.species_factor(factor).float()
        return logits.masked_fill(~allowed, MASKED)

    def loss(
        self,
        state: Tensor,
        latent: Tensor,
        position: Tensor,
        allowed: Tensor,
        atomic_number: Tensor,
    ) -> Tensor:
        """Negative log-likelihood in nats, ``(M,)``."""
        logits = self.logits(state, latent, position, allowed)
        return F.cross_entropy(logits, atomic_number, reduction="none")
