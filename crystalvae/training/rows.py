"""Rows of ``metrics.csv``."""

from __future__ import annotations

import csv
from pathlib import Path

from crystalvae.files import replacing
from crystalvae.training.checkpoint import writing


def append_row(path: Path, row: dict[str, float]) -> None:
    """Append a row; the first one writes the header.

    Raises:
        CheckpointError: the disk is full or refuses.
    """
    fresh = not path.exists() or path.stat().st_size == 0
    with writing(path), path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def read_rows(path: Path) -> list[dict[str, str]]:
    """All rows by the names of their columns."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def truncate_rows(path: Path, step: int) -> None:
    """Drop rows after an optimiser step, so that a resumed run writes them once.

    A row that was cut off is dropped as well.
    """
    if not path.exists():
        return
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or []
        kept = [
            row
            for row in reader
            if None not in row.values() and None not in row and int(row["step"]) <= step
        ]
    with replacing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(kept)
