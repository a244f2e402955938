"""What the networks beside a model say of crystals, in columns of tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from crystalvae.design.batches import workers_for
from crystalvae.errors import ConfigError
from crystalvae.parallel import ordered_map
from crystalvae.properties.score import property_estimates
from crystalvae.refinement.score import residuals
from crystalvae.screening.base import (
    ENERGY,
    PROBABILITY,
    RESIDUAL,
    estimated,
    uncertainty_of,
)
from crystalvae.screening.density import widest_gap
from crystalvae.stability.score import stability_estimates

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE
    from crystalvae.properties.network import PropertyNetwork
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
    properties: bool = True,
    num_workers: int | None = None,
) -> list[dict[str, float]]:
    """The columns of each crystal: what the model has networks for.

    Args:
        model: its refiner gives ``residual``, its stability network
            ``e_above_hull_estimate`` (eV/atom) and ``stable_probability``, its property
            network ``band_gap_estimate`` and ``band_gap_uncertainty`` (eV) and the
            like.
        crystals: in canonical form.
        doubted: whether the crystals come from elsewhere. Then there is no estimate of
            stability and properties above a residual of :data:`TOO_FAR` or where atoms
            leave :data:`VACUUM`, whose width is a column, ``vacuum`` (Å).
        properties: whether the property network is asked, too.
        num_workers: processes; None is one a core where they save time.
    """
    networks = model.refiner, model.stability, model.properties if properties else None
    if not any(network is not None for network in networks):
        return [{} for _ in crystals]
    parts = [crystals[i : i + FEW] for i in range(0, len(crystals), FEW)]
    workers = workers_for(model, len(crystals), FEW, num_workers)
    work = partial(_columns, *networks, parts, doubted)
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
    if model.properties is not None:
        return estimated(model.properties.names[0])
    raise ConfigError(
        "this model has no network that judges crystals; use mp_20, or train one "
        "(crystalvae train-stability, train-properties, train-refiner)"
    )


def _columns(
    refiner: Refiner | None,
    stability: StabilityNetwork | None,
    properties: PropertyNetwork | None,
    parts: list[Sequence[AsymmetricUnit]],
    doubted: bool,
    number: int,
) -> list[dict[str, float]]:
    crystals = parts[number]
    found: list[dict[str, float]] = [{} for _ in crystals]
    if refiner is not None:
        for columns, residual in zip(found, residuals(refiner, crystals)):
            columns[RESIDUAL] = round(residual, 4)
    known = [True] * len(crystals)
    if doubted and (stability is not None or properties is not None):
        for row, (crystal, columns) in enumerate(zip(crystals, found)):
            gap = widest_gap(crystal)
            if gap > VACUUM:
                columns["vacuum"] = round(gap, 2)
            known[row] = columns.get(RESIDUAL, 0.0) <= TOO_FAR and gap <= VACUUM
    if stability is not None:
        estimates = stability_estimates(stability, crystals)
        for columns, estimate, sure in zip(found, estimates, known):
            if estimate is not None and sure:
                columns[ENERGY] = round(estimate.e_above_hull, 4)
                columns[PROBABILITY] = round(estimate.probability, 4)
    if properties is not None:
        judged = property_estimates(properties, crystals)
        for columns, values, sure in zip(found, judged, known):
            for name, estimate in values.items() if sure else ():
                columns[estimated(name)] = round(estimate.value, 4)
                columns[uncertainty_of(name)] = round(estimate.uncertainty, 4)
    return found
