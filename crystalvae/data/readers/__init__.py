"""Readers: a table of file types, and one function that picks from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from crystalvae.data.readers.archive import is_poscar, read_folder, read_tar, read_zip
from crystalvae.data.readers.base import Entry
from crystalvae.data.readers.cif import read_cif_file
from crystalvae.data.readers.databases import read_ase_database, read_extxyz, read_json
from crystalvae.data.readers.prepared import is_prepared, read_prepared
from crystalvae.data.readers.text import read_csv_file, read_poscar_file
from crystalvae.errors import DataError
from crystalvae.files import is_database_url

READERS: dict[str, Callable[[Path], Iterator[Entry]]] = {
    ".csv": read_csv_file,
    ".csv.gz": read_csv_file,
    ".cif": read_cif_file,
    ".vasp": read_poscar_file,
    ".poscar": read_poscar_file,
    ".extxyz": read_extxyz,
    ".xyz": read_extxyz,
    ".db": read_ase_database,
    ".json": read_json,
    ".json.gz": read_json,
    ".zip": read_zip,
    ".tar": read_tar,
    ".tar.gz": read_tar,
    ".tgz": read_tar,
    ".tar.xz": read_tar,
    ".tar.bz2": read_tar,
}

__all__ = ["READERS", "Entry", "find_reader", "read_structures"]


def find_reader(path: str | Path) -> Callable[[Path], Iterator[Entry]]:
    """The reader for a path or URL.

    Raises:
        DataError: nothing is there, or the type is unknown.
    """
    text = str(path)
    if is_database_url(path):
        return read_ase_database
    path = Path(path)
    if is_prepared(path):
        return read_prepared
    if path.is_dir():
        return read_folder
    if not path.exists():
        raise DataError(f"no file or folder {text!r}")
    for suffix in sorted(READERS, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return READERS[suffix]
    if is_poscar(path.name):
        return read_poscar_file
    raise DataError(
        f"{text} is of no known type; known are folders, prepared data sets, POSCAR*, "
        f"{', '.join(READERS)} and postgresql:// URLs"
    )


def read_structures(path: str | Path) -> Iterator[Entry]:
    """Read structures from a file, folder, archive, database or prepared data set.

    A bad entry is given with its ``error`` set; it never stops the others.

    Args:
        path: what to read; the type follows from the name, see :data:`READERS`.

    Raises:
        DataError: the input as a whole cannot be read.
    """
    yield from find_reader(path)(str(path) if is_database_url(path) else Path(path))
