"""What a model keeps as β grows: the rate-distortion curve and what is lost first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from crystalvae.batch import CrystalStore
from crystalvae.benchmark.generation import benchmark_valid
from crystalvae.decoder import PARTS
from crystalvae.design.reconstruct import reconstruct
from crystalvae.design.sample import raw_draws
from crystalvae.training.validation import active_units

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE


@torch.no_grad()
def tradeoff(
    model: CrystalVAE,
    crystals: Sequence[AsymmetricUnit],
    *,
    points: int = 8,
    num_draws: int = 200,
    seed: int = 0,
    batch_size: int = 256,
    advance: Callable[[], object] | None = None,
) -> list[dict[str, float]]:
    """Measure a model along its range of β.

    Args:
        model: the model.
        crystals: held-out crystals.
        points: values of β, logarithmically spaced.
        num_draws: crystals drawn from the prior at each; 0 for none.
        seed: of the noise and the draws.
        batch_size: crystals at a time.
        advance: called after each β.

    Returns:
        A row for each β: ``rate`` and ``distortion`` (nats per crystal, z drawn from
        the posterior), the distortion of each part, ``active_units``, the shares of
        ``crystals`` whose composition, group, and Wyckoff letters with elements are
        decoded right in one greedy pass, and of the draws that are ``complete`` and
        ``valid`` (structure and SMACT, all draws counted).
    """
    latent = model.config.latent
    ladder = torch.logspace(
        math.log10(latent.beta_min), math.log10(latent.beta_max), points
    ).tolist()
    store = CrystalStore.from_crystals(crystals).to(model.device)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for value in ladder:
        row: dict[str, float] = {"beta": value}
        sums = dict.fromkeys(("rate", *PARTS), 0.0)
        means = []
        for index in torch.arange(len(store)).split(batch_size):
            batch = store.batch(index)
            beta = model.beta_tensor(value, len(index))
            found = model(batch, beta, generator)
            sums["rate"] += float(found.kl.sum())
            for part in PARTS:
                sums[part] += float(found.parts[part].sum())
            means.append(found.posterior.mu)
        row |= {name: total / len(store) for name, total in sums.items()}
        row["distortion"] = sum(row[part] for part in PARTS)
        row["active_units"] = active_units(torch.cat(means))
        again = list(zip(reconstruct(model, crystals, beta=value), crystals))
        tests = {
            "composition_right": lambda c, t: c.composition == t.composition,
            "group_right": lambda c, t: c.number == t.number,
            "sites_right": _same_sites,
        }
        for name, test in tests.items():
            right = sum(c is not None and test(c, t) for c, t in again)
            row[name] = right / len(crystals)
        if num_draws:
            drawn = raw_draws(
                model, num_draws, seed=seed, beta=value, refine={"passes": 0}
            )
            kept = [crystal for crystal in drawn if crystal is not None]
            row["complete"] = len(kept) / num_draws
            row["valid"] = sum(map(benchmark_valid, kept)) / num_draws
        rows.append(row)
        if advance is not None:
            advance()
    return rows


def _same_sites(first: AsymmetricUnit, second: AsymmetricUnit) -> bool:
    return (
        first.number == second.number
        and first.wyckoffs.tolist() == second.wyckoffs.tolist()
        and first.atomic_numbers.tolist() == second.atomic_numbers.tolist()
    )


def plot_tradeoff(rows: Sequence[dict[str, float]], output: Path) -> None:
    """Draw rate against distortion, parts, what is right, and draws to a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def column(name: str) -> list[float]:
        return [row[name] for row in rows]

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), layout="constrained")
    beta = column("beta")
    axes[0, 0].plot(column("rate"), column("distortion"), "o-")
    for row in rows:
        axes[0, 0].annotate(f"{row['beta']:.2g}", (row["rate"], row["distortion"]))
    axes[0, 0].set_xlabel("rate, nats / crystal (labels: β)")
    axes[0, 0].set_ylabel("distortion, nats / crystal")
    base = rows[0]
    for part in PARTS:
        lost = [row[part] - base[part] for row in rows]
        axes[0, 1].plot(beta, lost, "o-", label=part)
    axes[0, 1].set_ylabel("distortion above that at the smallest β, nats")
    for name in ("composition_right", "group_right", "sites_right"):
        axes[1, 0].plot(beta, column(name), "o-", label=name.replace("_", " "))
    axes[1, 0].set_ylabel("share of crystals, one greedy pass")
    if "valid" in base:
        for name in ("complete", "valid"):
            axes[1, 1].plot(beta, column(name), "o-", label=f"draws, {name}")
    most = max(1, *column("active_units"))
    units = [row["active_units"] / most for row in rows]
    axes[1, 1].plot(beta, units, "k:", label="active units, share of the most")
    for axis in axes.flat[1:]:
        axis.set_xlabel("β")
        axis.set_xscale("log")
        axis.legend()
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    figure.savefig(output, dpi=120)
    pyplot.close(figure)
