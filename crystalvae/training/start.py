"""Runs that begin with the weights of a trained model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from crystalvae.errors import ConfigError
from crystalvae.model import CrystalVAE

LEARNED = ("encoder", "posterior", "decoder")
"""Parts of a model that a run changes; the networks beside it stay there."""
CONDITIONS = "decoder.conditions."
"""Of these, the weights of the properties that a decoder can be told."""


def start_from(model: CrystalVAE, name: str, root: Path) -> CrystalVAE:
    """Copy the weights of a trained model, its prior apart.

    The range of β may differ, and so may the conditions; these then start anew.

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
    own = model.state_dict()
    if source.config.conditions != model.config.conditions:
        kept = {n: v for n, v in kept.items() if not n.startswith(CONDITIONS)}
        kept |= {n: v for n, v in own.items() if n.startswith(CONDITIONS)}
    model.load_state_dict(kept, strict=model.prior is None)
    return source
