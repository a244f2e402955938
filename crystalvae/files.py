"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "partial-"
"""Begins the names of files that are being written."""


@contextmanager
def replacing(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A name beside ``path`` to write to; it takes the place of ``path`` at the end.

    If the block fails, what it wrote is removed and ``path`` stays as it was.

    Args:
        path: the file to be made or replaced.
        shared: whether other processes may be writing the same file.
    """
    own = f"{os.getpid()}-" if shared else ""
    partial = path.with_name(f"{PREFIX}{own}{path.name}")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
