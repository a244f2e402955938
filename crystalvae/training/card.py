"""What a run writes on the card of its model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ase.data import atomic_numbers

from crystalvae.decoder import PARTS

if TYPE_CHECKING:
    from crystalvae.model import CrystalVAE
    from crystalvae.training.config import RunConfig
    from crystalvae.training.data import Crystals


def run_card(
    config: RunConfig,
    crystals: Crystals,
    source: CrystalVAE | None,
    row: dict[str, Any],
    report: dict[str, float],
) -> dict[str, Any]:
    """The card of a model as a run has made it so far.

    Args:
        config: of the run.
        crystals: that it trains with.
        source: the model that it began with.
        row: of ``metrics.csv``.
        report: of :func:`crystalvae.training.validation.validate`.
    """
    card = {
        **{name: row[name] for name in ("epoch", "step", "minutes")},
        "crystals": len(crystals.store),
        "validation": report,
        "parts": list(PARTS),
        "run": dataclasses.asdict(config),
    }
    seen = crystals.extent()
    if source is not None:
        if source.refiner is not None:
            card["refinement"] = source.card.get("refinement", {})
        before = source.card.get("trained_on")
        if before is None:
            return card
        seen["max_atoms"] = max(seen["max_atoms"], before["max_atoms"])
        seen["elements"] = sorted(
            {*seen["elements"], *before["elements"]}, key=atomic_numbers.get
        )
    return {**card, "trained_on": seen}
