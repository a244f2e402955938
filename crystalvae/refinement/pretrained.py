"""Networks beside the model that they belong to: two files each in its directory."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from crystalvae.config import from_dict
from crystalvae.errors import CheckpointError, ConfigError
from crystalvae.files import replacing
from crystalvae.refinement.network import Refiner, RefinerConfig

N = TypeVar("N", bound=nn.Module)

REFINER = "refiner"
"""Stem of the refiner's files."""


def save_network(network: nn.Module, directory: Path, name: str) -> None:
    """Write a network and its card whole or not at all, weights in half precision.

    Args:
        network: has a ``config`` and a ``card``.
        directory: of the model.
        name: stem of the files, and key of the config.
    """
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        key: value.detach().cpu().to(torch.float16).contiguous()
        for key, value in network.state_dict().items()
    }
    content = {name: dataclasses.asdict(network.config), "card": network.card}
    config_file, weights_file = _files(directory, name)
    with (
        replacing(config_file) as new_config,
        replacing(weights_file) as new_weights,
    ):
        text = json.dumps(content, indent=1) + "\n"
        new_config.write_text(text, encoding="utf-8")
        save_file(weights, new_weights)
        new_weights.chmod(new_config.stat().st_mode)


def remove_network(directory: Path, name: str) -> None:
    """Delete a network in a directory, if there is one."""
    for file in _files(directory, name):
        file.unlink(missing_ok=True)


def load_network(
    kind: type[N], config_kind: type, directory: Path, name: str
) -> N | None:
    """A network of a directory, in eval mode; None if there is none.

    Args:
        kind: its class, made from a config.
        config_kind: class of that.
        directory: of the model.
        name: stem of the files, and key of the config.

    Raises:
        CheckpointError: it is damaged.
    """
    config_file, weights_file = _files(directory, name)
    if not (config_file.exists() or weights_file.exists()):
        return None
    try:
        content: dict[str, Any] = json.loads(config_file.read_text(encoding="utf-8"))
        network = kind(from_dict(config_kind, content[name]))
        weights = {key: v.float() for key, v in load_file(weights_file).items()}
        network.load_state_dict(weights)
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
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise CheckpointError(
            f"{config_file.name} and {weights_file.name} in {directory} are damaged or "
            f"do not fit each other ({reason}); copy both again"
        ) from error
    network.card = content.get("card", {})
    return network.eval()


def _files(directory: Path, name: str) -> tuple[Path, Path]:
    return directory / f"{name}.json", directory / f"{name}.safetensors"


def save_refiner(refiner: Refiner, directory: Path) -> None:
    """:func:`save_network` of a refiner."""
    save_network(refiner, directory, REFINER)


def load_refiner(directory: Path) -> Refiner | None:
    """:func:`load_network` of a refiner."""
    return load_network(Refiner, RefinerConfig, directory, REFINER)
