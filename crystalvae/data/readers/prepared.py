"""Data sets that ``crystalvae prepare`` made, as if they were structures to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crystalvae.data.packed import MANIFEST, PackedDataset
from crystalvae.data.readers.base import Entry


def is_prepared(path: str | Path) -> bool:
    """Whether it is the directory of a packed data set."""
    return (Path(path) / MANIFEST).is_file()


def read_prepared(path: Path) -> Iterator[Entry]:
    """Entries of a packed data set.

    Raises:
        DataError: it is damaged.
    """
    known = PackedDataset(path)
    for row in range(len(known)):
        yield entry_of(known, row)


def entry_of(known: PackedDataset, row: int) -> Entry:
    """A crystal of a packed data set, in its primitive cell, with its properties."""
    crystal = known[row]
    lattice, coords, species, _ = crystal.expand_primitive()
    return Entry(
        known.material_ids[row],
        f"{known.path}:{row}",
        lattice,
        coords,
        species,
        {name: float(values[row]) for name, values in known.properties.items()},
        crystal.number,
    )
