"""Databases and collections: ASE databases, extxyz, pymatgen JSON."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crystalvae.data.readers.base import UNREADABLE, Entry, is_number
from crystalvae.errors import DataError
from crystalvae.files import shown


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in values.items()
        if key != "material_id" and is_number(value)
    }


def database_state(path: str | Path) -> tuple[int, int, float]:
    """Number of rows, highest id and time of the last change, to know a database again.

    Raises:
        DataError: it cannot be opened.
    """
    with _opened(path) as database:
        rows = list(database.select(columns=["id", "mtime"], include_data=False))
    ids, times = [row.id for row in rows], [row.mtime for row in rows]
    return len(rows), max(ids, default=0), max(times, default=0.0)


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """An ASE database; what goes wrong in opening or asking it is a DataError."""
    import ase.db

    try:
        yield ase.db.connect(str(path))
    except ImportError as error:
        raise DataError(
            "PostgreSQL needs `pip install crystalvae[postgres]`"
        ) from error
    except Exception as error:
        raise DataError(f"{shown(path)} is no ASE database ({error})") from error


def read_ase_database(path: Path | str) -> Iterator[Entry]:
    """Rows of an ASE database: an SQLite file or a ``postgresql://`` URL.

    Raises:
        DataError: it cannot be opened.
    """
    with _opened(path) as database:
        ids = [row.id for row in database.select(columns=["id"], include_data=False)]
    for row_id in ids:
        source = f"{shown(path)}:{row_id}"
        try:
            row = database.get(id=row_id)
            values = dict(row.key_value_pairs)
            name = str(values.pop("material_id", f"row-{row_id}"))
            atoms = row.toatoms()
        except Exception as error:
            yield Entry(f"row-{row_id}", source, error=f"row cannot be read ({error})")
            continue
        yield Entry.from_atoms(atoms, name, source, _numbers(values))


def read_extxyz(path: Path) -> Iterator[Entry]:
    """Frames of an extended XYZ file; a broken one is the last."""
    import ase.io

    frames = ase.io.iread(str(path), index=":", format="extxyz")
    index = 0
    while True:
        try:
            atoms = next(frames)
        except StopIteration:
            return
        except Exception as error:
            text = f"frame {index} and what follows is unreadable ({error})"
            yield Entry(f"{path.stem}-{index}", f"{path}:{index}", error=text)
            return
        name = str(atoms.info.get("material_id", f"{path.stem}-{index}"))
        results = {} if atoms.calc is None else atoms.calc.results
        values = _numbers({**results, **atoms.info})
        yield Entry.from_atoms(atoms, name, f"{path}:{index}", values)
        index += 1


def read_json(path: Path) -> Iterator[Entry]:
    """Pymatgen JSON(.gz): a structure, a list of them, ``{id: structure}`` or records.

    Raises:
        DataError: it is no JSON.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            content = json.load(file)
    except (*UNREADABLE, ValueError) as error:
        raise DataError(f"{path} is no readable JSON ({error})") from error
    if isinstance(content, dict) and "lattice" in content:
        items = [(path.stem, content)]
    elif isinstance(content, dict):
        items = list(content.items())
    elif isinstance(content, list):
        items = [(f"{path.stem}-{i}", item) for i, item in enumerate(content)]
    else:
        raise DataError(f"{path} holds no structures, but {str(content)[:40]!r}")
    for name, item in items:
        yield _from_record(str(name), item, f"{path}:{name}")


def _from_record(name: str, item: Any, source: str) -> Entry:
    from pymatgen.core import Structure

    try:
        values: dict[str, Any] = {}
        if "structure" in item:
            values = item
            name = str(item.get("material_id", name))
            item = item["structure"]
        structure = Structure.from_dict(item)
    except Exception as error:
        text = f"it is no pymatgen structure ({type(error).__name__}: {error})"
        return Entry(name, source, error=text[:200])
    return Entry.from_structure(structure, name, source, _numbers(values))
