"""Units of work made of an input, as raw as possible so that workers do the parsing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from crystalvae.data.readers import Entry, find_reader
from crystalvae.data.readers.archive import folder_files, read_folder, read_member_file
from crystalvae.data.readers.base import printable
from crystalvae.data.readers.cif import parse_cif
from crystalvae.data.readers.databases import database_state
from crystalvae.data.readers.prepared import is_prepared
from crystalvae.data.readers.text import csv_rows, read_csv_file
from crystalvae.errors import DataError
from crystalvae.files import is_database_url


def structure_jobs(source: str | Path) -> Iterator[Any]:
    """Everything in a file, folder, archive or database, not parsed if that can wait.

    Raises:
        DataError: the input as a whole cannot be read.
    """
    reader = find_reader(source)
    if reader is read_csv_file:
        return csv_rows(Path(source))
    if reader is read_folder:
        return iter(folder_files(Path(source), warn=True))
    return reader(str(source) if is_database_url(source) else Path(source))


def in_chunks(jobs: Iterator[Any], size: int) -> Iterator[tuple[int, list[Any]]]:
    """Number the chunks of an iterator."""
    number = 0
    while chunk := list(islice(jobs, size)):
        yield number, chunk
        number += 1


def name_of(job: Any) -> tuple[str, str]:
    """Identifier and source of a job."""
    if isinstance(job, Entry):
        return job.material_id, job.source
    if isinstance(job, Path):
        return printable(job.stem), printable(str(job))
    return job[0], job[1]


def open_job(job: Any) -> Entry:
    """Parse a job; a bad structure becomes the entry's error."""
    if isinstance(job, Entry):
        return job
    if isinstance(job, Path):
        return read_member_file(job)
    name, source, text, numbers = job
    return parse_cif(text, name, source, numbers)


def fingerprint(source: str | Path, options: dict[str, Any]) -> str:
    """Hash of an input as it now is, of the options and of this version of the package.

    Raises:
        DataError: a database cannot be opened.
    """
    from crystalvae import __version__

    parts: list[Any] = [__version__, str(source), sorted(options.items(), key=str)]
    path = Path(str(source))
    if is_database_url(source):
        parts += database_state(source)
    elif path.is_file():
        parts += _state(path)
    elif is_prepared(path):
        files = [p for p in path.iterdir() if p.suffix != ".jsonl"]
        parts += [(str(p), *_state(p)) for p in sorted(files)]
    elif path.is_dir():
        parts += [(str(p), *_state(p)) for p in folder_files(path)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def content_hash(source: str | Path) -> str:
    """Hash of what an input holds, wherever it lies.

    Raises:
        DataError: it cannot be read.
    """
    found = hashlib.sha256()
    path = Path(str(source))
    if is_database_url(source):
        found.update(repr(database_state(source)).encode())
        return found.hexdigest()
    files = folder_files(path) if path.is_dir() else [path]
    for file in files:
        name = file.name if file == path else file.relative_to(path)
        found.update(repr(str(name)).encode())
        try:
            found.update(file.read_bytes() if file.is_file() else b"")
        except OSError as error:
            raise DataError(f"{file} cannot be read ({error})") from error
    return found.hexdigest()


def _state(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change; −1 for a link that leads nowhere."""
    try:
        stat = path.stat()
    except OSError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def open_work(directory: Path, key: str) -> None:
    """A directory for finished chunks; what another key left there is removed.

    Args:
        directory: of the work, made if it is not there.
        key: :func:`fingerprint` of what is done.

    Raises:
        DataError: it cannot be made.
    """
    state = directory / "state.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads(state.read_text())["key"] == key:
            return
    shutil.rmtree(directory, ignore_errors=True)
    try:
        directory.mkdir(parents=True)
        state.write_text(json.dumps({"key": key}))
    except OSError as error:
        raise DataError(f"cannot write {directory} ({error})") from error
