"""Files that are written whole or not at all, and how paths are shown."""

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


def is_database_url(path: str | Path) -> bool:
    """Whether it is the URL of a PostgreSQL database, and no file."""
    return str(path).startswith(("postgresql://", "postgres://"))


def shown(path: str | Path) -> str:
    """A path as it may be written down: a URL without user and password."""
    if not is_database_url(path):
        return str(path)
    scheme, _, rest = str(path).partition("://")
    head = rest.rpartition("?")[0]
    address = (head if "@" in head else rest).rpartition("@")[2]
    return f"{scheme}://{address.partition('?')[0]}"
