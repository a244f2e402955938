"""Crystals of any input, prepared or not, in memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from crystalvae.data.joined import JoinedSets, KnownSet, NamedCrystals
from crystalvae.data.packed import PackedDataset
from crystalvae.data.readers import read_structures
from crystalvae.data.readers.prepared import entry_of, is_prepared
from crystalvae.errors import DataError, InvalidStructureError
from crystalvae.files import shown
from crystalvae.symmetry.standardize import standardize

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.data.readers.base import Entry


def read_entries(path: str, limit: int | None = None, seed: int = 0) -> list[Entry]:
    """All entries of an input, or a random choice of ``limit``.

    Raises:
        DataError: the input cannot be read.
    """
    if is_prepared(path):
        known = PackedDataset(path)
        rows = chosen_rows(len(known), limit, seed)
        return [entry_of(known, row) for row in rows]
    entries = list(read_structures(path))
    return [entries[row] for row in chosen_rows(len(entries), limit, seed)]


def chosen_rows(size: int, limit: int | None = None, seed: int = 0) -> Sequence[int]:
    """All rows of ``size``, or a random choice of ``limit``."""
    rows = range(size)
    if limit is not None and limit < size:
        return random.Random(seed).sample(rows, limit)
    return rows


def crystal_of(entry: Entry) -> AsymmetricUnit:
    """The asymmetric unit of an entry.

    Raises:
        InvalidStructureError: it could not be read, or has no consistent symmetry.
    """
    if entry.error is not None:
        raise InvalidStructureError(entry.error)
    return standardize(entry.lattice, entry.frac_coords, entry.atomic_numbers)


def load_crystals(
    path: str, limit: int | None = None, seed: int = 0
) -> list[AsymmetricUnit | None]:
    """Asymmetric units of a data set or of anything that ``prepare`` reads.

    Args:
        path: where they are.
        limit: a random choice of so many; None is all.
        seed: of that choice.

    Returns:
        One for each entry, None for what cannot be used.

    Raises:
        DataError: the input cannot be read or is empty.
    """
    if is_prepared(path):
        dataset = PackedDataset(path)
        return [dataset[row] for row in chosen_rows(len(dataset), limit, seed)]
    found: list[AsymmetricUnit | None] = []
    for entry in read_entries(path, limit, seed):
        try:
            found.append(crystal_of(entry))
        except InvalidStructureError:
            found.append(None)
    if not found:
        raise DataError(f"{shown(path)} holds no structures")
    return found


def usable_crystals(
    path: str, limit: int | None = None, seed: int = 0
) -> list[AsymmetricUnit]:
    """As :func:`load_crystals`, without what cannot be used.

    Raises:
        DataError: nothing is left.
    """
    crystals = [c for c in load_crystals(path, limit, seed) if c is not None]
    if not crystals:
        raise DataError(f"{shown(path)} holds no structure that can be used")
    return crystals


def named_crystals(
    path: str,
) -> tuple[list[tuple[str, AsymmetricUnit]], list[tuple[str, str]]]:
    """As :func:`usable_crystals`, with identifiers, and why others cannot be used.

    Returns:
        (identifier, crystal) and (identifier, reason).

    Raises:
        DataError: nothing can be used.
    """
    if is_prepared(path):
        dataset = PackedDataset(path)
        return list(zip(dataset.material_ids, dataset)), []
    found, refused = [], []
    for entry in read_entries(path):
        try:
            found.append((entry.material_id, crystal_of(entry)))
        except InvalidStructureError as error:
            refused.append((entry.material_id, str(error)))
    if not found:
        why = f" ({refused[0][1]})" if refused else ""
        raise DataError(f"{shown(path)} holds no structure that can be used{why}")
    return found, refused


def open_known(paths: str | Sequence[str]) -> KnownSet | JoinedSets:
    """Known crystals: data sets as they lie on disk, or any inputs as asymmetric units.

    Args:
        paths: where they are, one or several.

    Raises:
        DataError: nothing of one of them can be used.
    """
    paths = [paths] if isinstance(paths, str) else paths
    parts = [
        PackedDataset(path)
        if is_prepared(path)
        else NamedCrystals(*zip(*named_crystals(path)[0]))
        for path in paths
    ]
    return parts[0] if len(parts) == 1 else JoinedSets(parts)
