"""Properties that a decoder can be told, so that what it draws has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan
from numbers import Real

import torch
from torch import Tensor, nn

from crystalvae.errors import ConfigError

LEVELS = 16
"""Gaussians by which a value enters."""


@dataclass(frozen=True)
class Condition:
    """A property that the decoder can be told, and the range that it may have."""

    name: str = ""
    """Property of the data sets."""
    low: float = 0.0
    """Smallest value that is told apart from smaller ones."""
    high: float = 1.0
    """Largest that is from larger ones."""
    scale: float | None = None
    """Up to which values are resolved evenly; beyond, by their ratio. None resolves
    all evenly."""
    share: float = 0.5
    """Share of the training crystals of which the decoder is told it, where they have
    it. The rest teaches it to do without."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a condition needs the name of a property")
        if not -inf < self.low < self.high < inf:
            raise ValueError(f"{self.name}: low and high are numbers, low below high")
        if self.scale is not None and not 0 < self.scale < inf:
            raise ValueError(f"{self.name}: scale is a number above 0")
        if not 0 < self.share <= 1:
            raise ValueError(f"{self.name}: share is above 0 and at most 1")


class ConditionEmbedding(nn.Module):
    """What the latent is moved by where properties are told.

    Each value is spread over Gaussians on its (half logarithmic) axis; what is not told
    moves nothing. The map starts at zero, so that a trained model that gets conditions
    begins as it was.

    Args:
        conditions: the properties.
        dim: latent dimensions D.
        least_beta: smallest β at which anything is moved.
    """

    def __init__(
        self, conditions: Sequence[Condition], dim: int, least_beta: float = 0.0
    ):
        super().__init__()
        self.least_beta = least_beta
        scales = [inf if c.scale is None else c.scale for c in conditions]
        self.register_buffer("scale", torch.tensor(scales), persistent=False)
        ends = torch.tensor([[c.low, c.high] for c in conditions])
        self.register_buffer("ends", ends, persistent=False)
        self.linear = nn.Linear(LEVELS * len(conditions), dim, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, values: Tensor, beta: Tensor) -> Tensor:
        """Shifts ``(B, D)``.

        Args:
            values: of the properties ``(B, P)``, NaN for what is not told.
            beta: β of each crystal ``(B,)``.
        """
        low, high = self._axis(self.ends.T)
        place = self._axis(values.to(self.scale.device))
        place = ((place - low) / (high - low)).clamp(0, 1) * (LEVELS - 1)
        level = torch.arange(LEVELS, device=place.device)
        bumps = torch.exp(-0.5 * (place[..., None] - level) ** 2)
        heard = (beta >= self.least_beta)[:, None, None]
        return self.linear((bumps.nan_to_num(0.0) * heard).flatten(1))

    def _axis(self, values: Tensor) -> Tensor:
        """Where values ``(..., P)`` lie on their axes."""
        bent = torch.asinh(values / self.scale)
        return torch.where(self.scale.isinf(), values, bent)


Told = Mapping[str, float | Sequence[float] | None]
"""Property → its value, or quantiles of its distribution, evenly spaced from the
smallest to the largest value; None does not tell it."""


def told_values(
    conditions: Sequence[Condition],
    told: Told,
    size: int,
    generator: torch.Generator | None = None,
) -> Tensor | None:
    """Values for a batch ``(size, P)``, NaN for what is not told.

    Args:
        conditions: what the model can be told.
        told: what it is told.
        size: crystals.
        generator: of the draws between quantiles, on the CPU.

    Returns:
        None where nothing is told.

    Raises:
        ConfigError: the model cannot be told such a property or value.
    """
    require_conditions(conditions, told)
    if not told:
        return None
    values = torch.full((size, len(conditions)), nan)
    for column, condition in enumerate(conditions):
        value = told.get(condition.name)
        if isinstance(value, Sequence):
            quantiles = torch.tensor(value, dtype=torch.float)
            place = torch.rand(size, generator=generator) * (len(value) - 1)
            left = place.long().clamp(max=len(value) - 2)
            values[:, column] = torch.lerp(
                quantiles[left], quantiles[left + 1], place - left
            )
        elif value is not None:
            values[:, column] = value
    return values


def require_conditions(conditions: Sequence[Condition], told: Told) -> None:
    """Refuse what a model cannot be told.

    Raises:
        ConfigError: it knows no such property, or a value is no number or out of its
            range; or these are no properties and values.
    """
    if not isinstance(told, Mapping):
        raise ConfigError(
            f"conditions map properties to values, {{'band_gap': 2.0}}, not {told!r}"
        )
    known = {c.name: c for c in conditions}
    for name, value in told.items():
        if name not in known:
            raise ConfigError(
                f"this model cannot be told {name!r}"
                + (f"; it knows {', '.join(known)}" if known else ", or anything else")
            )
        if value is None:
            continue
        low, high = known[name].low, known[name].high
        several = isinstance(value, Sequence) and not isinstance(value, str)
        numbers = list(value) if several else [value]
        if not all(isinstance(number, Real) for number in numbers):
            raise ConfigError(f"{name} is told as a number, not {value!r}")
        if several and len(numbers) < 2:
            raise ConfigError(f"{name}: a distribution has two quantiles at least")
        for number in numbers:
            if not low <= number <= high:
                raise ConfigError(
                    f"{name} goes from {low:g} to {high:g} in this model; {number:g} "
                    "is outside"
                )
