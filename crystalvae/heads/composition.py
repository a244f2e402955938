"""Elements and counts of the composition, one after the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crystalvae.nn.basic import mlp, rows_of
from crystalvae.nn.wyckoff import MAX_Z

MASKED = -1e9


class CompositionHead(nn.Module):
    """Next element (ascending atomic number, 0 for stop), then its count.

    Beside the perceptrons, both read the latent through one linear map per element, so
    that what is learned of oxygen's count in one company holds in every other.

    Args:
        dim: size of decoder states.
        latent_dim: latent dimensions.
        max_count: largest count of an element in the primitive cell.
        readout_dim: size of the per-element readout of the latent.
    """

    def __init__(
        self, dim: int, latent_dim: int, max_count: int, readout_dim: int = 64
    ):
        super().__init__()
        self.element = mlp(dim, dim, MAX_Z)
        self.element_readout = nn.Linear(latent_dim, MAX_Z)
        self.readout = nn.Linear(latent_dim, readout_dim)
        self.key = nn.Embedding(MAX_Z, readout_dim)
        self.species = nn.Embedding(MAX_Z, dim)
        self.count = mlp(2 * dim + readout_dim, dim, max_count + 1)
        nn.init.zeros_(self.element_readout.weight)

    def element_logits(self, state: Tensor, latent: Tensor, previous: Tensor) -> Tensor:
        """Logits of the next element.

        Args:
            state: decoder states ``(M, dim)``.
            latent: latent vectors ``(M, D)``.
            previous: atomic number before, 0 at the start, ``(M,)``.

        Returns:
            ``(M, 119)``; 0 stands for stop, which is not allowed at the start.
        """
        logits = self.element(state).float() + self.element_readout(latent).float()
        z = torch.arange(MAX_Z, device=logits.device)
        start = (previous == 0)[:, None]
        allowed = (z > previous[:, None]) | ((z == 0) & ~start)
        return logits.masked_fill(~allowed, MASKED)

    def count_logits(self, state: Tensor, latent: Tensor, element: Tensor) -> Tensor:
        """Logits of the count of ``element``, ``(M, max_count + 1)``; 0 is masked."""
        readout = self.readout(latent) * self.key(element)
        inputs = torch.cat([state, self.species(element), readout], -1)
        logits = self.count(inputs).float()
        return torch.cat([torch.full_like(logits[:, :1], MASKED), logits[:, 1:]], 1)

    def loss(
        self, state: Tensor, latent: Tensor, element: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Negative log-likelihoods in nats.

        Args:
            state: states before each element and before the stop, ``(B, C + 1, dim)``.
            latent: ``(B, D)``.
            element: true elements, 0 for padding, ``(B, C)``.
            count: true counts ``(B, C)``.

        Returns:
            Element and count terms per crystal, each ``(B,)``.
        """
        size, slots = element.shape
        zero = element.new_zeros(size, 1)
        target = torch.cat([element, zero], 1)
        previous = torch.cat([zero, element], 1)
        before = torch.cat([torch.ones_like(zero), element], 1)

        place, counts = rows_of(before > 0)
        owner = place // (slots + 1)
        logits = self.element_logits(
            state.flatten(0, 1)[place], latent[owner], previous.flatten()[place]
        )
        nll = F.cross_entropy(logits, target.flatten()[place], reduction="none")
        element_loss = nll.new_zeros(size).index_add_(0, owner, nll * counts)

        place, counts = rows_of(element > 0)
        owner = place // slots
        known = element.flatten()[place]
        logits = self.count_logits(
            state[:, :slots].flatten(0, 1)[place], latent[owner], known
        )
        nll = F.cross_entropy(logits, count.flatten()[place], reduction="none")
        return element_loss, nll.new_zeros(size).index_add_(0, owner, nll * counts)
