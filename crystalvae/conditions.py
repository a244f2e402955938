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
class Quantity:
    """A property of crystals, and the range in which its values are told apart."""

    name: str = ""
    """Property of the data sets."""
    low: float = 0.0
    """Smallest value that is told apart from smaller ones."""
    high: float = 1.0
    """Largest that is from larger ones."""
    scale: float | None = None
    """Up to which values are resolved evenly; beyond, by their ratio. None resolves
    all evenly."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a property needs its name")
        if not -inf < self.low < self.high < inf:
            raise ValueError(f"{self.name}: low and high are numbers, low below high")
        if self.scale is not None and not 0 < self.scale < inf:
            raise ValueError(f"{self.name}: scale is a number above 0")


@dataclass(frozen=True)
class Condition(Quantity):
    """A property that the decoder can be told."""

    share: float = 0.5
    """Share of the training crystals of which the decoder is told it, where they have
    it. The rest teaches it to do without."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise ValueError(f"{self.name}: share is above 0 and at most 1")


class Axes(nn.Module):
    """Places of values between the ends of their ranges, 0 to 1, evenly resolved.

    Args:
        quantities: P properties.
    """

    def __init__(self, quantities: Sequence[Quantity]):
        super().__init__()
        scales = [inf if q.scale is None else q.scale for q in quantities]
        self.register_buffer("scale", torch.tensor(scales), persistent=False)
        ends = torch.tensor([[q.low, q.high] for q in quantities])
        self.register_buffer("ends", ends, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Places of values ``(..., P)``, those beyond an end at the end."""
        low, high = self._bent(self.ends.T)
        return ((self._bent(values) - low) / (high - low)).clamp(0, 1)

    def values(self, place: Tensor) -> Tensor:
        """The inverse, of places ``(..., P)``."""
        low, high = self._bent(self.ends.T)
        bent = low + place.clamp(0, 1) * (high - low)
        return torch.where(self.scale.isinf(), bent, bent.sinh() * self.scale)

    def _bent(self, values: Tensor) -> Tensor:
        bent = torch.asinh(values / self.scale)
        return torch.where(self.scale.isinf(), values, bent)


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
        self.axes = Axes(conditions)
        self.linear = nn.Linear(LEVELS * len(conditions), dim, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, values: Tensor, beta: Tensor) -> Tensor:
        """Shifts ``(B, D)``.

        Args:
            values: of the properties ``(B, P)``, NaN for what is not told.
            beta: β of each crystal ``(B,)``.
        """
        place = self.axes(values.to(self.axes.scale.device)) * (LEVELS - 1)
        level = torch.arange(LEVELS, device=place.device)
        bumps = torch.exp(-0.5 * (place[..., None] - level) ** 2)
        heard = (beta >= self.least_beta)[:, None, None]
        return self.linear((bumps.nan_to_num(0.0) * heard).flatten(1))


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
