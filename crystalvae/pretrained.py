"""Models as directories: ``config.json`` and ``model.safetensors``, nothing pickled."""

from __future__ import annotations

import dataclasses
import difflib
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from crystalvae.config import from_dict
from crystalvae.errors import CheckpointError, ConfigError
from crystalvae.files import replacing
from crystalvae.properties.pretrained import (
    PROPERTIES,
    load_properties,
    save_properties,
)
from crystalvae.refinement.pretrained import (
    REFINER,
    load_refiner,
    remove_network,
    save_refiner,
)
from crystalvae.stability.pretrained import (
    STABILITY,
    load_stability,
    save_stability,
)

if TYPE_CHECKING:
    from crystalvae.model import CrystalVAE

N = TypeVar("N")

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
NETWORKS = {
    REFINER: (load_refiner, save_refiner),
    STABILITY: (load_stability, save_stability),
    PROPERTIES: (load_properties, save_properties),
}
"""What may go beside a model: names of its attributes, which are the stems of the files
and of the verbs that train them → how to load and to save it."""


def shipped_models() -> dict[str, Path]:
    """Names and directories of the models that come with the package."""
    root = Path(str(resources.files("crystalvae"))) / "weights"
    if not root.is_dir():
        return {}
    found = sorted(path for path in root.iterdir() if (path / CONFIG_FILE).is_file())
    return {path.name: path for path in found}


def find_model(name: str | Path) -> Path:
    """Directory of a model: one that holds a model wins, else a shipped name.

    Raises:
        CheckpointError: neither; the message lists the shipped names.
    """
    path, shipped = Path(name), shipped_models()
    if path.is_dir() and ((path / WEIGHTS_FILE).exists() or str(name) not in shipped):
        if not (path / WEIGHTS_FILE).exists() and (path / "best").is_dir():
            raise CheckpointError(f"{path} is a training run; use {path / 'best'}")
        return path
    if str(name) in shipped:
        return shipped[str(name)]
    close = difflib.get_close_matches(str(name), shipped, 1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise CheckpointError(
        f"no model {str(name)!r}: it is no directory and no shipped name "
        f"({', '.join(shipped) or 'none are shipped'}){hint}"
    )


def save_model(model: CrystalVAE, directory: Path, keep: bool = False) -> None:
    """Write a model and the networks beside it, each atomically, in half precision.

    Args:
        model: the model.
        directory: where to.
        keep: leave a network that lies there, where the model has none of its kind.
    """
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().cpu().to(torch.float16).contiguous()
        for name, value in model.state_dict().items()
        if name.split(".")[0] not in NETWORKS
    }
    config = {
        "class": "CrystalVAE",
        "format_version": FORMAT_VERSION,
        "model": dataclasses.asdict(model.config),
        "card": model.card,
    }
    text = json.dumps(config, indent=1) + "\n"
    with (
        replacing(directory / CONFIG_FILE) as new_config,
        replacing(directory / WEIGHTS_FILE) as new_weights,
    ):
        new_config.write_text(text, encoding="utf-8")
        save_file(weights, new_weights)
        new_weights.chmod(new_config.stat().st_mode)
    save_networks(model, directory)
    for name in NETWORKS:
        if getattr(model, name) is None and not keep:
            remove_network(directory, name)


def save_networks(model: CrystalVAE, directory: Path) -> None:
    """Write the networks beside a model, those that it has."""
    for name, (_, save) in NETWORKS.items():
        if getattr(model, name) is not None:
            save(getattr(model, name), directory)


def require_network(network: N | None, name: str, verb: str) -> N:
    """A network beside a model.

    Args:
        network: None if the model has none.
        name: what to call it.
        verb: what trains one.

    Raises:
        ConfigError: there is none.
    """
    if network is None:
        raise ConfigError(
            f"this model has no {name}; train one (crystalvae {verb}) and copy its "
            "files into the model's directory"
        )
    return network


def load_model(
    name: str | Path, device: str | torch.device | None = None
) -> CrystalVAE:
    """Load a model in eval mode.

    Args:
        name: a directory, or a shipped name.
        device: where to put it; None is CUDA if there is one, else the CPU.

    Raises:
        CheckpointError: missing, truncated, or of a newer format.
    """
    from crystalvae.model import CrystalVAE
    from crystalvae.model_config import ModelConfig

    directory = find_model(name)
    try:
        content = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
        version = int(content["format_version"])
        values = content["model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{directory / CONFIG_FILE} is missing or damaged ({error}); copy the "
            "model again"
        ) from error
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{directory} has format {version}, this version reads up to "
            f"{FORMAT_VERSION}; upgrade crystalvae"
        )
    try:
        config = from_dict(ModelConfig, values)
    except ConfigError as error:
        raise CheckpointError(f"{directory / CONFIG_FILE}: {error}") from error
    model = CrystalVAE(config)
    try:
        weights = load_file(directory / WEIGHTS_FILE)
        model.load_state_dict({n: v.float() for n, v in weights.items()}, strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{directory / WEIGHTS_FILE} is missing, truncated or does not fit its "
            f"config ({reason}); copy the model again"
        ) from error
    model.card = content.get("card", {})
    for name, (load, _) in NETWORKS.items():
        setattr(model, name, load(directory))
    return model.to(resolve_device(device)).eval()


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """CUDA if there is one and nothing was asked for, else what was asked for.

    Raises:
        CheckpointError: CUDA was asked for and is absent, or there is no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise CheckpointError(
            f"torch knows no device {device!r}; use cpu or cuda"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("device cuda was asked for, but torch finds no GPU")
    return device
