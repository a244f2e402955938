"""What the networks beside a model say of crystals, in columns of tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from crystalvae.design.batches import workers_for
from crystalvae.errors import ConfigError
from crystalvae.parallel import ordered_map
from crystalvae.refinement.score import residuals
from crystalvae.screening.base import ENERGY, PROBABILITY, RESIDUAL
from crystalvae.screening.density import widest_gap
from crystalvae.stability.score import stability_estimates

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE
    from crystalvae.refinement.network import Refiner
    from crystalvae.stability.network import StabilityNetwork

TOO_FAR = 2.0
"""Residual above which a structure of unknown origin gets no estimate of its stability:
it is unlike all that the network learned from. Of 1,500 MP-20 validation crystals the
largest residual is 1.9; sodium chloride in a cell 20 % too short has 8."""
VACUUM = 8.0
"""Å without atoms across a cell from which on it holds a slab or a sheet, of which bulk
estimates say nothing; 99 % of MP-20's validation crystals have less than 5.4 Å."""
FEW = 256
"""Crystals that one process judges sooner than two start."""


def estimate_columns(
    model: CrystalVAE,
    crystals: Sequence[AsymmetricUnit],
    *,
    doubted: bool = False,
    num_workers: int | None = None,
) -> list[dict[str, float]]:
    """The columns of each crystal: what the model has networks for.

    Args:
        model: its refiner gives ``residual``, its stability network
            ``e_above_hull_estimate`` (eV/atom) and ``stable_probability``.
        crystals: in canonical form.
        doubted: whether the crystals come from elsewhere. Then there is no estimate of
            the stability above a residual of :data:`TOO_FAR` or where atoms leave
            :data:`VACUUM`, whose width is a column, ``vacuum`` (Å).
        num_workers: processes; None is one a core where they save time.
    """
    if model.refiner is None and model.stability is None:
        return [{} for _ in crystals]
    parts = [crystals[i : i + FEW] for i in range(0, len(crystals), FEW)]
    workers = workers_for(model, len(crystals), FEW, num_workers)
    work = partial(_columns, model.refiner, model.stability, parts, doubted)
    each = ordered_map(work, range(len(parts)), workers)
    return [columns for part in each for columns in part]


def require_estimates(model: CrystalVAE) -> str:
    """The column by which crystals are ranked: the better one of those there are.

    Raises:
        ConfigError: the model has no network that judges crystals.
    """
    if model.stability is not None:
        return PROBABILITY
    if model.refiner is not None:
        return RESIDUAL
    raise ConfigError(
        "this model has neither a stability network nor a refiner; use mp_20, or train "
        "one (crystalvae train-stability, crystalvae train-refiner)"
    )


def _columns(
    refiner: Refiner | None,
    stability: StabilityNetwork | None,
    parts: list[Sequence[AsymmetricUnit]],
    doubted: bool,
    number: int,
) -> list[dict[str, float]]:
    crystals = parts[number]
    found: list[dict[str, float]] = [{} for _ in crystals]
    if refiner is not None:
        for columns, residual in zip(found, residuals(refiner, crystals)):
            columns[RESIDUAL] = round(residual, 4)
    if stability is not None:
        estimates = stability_estimates(stability, crystals)
        for crystal, columns, estimate in zip(crystals, found, estimates):
            known = True
            if doubted:
                known = columns.get(RESIDUAL, 0.0) <= TOO_FAR
                gap = widest_gap(crystal)
                if gap > VACUUM:
                    columns["vacuum"] = round(gap, 2)
                    known = False
            if estimate is not None and known:
                columns[ENERGY] = round(estimate.e_above_hull, 4)
                columns[PROBABILITY] = round(estimate.probability, 4)
    return found
