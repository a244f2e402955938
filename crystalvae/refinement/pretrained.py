"""Refiners beside the model that they belong to: two files in its directory."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from crystalvae.config import from_dict
from crystalvae.errors import CheckpointError, ConfigError
from crystalvae.files import replacing
from crystalvae.refinement.network import Refiner, RefinerConfig

CONFIG_FILE = "refiner.json"
WEIGHTS_FILE = "refiner.safetensors"


def save_refiner(refiner: Refiner, directory: Path) -> None:
    """Write a refiner and its card whole or not at all, weights in half precision."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().cpu().to(torch.float16).contiguous()
        for name, value in refiner.state_dict().items()
    }
    content = {"refiner": dataclasses.asdict(refiner.config), "card": refiner.card}
    with (
        replacing(directory / CONFIG_FILE) as new_config,
        replacing(directory / WEIGHTS_FILE) as new_weights,
    ):
        save_file(weights, new_weights)
        text = json.dumps(content, indent=1) + "\n"
        new_config.write_text(text, encoding="utf-8")


def remove_refiner(directory: Path) -> None:
    """Delete the refiner in a directory, if there is one."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        (directory / name).unlink(missing_ok=True)


def load_refiner(directory: Path) -> Refiner | None:
    """The refiner in a directory, in eval mode; None if there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    files = [directory / CONFIG_FILE, directory / WEIGHTS_FILE]
    if not any(file.exists() for file in files):
        return None
    try:
        content = json.loads(files[0].read_text(encoding="utf-8"))
        refiner = Refiner(from_dict(RefinerConfig, content["refiner"]))
        weights = {n: v.float() for n, v in load_file(files[1]).items()}
        refiner.load_state_dict(weights)
        if not all(torch.isfinite(value).all() for value in weights.values()):
            raise ValueError("weights that are not finite")
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        ConfigError,
        SafetensorError,
        RuntimeError,
    ) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"the refiner in {directory} is damaged or does not fit its config "
            f"({reason}); copy {CONFIG_FILE} and {WEIGHTS_FILE} again"
        ) from error
    refiner.card = content.get("card", {})
    return refiner.eval()
