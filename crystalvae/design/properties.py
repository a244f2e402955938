"""A property from the latent vector: an ensemble of perceptrons, and how good it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
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
"""Share of the crystals that the regression is judged on."""
EPOCHS = 30
"""Passes over the others."""
LEAST = 50
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
    metrics: dict[str, float]
    """On crystals held out: mean absolute ``error``, ``r2``, ``baseline`` (the error of
    always saying the mean), ``uncertainty_rank`` (Spearman correlation of error and
    spread of the members), and the numbers of crystals."""

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation over the members from latents ``(N, D)``."""
        self.ensemble.eval()
        x = (latents - self.latent_mean) / self.latent_spread
        values = self.ensemble(x) * self.spread + self.mean
        return values.mean(0).cpu().numpy(), values.std(0).cpu().numpy()

    def predict(
        self, model: CrystalVAE, crystals: Sequence[AsymmetricUnit]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same of crystals in canonical form."""
        return self(model.encode(crystals).mu)


def fit_property(
    model: CrystalVAE,
    dataset: PackedDataset,
    values: np.ndarray,
    *,
    members: int = 4,
    epochs: int = EPOCHS,
    batch_size: int = 512,
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
        epochs: passes over the training crystals.
        batch_size: crystals a step.
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
    x, y = latents[held:], target[held:]
    spread = float(y.std())
    if not spread > 0:
        raise DataError(f"all crystals of {dataset.path} have the same value of it")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ensemble = Ensemble(members, latents.shape[1]).to(latents.device)
        found = PropertyModel(
            ensemble, x.mean(0), x.std(0).clamp(min=1e-6), float(y.mean()), spread, {}
        )
        x, y = (x - found.latent_mean) / found.latent_spread, (y - y.mean()) / spread
        _train(ensemble, x, y, epochs, batch_size, advance)
    mean, doubt = found(latents[:held])
    truth = values[rows[:held]]
    error = np.abs(mean - truth)
    total = np.square(truth - truth.mean()).sum()
    found.metrics = {
        "error": float(error.mean()),
        "baseline": float(np.abs(truth - truth.mean()).mean()),
        "r2": float(1 - np.square(mean - truth).sum() / total) if total else 0.0,
        "uncertainty_rank": _rank_correlation(error, doubt),
        "held_out": held,
        "trained_on": len(rows) - held,
    }
    return found


def _train(
    ensemble: Ensemble,
    x: Tensor,
    y: Tensor,
    epochs: int,
    batch_size: int,
    advance: Callable[[], object] | None,
) -> None:
    members, size = len(ensemble.biases[0]), len(x)
    weight = torch.poisson(torch.ones(members, size)).to(x.device)
    steps = epochs * -(-size // batch_size)
    optimizer = torch.optim.AdamW(ensemble.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    ensemble.train()
    for _ in range(epochs):
        order = torch.stack([torch.randperm(size) for _ in range(members)])
        for rows in order.to(x.device).split(batch_size, dim=1):
            error = (ensemble(x[rows]) - y[rows]).abs() * weight.gather(1, rows)
            optimizer.zero_grad()
            error.mean(1).sum().backward()
            optimizer.step()
            schedule.step()
        if advance is not None:
            advance()


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    from scipy.stats import spearmanr

    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(spearmanr(first, second).statistic)
