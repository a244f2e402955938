"""Free fractional coordinates of a site: wrapped normal mixtures on the torus."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crystalvae.geometry.torus import torus_difference
from crystalvae.nn.basic import TorusFourier, mlp, rows_of

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
LOG_SCALE_MIN = math.log(1e-3)
LOG_SCALE_MAX = math.log(0.15)


class CoordinateHead(nn.Module):
    """Each free coordinate given those before it, as a mixture of wrapped normals.

    With scales of at most 0.15 the nearest image carries all but 9e-4 of a wrapped
    normal's mass, so the density uses the minimum image d - round(d) alone.

    Args:
        dim: size of decoder states and of position and element embeddings.
        num_components: wrapped normals in the mixture.
    """

    def __init__(self, dim: int, num_components: int):
        super().__init__()
        self.num_components = num_components
        self.fourier = TorusFourier()
        self.mixtures = nn.ModuleList(
            mlp(3 * dim + axis * self.fourier.dim, dim, 3 * num_components)
            for axis in range(3)
        )
        for mixture in self.mixtures:
            with torch.no_grad():
                spread = torch.arange(num_components) / num_components
                mixture[2].bias[num_components : 2 * num_components] = spread

    def parameters_of(
        self, axis: int, context: Tensor, previous: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and log-scales of coordinate ``axis``.

        Args:
            axis: 0, 1 or 2.
            context: state, position and element embeddings ``(M, 3 * dim)``.
            previous: the coordinates before it ``(M, axis)``.

        Returns:
            Three tensors ``(M, num_components)``.
        """
        if axis:
            features = self.fourier(previous[:, :axis]).to(context.dtype)
            context = torch.cat([context, features], -1)
        weight, mean, log_scale = self.mixtures[axis](context).float().chunk(3, -1)
        log_scale = (log_scale - 2.5).clamp(LOG_SCALE_MIN, LOG_SCALE_MAX)
        return F.log_softmax(weight, -1), mean, log_scale

    def loss(self, context: Tensor, coords: Tensor, free: Tensor) -> Tensor:
        """Negative log-likelihood in nats of the free coordinates, ``(M,)``.

        Args:
            context: ``(M, 3 * dim)``.
            coords: true coordinates ``(M, 3)``.
            free: which of them are free, ``(M, 3)``.
        """
        total = context.new_zeros(len(context), dtype=torch.float)
        for axis in range(3):
            rows, real = rows_of(free[:, axis])
            log_weight, mean, log_scale = self.parameters_of(
                axis, context[rows], coords[rows]
            )
            offset = torus_difference(coords[rows, axis, None], mean)
            log_prob = log_weight - log_scale - HALF_LOG_2PI
            log_prob = log_prob - 0.5 * (offset * torch.exp(-log_scale)) ** 2
            total = total.index_add(0, rows, -torch.logsumexp(log_prob, -1) * real)
        return total
