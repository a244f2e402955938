"""Results kept on disk, so that an interrupted run goes on."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from crystalvae.errors import DataError
from crystalvae.files import replacing

_UNREADABLE = (
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    ValueError,
    pickle.UnpicklingError,
)


def load_pickle(path: Path) -> Any | None:
    """What :func:`save_pickle` wrote; None if it is absent, cut off or of old code."""
    try:
        return pickle.loads(path.read_bytes())
    except (OSError, *_UNREADABLE):
        return None


def save_pickle(path: Path, value: Any) -> None:
    """Write a value whole or not at all.

    Raises:
        DataError: the disk is full or the place is not writable.
    """
    try:
        with replacing(path) as partial:
            partial.write_bytes(pickle.dumps(value))
    except OSError as error:
        raise DataError(
            f"cannot write {path} ({error}); free some disk space and run the same "
            "command again to go on"
        ) from error
