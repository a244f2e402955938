"""Properties of structures in a table beside them."""

from __future__ import annotations

import csv
import gzip
import math
import sys
from pathlib import Path

from crystalvae.data.readers.base import UNREADABLE
from crystalvae.errors import DataError

ENDS = (".cif", ".vasp", ".poscar")
"""What names of files may go without."""
UNNAMED = "property"
"""Name of the numbers of a table without a header; further ones are numbered."""


class PropertyTable:
    """Numbers by the identifier of a structure.

    The first column has identifiers: names of files, with or without their ends. The
    other columns that hold numbers are properties. A table without a header, such as
    the ``id_prop.csv`` of CGCNN, has ``property``, ``property_2`` and so on.

    Args:
        path: a CSV, gzipped or not.

    Raises:
        DataError: it cannot be read, names an identifier twice or holds no number.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.values: dict[str, dict[str, float]] = {}
        """Identifier → property → value, without what is no finite number."""
        opener = gzip.open if self.path.suffix == ".gz" else open
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        try:
            with opener(self.path, "rt", encoding="utf-8-sig", newline="") as file:
                rows = [row for row in csv.reader(file) if row and row[0].strip()]
        except (*UNREADABLE, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{self.path} cannot be read ({error})") from error
        if not rows:
            raise DataError(f"{self.path} is empty")
        names = [UNNAMED, *(f"{UNNAMED}_{n}" for n in range(2, len(rows[0])))]
        if len(rows[0]) < 2 or _number(rows[0][1]) is None:
            names = [name.strip() for name in rows.pop(0)[1:]]
        for row in rows:
            key = _stem(row[0].strip())
            if key in self.values:
                raise DataError(f"{self.path} names {row[0]!r} twice; keep one row")
            found = zip(names, map(_number, row[1:]))
            self.values[key] = {n: v for n, v in found if n and v is not None}
        if not any(self.values.values()):
            raise DataError(
                f"{self.path} holds no number; its first column names the structures, "
                "the others are properties"
            )

    def __call__(self, material_id: str) -> dict[str, float]:
        """The properties of a structure, none where the table does not know it."""
        return self.values.get(_stem(material_id), {})


def _stem(name: str) -> str:
    return name.rpartition(".")[0] if name.lower().endswith(ENDS) else name


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
