"""Small building blocks: perceptron, radial basis, Fourier features on the torus."""

import math

import torch
from torch import Tensor, nn


def mlp(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    """One hidden layer with SiLU."""
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, out_dim)
    )


class TorusFourier(nn.Module):
    """Fourier features of fractional coordinates, ``sin`` and ``cos`` of 2πkx.

    Periodic by construction: x and x + 1 have the same features.

    Args:
        num_frequencies: number of integer frequencies k = 1, 2, ...
    """

    def __init__(self, num_frequencies: int = 8):
        super().__init__()
        frequencies = 2 * math.pi * torch.arange(1, num_frequencies + 1)
        self.register_buffer("frequencies", frequencies.float(), persistent=False)
        self.dim = 2 * num_frequencies

    def forward(self, coords: Tensor) -> Tensor:
        """Map ``(..., n)`` dimensionless coordinates to ``(..., n * dim)``."""
        phase = coords[..., None] * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], -1).flatten(-2)


def rows_of(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Flat places where a mask is True, their number rounded up under autocast.

    oneDNN compiles its bfloat16 kernels for every new shape, which took a quarter of
    the training's time on a CPU when each batch had a number of sites of its own.

    Args:
        mask: of any shape.

    Returns:
        Places ``(N,)``, the surplus ones copies of the first, and which of them count,
        ``(N,)``.
    """
    rows = mask.flatten().nonzero().squeeze(1)
    surplus = 0
    if torch.is_autocast_enabled(mask.device.type):
        step = max(16, 1 << max(0, len(rows).bit_length() - 4))
        surplus = -len(rows) % step
    counts = torch.ones(len(rows) + surplus, dtype=torch.bool, device=mask.device)
    counts[len(rows) :] = False
    return torch.cat([rows, rows[:1].expand(surplus)]), counts


LARGEST_EXPONENT = 80.0
"""Where Gaussians end: e^-80 is still a normal number, and smaller ones are slow."""


class RadialBasis(nn.Module):
    """Gaussians on a distance, with the smooth cutoff that makes k-NN graphs exact.

    A k-nearest-neighbour list cuts through a shell of equidistant neighbours at
    random. Here the cutoff of a site is the distance of its last listed neighbour,
    where the envelope ½(cos(πd/d_cut) + 1) has value and slope zero: whichever members
    of the last shell are listed, they do not count.

    Args:
        num_basis: number of Gaussians.
        cutoff: largest distance that counts, in Å.
    """

    def __init__(self, num_basis: int = 32, cutoff: float = 8.0):
        super().__init__()
        centres = torch.linspace(0.5, cutoff, num_basis)
        self.register_buffer("centres", centres, persistent=False)
        self.width = 1.2 * float(centres[1] - centres[0])
        self.cutoff = cutoff
        self.dim = num_basis

    def forward(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Expand sorted neighbour distances.

        Args:
            distance: distances in Å, ascending along the last axis, ``(N, K)``.

        Returns:
            Basis values ``(N, K, num_basis)`` and envelope ``(N, K, 1)``.
        """
        exponent = ((distance[..., None] - self.centres) / self.width).square()
        basis = torch.exp(-exponent.clamp(max=LARGEST_EXPONENT))
        cut = distance[..., -1:].clamp(max=self.cutoff)
        ratio = (distance / cut).clamp(max=1.0)
        return basis, (0.5 * (torch.cos(math.pi * ratio) + 1))[..., None]


class SlotReadout(nn.Module):
    """Linear readout of the latent for the j-th item of a sequence.

    The counterpart of what enters the posterior's mean linearly by place. Items beyond
    the last slot get zero.

    Args:
        latent_dim: latent dimensions.
        num_slots: places with a readout of their own.
        rank: numbers read for each place.
        dim: size of the result.
    """

    def __init__(self, latent_dim: int, num_slots: int, rank: int, dim: int):
        super().__init__()
        self.num_slots = num_slots
        self.read = nn.Linear(latent_dim, num_slots * rank, bias=False)
        self.spread = nn.Linear(rank, dim, bias=False)

    def forward(self, z: Tensor, start: int, stop: int) -> Tensor:
        """Readouts of the places ``start`` to ``stop``, ``(B, stop - start, dim)``."""
        end = min(stop, self.num_slots)
        if start >= end:
            return z.new_zeros(len(z), stop - start, self.spread.out_features)
        rank = self.spread.in_features
        weight = self.read.weight[start * rank : end * rank]
        values = nn.functional.linear(z, weight).unflatten(1, (end - start, rank))
        found = self.spread(values)
        return nn.functional.pad(found, (0, 0, 0, stop - end))
