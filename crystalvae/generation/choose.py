"""Draws from categorical and Gaussian distributions with temperature and nucleus."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from crystalvae.errors import ConfigError


def require_seed(seed: int) -> None:
    """Refuse what is no seed.

    Raises:
        ConfigError: it is no integer.
    """
    if not isinstance(seed, Integral):
        raise ConfigError(f"a seed is an integer, not {seed!r}")


def numbered_stream(seed: int, number: int) -> torch.Generator:
    """The source of randomness of one of many batches, on the CPU.

    Args:
        seed: any integer.
        number: of the batch.
    """
    value = int(seed) * 1_000_003 + number
    if abs(value) >= 2**63:
        value %= 2**63
    return torch.Generator().manual_seed(value)


def choose(
    logits: Tensor,
    temperature: float,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw one class a row; the most likely at temperature 0.

    Args:
        logits: ``(M, classes)``; -1e9 for what is forbidden.
        temperature: 0 for greedy, 1 for the model's own distribution.
        top_p: keep the smallest set of classes with at least this probability
            (A. Holtzman et al., ICLR 2020).
        generator: source of randomness, on the CPU.

    Returns:
        Class indices ``(M,)``.
    """
    if temperature <= 0:
        return logits.argmax(-1)
    probability = torch.softmax(logits.float() / temperature, -1)
    if top_p < 1:
        ranked, order = probability.sort(-1, descending=True)
        kept = ranked.cumsum(-1) - ranked < top_p
        probability = torch.zeros_like(probability).scatter(-1, order, ranked * kept)
    cumulative = probability.cumsum(-1)
    device = generator.device if generator is not None else logits.device
    point = torch.rand(len(logits), 1, generator=generator, device=device)
    point = point.to(logits.device) * cumulative[:, -1:] * (1 - 1e-6)
    return (cumulative <= point).sum(-1).clamp(max=logits.shape[-1] - 1)


def normal(
    mean: Tensor,
    log_scale: Tensor,
    temperature: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw mean + temperature · scale · ε; the mean at temperature 0."""
    if temperature <= 0:
        return mean
    device = generator.device if generator is not None else mean.device
    noise = torch.randn(mean.shape, generator=generator, device=device)
    return mean + temperature * log_scale.exp() * noise.to(mean.device)
