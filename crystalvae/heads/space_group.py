"""The space group: one of 230."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crystalvae.heads.composition import MASKED
from crystalvae.nn.basic import mlp


class SpaceGroupHead(nn.Module):
    """Categorical distribution over the space-group types.

    Args:
        dim: size of decoder states.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.number = mlp(dim, dim, 231)

    def logits(self, state: Tensor) -> Tensor:
        """Logits over numbers 0..230 (0 masked), ``(B, 231)``."""
        logits = self.number(state).float()
        return torch.cat([torch.full_like(logits[:, :1], MASKED), logits[:, 1:]], 1)

    def loss(self, state: Tensor, number: Tensor) -> Tensor:
        """Negative log-likelihood in nats, ``(B,)``."""
        return F.cross_entropy(self.logits(state), number, reduction="none")
