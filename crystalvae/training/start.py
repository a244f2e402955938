"""Runs that begin with the weights of a trained model."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from torch import Tensor

from crystalvae.conditions import LEVELS
from crystalvae.errors import ConfigError
from crystalvae.model import CrystalVAE

logger = logging.getLogger(__name__)

LEARNED = ("encoder", "posterior", "decoder")
"""Parts of a model that a run changes; the networks beside it stay there."""
CONDITIONS = "decoder.conditions.linear.weight"
"""What maps properties that a decoder can be told, :data:`LEVELS` columns each."""


def start_from(model: CrystalVAE, name: str, root: Path) -> CrystalVAE:
    """Copy the weights of a trained model, its prior apart.

    The range of β may differ, and so may the conditions: those that both have, of the
    same range and scale, go on, others start at nothing.

    Args:
        model: the model to fill.
        name: shipped name, or a directory relative to ``root``.
        root: directory of the config.

    Returns:
        The trained model.

    Raises:
        ConfigError: the models differ in shape.
    """
    path = root / name
    source = CrystalVAE.from_pretrained(path if path.is_dir() else name, device="cpu")
    old = dataclasses.replace(
        source.config.latent,
        beta_min=model.config.latent.beta_min,
        beta_max=model.config.latent.beta_max,
    )
    shapes = dataclasses.replace(source.config, latent=old)
    for part in ("encoder", "latent", "decoder"):
        if getattr(shapes, part) != getattr(model.config, part):
            raise ConfigError(f"[model.{part}] differs from that of init = {name!r}")
    weights = source.state_dict()
    kept = {n: v for n, v in weights.items() if n.split(".")[0] in LEARNED}
    kept.pop(CONDITIONS, None)
    if model.config.conditions:
        kept[CONDITIONS] = _condition_weights(model, source)
    model.load_state_dict(kept, strict=model.prior is None)
    learned = learned_conditions(model, source)
    lost = [c.name for c in source.config.conditions if c.name not in learned]
    if lost:
        logger.info(
            "what the decoder could be told before is lost: %s", ", ".join(lost)
        )
    return source


def _condition_weights(model: CrystalVAE, source: CrystalVAE) -> Tensor:
    """Weights of a model's conditions, of which some may be those of another's."""
    weights = model.decoder.conditions.linear.weight.detach().clone()
    places = _learned_places(model, source)
    for column, condition in enumerate(model.config.conditions):
        if condition.name in places:
            learned = source.decoder.conditions.linear.weight.split(LEVELS, 1)
            weights[:, LEVELS * column :][:, :LEVELS] = learned[places[condition.name]]
    return weights


def _learned_places(model: CrystalVAE, source: CrystalVAE) -> dict[str, int]:
    """Conditions of a model → places of those of another with the same meaning."""
    old = [dataclasses.replace(c, share=1.0) for c in source.config.conditions]
    new = [dataclasses.replace(c, share=1.0) for c in model.config.conditions]
    return {c.name: old.index(c) for c in new if c in old}


def learned_conditions(model: CrystalVAE, source: CrystalVAE | None) -> set[str]:
    """Names of a model's conditions that the model which it began with had learned."""
    return set() if source is None else set(_learned_places(model, source))
