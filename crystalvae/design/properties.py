"""A property from the latent vector, and how wrong it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor, nn

from crystalvae.batch import CrystalStore
from crystalvae.data.packed import PackedDataset
from crystalvae.errors import DataError
from crystalvae.screening.density import density_of

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE

COMPUTED: dict[str, Callable[[AsymmetricUnit], float]] = {
    "density": density_of,
    "volume_per_atom": lambda crystal: crystal.volume / crystal.num_atoms,
}
"""What every data set has: g/cm³ and Å³."""
HELD_OUT = 0.1
"""Share of the crystals that the regression is judged on; as many calibrate it."""
EPOCHS = (30, 100)
"""Fewest and most passes over the others."""
NEIGHBORS = 50
"""Calibration crystals that an uncertainty is taken from."""
STEPS = 1200
"""Steps that the number of passes aims at."""
BATCH = 256
"""Crystals a step."""
LEAST = 100
"""Values from which a regression is tried."""


def property_values(dataset: PackedDataset, name: str) -> np.ndarray:
    """A property of all crystals of a data set, NaN where absent, ``(len(dataset),)``.

    Raises:
        DataError: it has no such property.
    """
    if name in dataset.properties:
        return np.asarray(dataset.properties[name], dtype=float)
    if name in COMPUTED:
        return np.array([COMPUTED[name](crystal) for crystal in dataset])
    known = sorted({*dataset.properties, *COMPUTED})
    raise DataError(
        f"{dataset.path} has no property {name!r}; it has {', '.join(known)}"
    )


def num_epochs(values: np.ndarray) -> int:
    """Passes over the crystals whose property is known: more where there are few."""
    steps = max(1.0, np.isfinite(values).sum() * (1 - 2 * HELD_OUT) / BATCH)
    return int(np.clip(np.ceil(STEPS / steps), *EPOCHS))


class Ensemble(nn.Module):
    """Perceptrons of three layers side by side.

    Args:
        members: how many.
        in_dim: size of the input.
        hidden_dim: size of the hidden layers.
        dropout: on these.
    """

    def __init__(
        self, members: int, in_dim: int, hidden_dim: int = 256, dropout: float = 0.1
    ):
        super().__init__()
        sizes = (in_dim, hidden_dim, hidden_dim, 1)
        self.weights = nn.ParameterList(
            torch.randn(members, before, after) / before**0.5
            for before, after in pairwise(sizes)
        )
        self.biases = nn.ParameterList(
            torch.zeros(members, 1, after) for after in sizes[1:]
        )
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_dim)`` or ``(members, N, in_dim)`` to ``(members, N)``."""
        state = x if x.ndim == 3 else x.expand(len(self.biases[0]), *x.shape)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            if layer:
                state = nn.functional.silu(state)
                state = nn.functional.dropout(state, self.dropout, self.training)
            state = torch.baddbmm(bias, state, weight)
        return state.squeeze(-1)


@dataclass
class Calibration:
    """How wrong an ensemble was on crystals that it was not trained on."""

    mean: np.ndarray
    """Predictions ``(M,)``."""
    spread: np.ndarray
    """Standard deviations over the members ``(M,)``."""
    error: np.ndarray
    """Prediction minus truth ``(M,)``."""

    def __call__(self, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Standard errors of predictions ``(N,)``.

        The root mean square error of the :data:`NEIGHBORS` crystals that are nearest in
        prediction and logarithm of the members' spread, and as much more as the members
        disagree more than on these. Members agree too well where they are wrong in the
        same way, above all near a mass of equal values (band gaps of metals).
        """
        scale = max(float(self.mean.std()), 1e-12)
        least = 1e-3 * scale
        own = np.stack([mean / scale, np.log(spread + least)], -1)
        known = np.stack([self.mean / scale, np.log(self.spread + least)], -1)
        tree = KDTree(known)
        near = tree.query(own, min(NEIGHBORS, len(known)))[1].reshape(len(own), -1)
        error = np.sqrt(np.square(self.error[near]).mean(1))
        usual = np.sqrt(np.square(self.spread[near]).mean(1)) + least
        return error * np.maximum(1.0, spread / usual)


@dataclass
class PropertyModel:
    """A property as a function of the posterior's mean at the smallest β."""

    ensemble: Ensemble
    """From standardised latents to standardised values."""
    latent_mean: Tensor
    """Over the training crystals ``(D,)``."""
    latent_spread: Tensor
    """Over the training crystals ``(D,)``."""
    mean: float
    """Of the training values."""
    spread: float
    """Of the training values."""
    calibration: Calibration | None = None
    """What uncertainties are taken from; None is the members' spread."""
    truth: np.ndarray = field(default_factory=lambda: np.empty(0))
    """Values of the crystals held out ``(H,)``."""
    predicted: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0))
    """Predictions and standard errors of these, ``(H,)`` each."""
    trained_on: int = 0
    """Training crystals."""

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Predictions and standard errors ``(N,)`` from latents ``(N, D)``."""
        self.ensemble.eval()
        x = (latents - self.latent_mean) / self.latent_spread
        values = (self.ensemble(x) * self.spread + self.mean).double().cpu().numpy()
        mean, spread = values.mean(0), values.std(0)
        if self.calibration is None:
            return mean, spread
        return mean, self.calibration(mean, spread)

    def predict(
        self, model: CrystalVAE, crystals: Sequence[AsymmetricUnit]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same of crystals."""
        if not crystals:
            return np.empty(0), np.empty(0)
        return self(model.encode(crystals).mu)


def fit_property(
    model: CrystalVAE,
    dataset: PackedDataset,
    values: np.ndarray,
    *,
    members: int = 4,
    epochs: int | None = None,
    seed: int = 0,
    advance: Callable[[], object] | None = None,
) -> PropertyModel:
    """Learn a property of a data set from its crystals' latent vectors.

    Each member sees the training crystals in an order and with bootstrap weights of its
    own (B. Lakshminarayanan et al., Deep Ensembles, NeurIPS 30 (2017)), under the
    absolute error.

    Args:
        model: encodes the crystals.
        dataset: the crystals.
        values: the property of each, NaN where it is unknown.
        members: of the ensemble.
        epochs: passes over the training crystals; None is :func:`num_epochs`.
        seed: of the split, the weights and the order.
        advance: called after each pass.

    Raises:
        DataError: fewer than :data:`LEAST` values are known, or all are equal.
    """
    rows = np.flatnonzero(np.isfinite(values))
    if len(rows) < LEAST:
        raise DataError(
            f"only {len(rows)} crystals of {dataset.path} have this property; "
            f"{LEAST} are needed to learn it"
        )
    generator = torch.Generator().manual_seed(seed)
    rows = rows[torch.randperm(len(rows), generator=generator).numpy()]
    store = CrystalStore.from_packed(dataset, rows)
    latents = model.encode_store(store).mu.detach()
    target = torch.as_tensor(values[rows], dtype=latents.dtype, device=latents.device)
    held = max(1, round(HELD_OUT * len(rows)))
    x, y = latents[2 * held :], target[2 * held :]
    spread = float(y.std())
    if not spread > 0:
        raise DataError(f"all crystals of {dataset.path} have the same value of it")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ensemble = Ensemble(members, latents.shape[1]).to(latents.device)
        centre, width = x.mean(0), x.std(0).clamp(min=1e-6)
        found = PropertyModel(ensemble, centre, width, float(y.mean()), spread)
        x, y = (x - centre) / width, (y - y.mean()) / spread
        _train(ensemble, x, y, epochs or num_epochs(values), advance)
    mean, members_spread = found(latents[held : 2 * held])
    error = mean - values[rows[held : 2 * held]]
    found.calibration = Calibration(mean, members_spread, error)
    found.truth = values[rows[:held]]
    found.predicted = found(latents[:held])
    found.trained_on = len(y)
    return found


def _train(
    ensemble: Ensemble,
    x: Tensor,
    y: Tensor,
    epochs: int,
    advance: Callable[[], object] | None,
) -> None:
    members, size = len(ensemble.biases[0]), len(x)
    weight = torch.poisson(torch.ones(members, size)).to(x.device)
    steps = epochs * -(-size // BATCH)
    optimizer = torch.optim.AdamW(ensemble.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    ensemble.train()
    for _ in range(epochs):
        order = torch.stack([torch.randperm(size) for _ in range(members)])
        for rows in order.to(x.device).split(BATCH, dim=1):
            error = (ensemble(x[rows]) - y[rows]).abs() * weight.gather(1, rows)
            optimizer.zero_grad()
            error.mean(1).sum().backward()
            optimizer.step()
            schedule.step()
        if advance is not None:
            advance()
