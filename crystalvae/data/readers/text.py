"""POSCAR and CSV."""

from __future__ import annotations

import csv
import gzip
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from crystalvae.data.readers.base import UNREADABLE, Entry
from crystalvae.data.readers.cif import parse_cif
from crystalvae.errors import DataError


def parse_poscar(content: bytes, material_id: str, source: str) -> Entry:
    """One entry from the bytes of a VASP POSCAR."""
    from pymatgen.io.vasp import Poscar

    try:
        structure = Poscar.from_str(content.decode("utf-8", "replace")).structure
    except Exception as error:
        text = f"it is no readable POSCAR ({str(error)[:120]}); export it again"
        return Entry(material_id, source, error=text)
    return Entry.from_structure(structure, material_id, source)


def read_poscar_file(path: Path) -> Iterator[Entry]:
    """The entry of one POSCAR file."""
    yield parse_poscar(path.read_bytes(), path.stem, str(path))


def csv_rows(path: Path) -> Iterator[tuple[str, str, str, dict[str, float]]]:
    """Rows of a CSV(.gz) with a ``cif`` column: id, source, CIF text, numbers.

    Raises:
        DataError: it cannot be read or has no ``cif`` column.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            if "cif" not in names:
                raise DataError(
                    f"{path} has no column 'cif' (columns: {', '.join(names)}); add "
                    "one with the CIF text"
                )
            for index, row in enumerate(reader):
                name = row.get("material_id") or row.get("") or f"row-{index}"
                numbers = {}
                for key, value in row.items():
                    if key in ("cif", "material_id", "", None) or not value:
                        continue
                    try:
                        number = float(value)
                    except (TypeError, ValueError):
                        continue
                    if math.isfinite(number):
                        numbers[key] = number
                yield name, f"{path}:{index + 2}", row["cif"] or "", numbers
    except (*UNREADABLE, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}); copy it again") from error


def read_csv_file(path: Path) -> Iterator[Entry]:
    """Entries of a CSV(.gz) with a ``cif`` column, other numbers as properties."""
    for name, source, text, numbers in csv_rows(path):
        yield parse_cif(text, name, source, numbers)
