"""``last.pt``, from which a run is resumed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from crystalvae.config import from_dict
from crystalvae.errors import CheckpointError, ConfigError, DataError
from crystalvae.files import replacing


def may_resume(path: Path, resume: bool) -> bool:
    """Whether there is a checkpoint to go on from.

    Raises:
        DataError: there is one, and nobody asked to resume; or there is none, but what
            a run found.
    """
    if path.exists() and not resume:
        raise DataError(
            f"{path.parent} already holds a run; add --resume to go on with it, or "
            "choose another directory"
        )
    best = path.parent / "best"
    if not path.exists() and best.is_dir() and any(best.iterdir()):
        raise DataError(
            f"{path.parent} holds a run without {path.name}, from which it could go "
            "on; choose another directory"
        )
    return path.exists()


def same_config(kind: type, saved: dict[str, Any], config: Any) -> bool:
    """Whether a saved config, maybe of an older version, is this one.

    Args:
        kind: dataclass of the config.
        saved: what was written; fields that it lacks have their defaults.
        config: an instance of ``kind``.
    """
    own = json.loads(json.dumps(dataclasses.asdict(config)))
    try:
        return from_dict(kind, saved) == from_dict(kind, own)
    except ConfigError:
        return False


def require_finite(loss: float, where: str) -> None:
    """Stop a run before what it learned is lost.

    Raises:
        CheckpointError: the loss is not a finite number.
    """
    if not math.isfinite(loss):
        raise CheckpointError(
            f"the loss became {loss} {where}; what was saved before is intact: start "
            "again in another directory with a lower training.learning_rate"
        )


def require_same_data(path: Path, state: dict[str, Any], fingerprint: str) -> None:
    """Refuse to go on with other crystals than a run began with.

    Args:
        path: of the checkpoint.
        state: what it holds; those of older versions do not say.
        fingerprint: of the crystals that are there.

    Raises:
        CheckpointError: they are others.
    """
    if state.get("data", fingerprint) != fingerprint:
        raise CheckpointError(
            f"{path} was made with other training crystals than the config's data sets "
            "now hold; restore these, or start again in another directory"
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What a full disk does to something that a run writes, in one sentence.

    Raises:
        CheckpointError: the disk is full or refuses.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write {path} ({error}); free some disk space and --resume: "
            "the checkpoint before is intact"
        ) from error


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        CheckpointError: the disk is full or refuses; the checkpoint before stays.
    """
    with writing(path), replacing(path) as partial:
        torch.save(state, partial)


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What :func:`write_checkpoint` wrote.

    Raises:
        CheckpointError: it is truncated or something else.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} is truncated or no checkpoint ({type(error).__name__}); "
            "restore a copy, or start again in another directory"
        ) from error
