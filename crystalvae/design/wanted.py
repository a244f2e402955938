"""What is asked of crystals beyond the checks: what networks beside a model expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING

from crystalvae.errors import ConfigError
from crystalvae.generation.options import is_share
from crystalvae.properties.score import property_estimates
from crystalvae.screening.base import HULL, CheckResult, add_verdict
from crystalvae.stability.network import HIGHEST
from crystalvae.stability.score import stability_estimates

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE

LIKELY_STABLE = "likely_stable"
"""Name of the check that a stability network makes."""
Window = tuple[float, float]
"""Smallest and largest value that is wanted, maybe infinite."""


@dataclass(frozen=True)
class Wanted:
    """What crystals should probably have."""

    likely_stable: float | None = None
    """Least probability of being stable (:mod:`crystalvae.stability`)."""
    within: Mapping[str, Window] = field(default_factory=dict)
    """Property (:mod:`crystalvae.properties`, or :data:`HULL`) → where its estimate
    should lie."""

    def __post_init__(self) -> None:
        if self.likely_stable is not None and not is_share(self.likely_stable):
            raise ConfigError(
                f"likely_stable is above 0 and at most 1, not {self.likely_stable!r}"
            )
        if not isinstance(self.within, Mapping):
            raise ConfigError(
                "within maps properties to their smallest and largest value, "
                f"{{'band_gap': (1.0, 3.0)}}, not {self.within!r}"
            )
        windows = {name: _window(name, ends) for name, ends in self.within.items()}
        object.__setattr__(self, "within", windows)

    def __bool__(self) -> bool:
        return self.likely_stable is not None or bool(self.within)

    def require(self, model: CrystalVAE) -> None:
        """Refuse a model that cannot judge it.

        Raises:
            ConfigError: it has no such network, or it knows no such property.
        """
        if self.likely_stable is not None or HULL in self.within:
            model.require_stability()
        if HULL in self.within:
            self._require_reachable(HULL, 0.0, HIGHEST)
        names = [name for name in self.within if name != HULL]
        if not names:
            return
        quantities = model.require_properties().config.quantities
        known = {quantity.name: quantity for quantity in quantities}
        for name in names:
            if name not in known:
                others = [*known, *([HULL] if model.stability is not None else [])]
                raise ConfigError(
                    f"this model cannot estimate {name!r}; it knows {', '.join(others)}"
                )
            self._require_reachable(name, known[name].low, known[name].high)

    def _require_reachable(self, name: str, least: float, most: float) -> None:
        low, high = self.within[name]
        if low > most or high < least:
            raise ConfigError(
                f"{name} goes from {least:g} to {most:g} in this model; nothing lies "
                f"within {low:g} to {high:g}"
            )

    def judge(
        self, model: CrystalVAE, crystals: Sequence[AsymmetricUnit]
    ) -> list[dict[str, CheckResult]]:
        """The verdicts on crystals in canonical form; no estimate is none that passes.

        Args:
            model: one that :meth:`require` accepts.
            crystals: any number.
        """
        found: list[dict[str, CheckResult]] = [{} for _ in crystals]
        if self.likely_stable is not None or HULL in self.within:
            estimates = stability_estimates(model.require_stability(), crystals)
            for results, estimate in zip(found, estimates):
                if self.likely_stable is not None:
                    value = 0.0 if estimate is None else estimate.probability
                    likely = bool(value >= self.likely_stable)
                    results[LIKELY_STABLE] = CheckResult(LIKELY_STABLE, likely, value)
                if HULL in self.within:
                    value = None if estimate is None else estimate.e_above_hull
                    add_verdict(results, HULL, value, self.within[HULL])
        names = [name for name in self.within if name != HULL]
        if names:
            columns = property_estimates(model.require_properties(), crystals)
            for results, values in zip(found, columns):
                for name in names:
                    value = values[name].value if name in values else None
                    add_verdict(results, name, value, self.within[name])
        return found


def _window(name: str, ends: Sequence[float]) -> Window:
    try:
        low, high = ends
    except (TypeError, ValueError):
        low = high = None
    if not (isinstance(low, Real) and isinstance(high, Real) and low <= high):
        raise ConfigError(
            f"{name} is to lie between two numbers, the smaller one first, not {ends!r}"
        )
    return float(low), float(high)
