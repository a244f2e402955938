"""The lattice: a Gaussian mixture on the free log-Cholesky coordinates of a group."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crystalvae.geometry.lattice import FREE_COORDS
from crystalvae.nn.basic import mlp

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class LatticeHead(nn.Module):
    """Mixture over the size-free log-Cholesky coordinates, as many as the system frees.

    Whatever comes out, completing the coordinates by symmetry gives a valid cell of
    the group (:func:`crystalvae.geometry.lattice.complete_coords`).

    Args:
        dim: size of decoder states.
        num_components: Gaussians in the mixture.
    """

    def __init__(self, dim: int, num_components: int):
        super().__init__()
        self.num_components = num_components
        self.mixture = mlp(dim, dim, 13 * num_components)
        free = torch.as_tensor(FREE_COORDS).float()
        self.register_buffer("free", free, persistent=False)
        with torch.no_grad():
            bias = self.mixture[2].bias[num_components:].view(num_components, 12)
            bias[:, :3] = 0.8 + 0.3 * torch.randn(num_components, 3)
            bias[:, 3:6] = 0.3 * torch.randn(num_components, 3)

    def parameters_of(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights ``(B, M)``, means ``(B, M, 6)`` and log-scales ``(B, M, 6)``."""
        raw = self.mixture(state).float()
        log_weight = F.log_softmax(raw[:, : self.num_components], -1)
        rest = raw[:, self.num_components :].view(len(raw), self.num_components, 12)
        mean, log_scale = rest.chunk(2, -1)
        return log_weight, mean, (log_scale - 2).clamp(-6, 1)

    def loss(self, state: Tensor, coords: Tensor, system: Tensor) -> Tensor:
        """Negative log-likelihood in nats, ``(B,)``.

        Args:
            state: decoder states ``(B, dim)``.
            coords: size-free log-Cholesky coordinates ``(B, 6)``.
            system: crystal-system index ``(B,)``.
        """
        log_weight, mean, log_scale = self.parameters_of(state)
        z = (coords[:, None] - mean) * torch.exp(-log_scale)
        nll = (0.5 * z**2 + log_scale + HALF_LOG_2PI) * self.free[system][:, None]
        return -torch.logsumexp(log_weight - nll.sum(-1), -1)
