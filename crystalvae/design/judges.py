"""What tells a search the property of a crystal, and how wrong that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from crystalvae.data.packed import PackedDataset
from crystalvae.errors import DataError
from crystalvae.properties.score import property_estimates

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE

TRIED = 1000
"""Crystals of a data set on which a network is tried."""


class Judge(Protocol):
    """Predicts a property of crystals."""

    truth: np.ndarray
    """Known values of crystals that it was tried on ``(H,)``."""
    predicted: tuple[np.ndarray, np.ndarray]
    """Predictions and standard errors of these, ``(H,)`` each."""

    def predict(
        self, model: CrystalVAE, crystals: Sequence[AsymmetricUnit]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predictions and standard errors, ``(N,)`` each; NaN where there is none."""


@dataclass
class NetworkJudge:
    """The property network beside a model."""

    name: str
    """Of the property."""
    truth: np.ndarray = field(default_factory=lambda: np.empty(0))
    """Of :class:`Judge`."""
    predicted: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0))
    """Of :class:`Judge`."""

    def predict(
        self, model: CrystalVAE, crystals: Sequence[AsymmetricUnit]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of :class:`Judge`."""
        found = np.full((2, len(crystals)), np.nan)
        each = property_estimates(model.require_properties(), crystals)
        for row, estimates in enumerate(each):
            if self.name in estimates:
                estimate = estimates[self.name]
                found[:, row] = estimate.value, estimate.uncertainty
        return found[0], found[1]


def knows(model: CrystalVAE, name: str) -> bool:
    """Whether the model has a network that judges this property."""
    return model.properties is not None and name in model.properties.names


def try_network(
    model: CrystalVAE,
    name: str,
    dataset: PackedDataset,
    values: np.ndarray,
    *,
    seed: int = 0,
) -> NetworkJudge:
    """A model's property network, tried on some crystals of a data set.

    Args:
        model: with such a network.
        name: of the property, one of the network's.
        dataset: the crystals.
        values: the property of each, NaN where it is unknown.
        seed: of the choice of :data:`TRIED` crystals.

    Raises:
        DataError: no value is known.
    """
    judge = NetworkJudge(name)
    rows = np.flatnonzero(np.isfinite(values))
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:TRIED])
    mean, doubt = judge.predict(model, [dataset[int(row)] for row in rows])
    known = np.isfinite(mean)
    if not known.any():
        raise DataError(
            f"no crystal of {dataset.path} has this property and an estimate of it"
        )
    judge.truth = values[rows][known]
    judge.predicted = mean[known], doubt[known]
    return judge


def accuracy(judge: Judge) -> dict[str, float]:
    """How good a judge is on the crystals that it was tried on.

    Returns:
        Mean absolute ``error``, ``baseline`` (the error of always saying the mean),
        ``r2``, ``within_one`` and ``within_two`` (shares of the crystals whose error is
        at most so many standard errors), ``tried`` (how many).
    """
    mean, doubt = judge.predicted
    error, away = np.abs(mean - judge.truth), judge.truth - judge.truth.mean()
    total = np.square(away).sum()
    return {
        "error": float(error.mean()),
        "baseline": float(np.abs(away).mean()),
        "r2": float(1 - np.square(error).sum() / total) if total else 0.0,
        "within_one": float((error <= doubt).mean()),
        "within_two": float((error <= 2 * doubt).mean()),
        "tried": len(error),
    }
