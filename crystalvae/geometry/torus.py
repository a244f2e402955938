"""Fractional coordinates live on a torus: differences, distances, densities there."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


def wrap(coords: Tensor) -> Tensor:
    """Into [0, 1), any shape."""
    return coords - torch.floor(coords)


def torus_difference(x: Tensor, y: Tensor) -> Tensor:
    """Minimum-image difference of fractional coordinates, x - y - round(x - y).

    For losses on the torus; in a skewed cell the nearest image in *space* can be
    another one, see :func:`minimum_image_distance`. Lies in [-1/2, 1/2].
    """
    difference = x - y
    return difference - torch.round(difference)


def _images(lattice: Tensor, reach: int) -> Tensor:
    steps = range(-reach, reach + 1)
    return lattice.new_tensor(list(itertools.product(steps, repeat=3)))


def _reach(lattice: Tensor) -> int:
    """Images needed so that the shortest vector is among them.

    A vector no longer than half the cell's diagonal needs at most
    ceil(½ (|a| + |b| + |c|) / h) cells along an axis of height h.
    """
    metric = lattice @ lattice.transpose(-1, -2)
    lengths = metric.diagonal(dim1=-2, dim2=-1).sqrt()
    heights = torch.linalg.inv(metric).diagonal(dim1=-2, dim2=-1).rsqrt()
    needed = 0.5 * lengths.sum(-1, keepdim=True) / heights + 0.5
    return max(1, math.ceil(float(needed.max()) - 1e-6))


def minimum_image_distance(frac_i: Tensor, frac_j: Tensor, lattice: Tensor) -> Tensor:
    """True distance to the nearest image, in Å, in any cell however skewed.

    Args:
        frac_i: ``(..., 3)``.
        frac_j: ``(..., 3)``, broadcast against ``frac_i``.
        lattice: ``(..., 3, 3)``, broadcast likewise.

    Returns:
        ``(...)``.
    """
    delta = torus_difference(frac_i, frac_j)
    images = _images(lattice, _reach(lattice))
    vectors = (delta[..., None, :] + images) @ lattice
    return vectors.square().sum(-1).amin(-1).clamp(min=0).sqrt()


def self_image_distance(lattice: Tensor) -> Tensor:
    """Length of the shortest lattice vector in Å, ``(...)`` for ``(..., 3, 3)``."""
    images = _images(lattice, _reach(lattice))
    images = images[images.abs().sum(-1) > 0]
    return (images @ lattice).square().sum(-1).amin(-1).sqrt()


def wrapped_normal_log_prob(
    x: Tensor, mean: Tensor, log_scale: Tensor, num_images: int = 1
) -> Tensor:
    """Log-density of a normal distribution wrapped around the circle of length 1.

    log Σₖ N(x - mean + k; 0, σ²) over k = -num_images ... num_images, after the minimum
    image. Reference: K. V. Mardia and P. E. Jupp, Directional Statistics (2000),
    section 3.5.7.

    Args:
        x: points, broadcast against the parameters.
        mean: centres.
        log_scale: log σ.
        num_images: images on each side of the nearest.
    """
    shift = torch.arange(-num_images, num_images + 1, device=x.device, dtype=mean.dtype)
    offset = torus_difference(x, mean)[..., None] + shift
    scale = log_scale[..., None]
    terms = (
        -0.5 * (offset * torch.exp(-scale)) ** 2 - scale - 0.5 * math.log(2 * math.pi)
    )
    return torch.logsumexp(terms, -1)
