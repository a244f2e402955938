"""Curves of a training run."""

from __future__ import annotations

from pathlib import Path

from crystalvae.decoder import PARTS
from crystalvae.training.rows import read_rows


def plot_curves(metrics: Path, output: Path) -> None:
    """Draw loss, rate, parts and active units of ``metrics.csv`` to a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = read_rows(metrics)
    if not rows:
        return

    def column(name: str) -> list[float]:
        return [float(row[name]) for row in rows]

    epochs = column("epoch")
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), layout="constrained")
    axes[0, 0].plot(epochs, column("train_loss"), label="train, all β")
    axes[0, 0].plot(epochs, column("val_loss"), label="validation, mean of 3 β")
    axes[0, 0].set_ylabel("distortion + β rate, nats / crystal")
    for name in ("low", "mid", "high"):
        axes[0, 1].plot(epochs, column(f"val_kl_{name}"), label=f"{name} β")
    axes[0, 1].set_ylabel("rate, nats / crystal")
    axes[0, 1].set_yscale("log")
    for part in PARTS:
        if part not in ("coords", "lattice"):
            axes[1, 0].plot(epochs, column(f"val_{part}"), label=part)
    axes[1, 0].set_ylabel("validation distortion at the smallest β, nats")
    axes[1, 0].set_yscale("log")
    axes[1, 1].plot(epochs, column("active_units"), label="smallest β")
    axes[1, 1].plot(epochs, column("active_units_high"), label="largest β")
    axes[1, 1].set_ylabel("active units")
    for axis in axes.flat:
        axis.set_xlabel("epoch")
        axis.legend()
        axis.grid(alpha=0.3)
    figure.savefig(output, dpi=120)
    pyplot.close(figure)
