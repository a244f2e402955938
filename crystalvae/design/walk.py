"""Walks in the latent space: between two crystals, and along axes with a meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from crystalvae.design.properties import COMPUTED
from crystalvae.design.settings import refinement_of
from crystalvae.errors import DataError
from crystalvae.generation import generate
from crystalvae.screening.base import element_table

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE

AXES_BETA = 0.3
"""Where some axes carry much of what is said of MP-20's crystals."""
TINY = 1e-6
"""Variance, and share of it, that is nothing but rounding."""


def axes_beta(model: CrystalVAE) -> float:
    """:data:`AXES_BETA`, within the range that the model was trained for."""
    return model.config.latent.nearest_beta(AXES_BETA)


def _mean_of(what: str) -> Callable[[AsymmetricUnit], float]:
    def mean(crystal: AsymmetricUnit) -> float:
        table, counts = element_table(), crystal.composition
        known = {z: n for z, n in counts.items() if table[z][what] is not None}
        if not known:
            return np.nan
        return sum(table[z][what] * n for z, n in known.items()) / sum(known.values())

    return mean


DESCRIPTORS: dict[str, Callable[[AsymmetricUnit], float]] = {
    **COMPUTED,
    "num_primitive_atoms": lambda crystal: crystal.num_primitive_atoms,
    "num_sites": lambda crystal: len(crystal.wyckoffs),
    "num_elements": lambda crystal: len(crystal.composition),
    "space_group": lambda crystal: crystal.number,
    "mean_mass": _mean_of("mass"),
    "mean_electronegativity": _mean_of("electronegativity"),
    "mean_radius": _mean_of("radius"),
}
"""What axes are compared with; mass in u, radius in Å."""


@torch.no_grad()
def interpolate(
    model: CrystalVAE,
    first: AsymmetricUnit,
    last: AsymmetricUnit,
    *,
    steps: int = 9,
    beta: float | None = None,
    refine: dict[str, float | None] | None = None,
) -> list[AsymmetricUnit | None]:
    """Crystals on the straight line between the encodings of two.

    Args:
        model: the model.
        first: where the walk begins.
        last: where it ends.
        steps: points, both ends included.
        beta: the knob; None keeps most detail.
        refine: of :func:`~crystalvae.design.settings.refinement_of`, for design.

    Returns:
        What greedy decoding makes of each point, None for what is not completed.
    """
    begin, end = model.encode([first, last], beta).mu
    share = torch.linspace(0, 1, steps, device=begin.device)[:, None]
    return _decode(model, begin + share * (end - begin), beta, refine)


def _decode(
    model: CrystalVAE,
    z: Tensor,
    beta: float | None,
    refine: dict[str, float | None] | None,
) -> list[AsymmetricUnit | None]:
    generator = torch.Generator().manual_seed(0)
    how = refinement_of(model, refine, purpose="design")
    return generate(model, z, beta=beta, refinement=how, generator=generator).crystals()


@dataclass
class LatentAxes:
    """The directions in which the encodings of a data set spread most."""

    centre: Tensor
    """Mean of the encodings ``(D,)``."""
    directions: Tensor
    """Unit vectors, the largest spread first ``(K, D)``."""
    spread: Tensor
    """Standard deviation along each ``(K,)``."""
    share: Tensor
    """Of the variance of all dimensions ``(K,)``."""
    meaning: dict[str, np.ndarray]
    """Spearman correlation of each axis with a descriptor or property, NaN where that
    is unknown or the same for all crystals, ``(K,)``."""


@torch.no_grad()
def latent_axes(
    model: CrystalVAE,
    crystals: Sequence[AsymmetricUnit],
    *,
    num: int = 8,
    beta: float | None = None,
    properties: dict[str, np.ndarray] | None = None,
) -> LatentAxes:
    """Principal axes of the posteriors' means, and what goes with each.

    Args:
        model: the model.
        crystals: at least three.
        num: axes.
        beta: the knob; None keeps most detail.
        properties: further values of each crystal, NaN where unknown.

    Returns:
        The axes; fewer than ``num`` where the encodings spread in fewer directions.

    Raises:
        DataError: all encodings are the same.
    """
    means = model.encode(crystals, beta).mu
    centre = means.mean(0)
    _, size, directions = torch.linalg.svd(means - centre, full_matrices=False)
    variance = size.square()
    if float(variance.sum()) <= TINY * len(means):
        raise DataError("all structures have the same encoding: there are no axes")
    num = min(num, int((variance > TINY * variance.sum()).sum()))
    directions = directions[:num]
    # the sign that makes the largest entry positive, whatever the library
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    directions = directions * largest.sign()
    along = ((means - centre) @ directions.T).cpu().numpy()
    values = {
        name: np.array([float(of(crystal)) for crystal in crystals])
        for name, of in DESCRIPTORS.items()
    }
    meaning = {
        name: np.array([_rank_correlation(axis, column) for axis in along.T])
        for name, column in (values | (properties or {})).items()
    }
    return LatentAxes(
        centre=centre,
        directions=directions,
        spread=variance[:num].sqrt() / max(len(crystals) - 1, 1) ** 0.5,
        share=variance[:num] / variance.sum(),
        meaning=meaning,
    )


@torch.no_grad()
def walk_axis(
    model: CrystalVAE,
    axes: LatentAxes,
    axis: int,
    *,
    start: AsymmetricUnit | None = None,
    reach: float = 3.0,
    steps: int = 7,
    beta: float | None = None,
    refine: dict[str, float | None] | None = None,
) -> list[AsymmetricUnit | None]:
    """Crystals along an axis, the others as they are at ``start``.

    Args:
        model: the model.
        axes: of :func:`latent_axes`, at the same β.
        axis: which of them, from 0.
        start: whose encoding is in the middle; None is the mean of the data set.
        reach: standard deviations to both sides.
        steps: points, both ends included.
        beta: the knob; None keeps most detail.
        refine: of :func:`~crystalvae.design.settings.refinement_of`, for design.

    Returns:
        As :func:`interpolate`.
    """
    middle = axes.centre if start is None else model.encode([start], beta).mu[0]
    amount = torch.linspace(-reach, reach, steps, device=middle.device)[:, None]
    z = middle + amount * axes.spread[axis] * axes.directions[axis]
    return _decode(model, z, beta, refine)


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """NaN where it is not defined."""
    both = np.isfinite(first) & np.isfinite(second)
    first, second = first[both], second[both]
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return np.nan
    return float(spearmanr(first, second).statistic)


def plot_axes(
    axes: LatentAxes, walks: Sequence[Sequence[str | None]], output: Path
) -> None:
    """Draw what goes with each axis, and what the walk along it meets, to a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name, v in axes.meaning.items() if np.isfinite(v).all()]
    table = np.array([axes.meaning[name] for name in names]).T
    figure, panel = pyplot.subplots(
        figsize=(4 + 0.6 * len(names), 1.5 + 0.75 * len(table)), layout="constrained"
    )
    shown = panel.imshow(table, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        colour = "white" if abs(value) > 0.6 else "black"
        text = f"{value:.2f}"
        panel.text(column, row, text, ha="center", va="center", color=colour, size=8)
    panel.set_xticks(range(len(names)), names, rotation=40, ha="right")
    labels = []
    for axis, walk in enumerate(walks):
        ends = " … ".join(walk[place] or "?" for place in (0, len(walk) // 2, -1))
        labels.append(f"axis {axis + 1}, {float(axes.share[axis]):.1%}\n{ends}")
    panel.set_yticks(range(len(labels)), labels, size=8)
    figure.colorbar(shown, label="Spearman correlation")
    figure.savefig(output, dpi=120)
    pyplot.close(figure)
