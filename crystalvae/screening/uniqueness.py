"""Which structures are the same, and which are known, decided as StructureMatcher does.

Structures that match have the same elements and counts in their reduced cells, so those
key the table of candidates; the shortest vectors of the lattices exclude more. Neither
can lose a match. Of what is left, equal Wyckoff descriptions are compared first, then
the nearest fingerprints, until one matches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from crystalvae.data.packed import compositions_of, material_id
from crystalvae.parallel import process_map
from crystalvae.screening.match import Match, could_match
from crystalvae.screening.reduced import Counts, ReducedCell, reduced_cell

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.data.packed import PackedDataset

Formula = tuple[tuple[int, int], ...]
Lookup = tuple[list[ReducedCell], list[ReducedCell]]

FEW = 8
"""Up to so many candidates, comparing them costs less than ordering them."""
CHUNK = 256
"""Crystals a task."""


@cache
def default_matcher() -> StructureMatcher:
    """Pymatgen's defaults: ltol 0.2, stol 0.3, angle_tol 5."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher()


def formula_key(composition: dict[int, int]) -> Formula:
    """Atomic numbers and counts of the reduced formula, hashable."""
    divisor = gcd(*composition.values())
    return tuple((z, n // divisor) for z, n in sorted(composition.items()))


class ReferenceIndex:
    """Known crystals by reduced formula; their reduced cells once they are asked for.

    Args:
        dataset: a packed data set, or any sequence of asymmetric units.
    """

    def __init__(self, dataset: PackedDataset | Sequence[AsymmetricUnit]):
        self.dataset = dataset
        self.rows: dict[Formula, list[int]] = defaultdict(list)
        self.cells: dict[int, ReducedCell | None] = {}
        for row, composition in enumerate(compositions_of(dataset)):
            self.rows[formula_key(composition)].append(row)

    def candidates(self, composition: dict[int, int]) -> list[int]:
        """Rows of the known crystals that could be the same."""
        return self.rows.get(formula_key(composition), [])

    def name(self, row: int) -> str:
        """Identifier of a known crystal."""
        name = material_id(self.dataset, row)
        return str(row) if name is None else name


class Distinct:
    """Crystals that came so far, no two of them equal."""

    def __init__(self) -> None:
        self._alone: dict[Formula, AsymmetricUnit | None] = {}
        self._cells: dict[Counts, list[ReducedCell]] = defaultdict(list)

    def add(self, crystal: AsymmetricUnit) -> bool:
        """Whether a crystal equals none of those that came; it is one of them then."""
        formula = formula_key(crystal.composition)
        if formula not in self._alone:
            self._alone[formula] = crystal
            return True
        first, self._alone[formula] = self._alone[formula], None
        return (first is None or self._is_new(first)) and self._is_new(crystal)

    def _is_new(self, crystal: AsymmetricUnit) -> bool:
        cell = reduced_cell(crystal)
        if cell is None:
            return True
        others = self._cells[cell.counts]
        lengths = np.array([other.lengths for other in others]).reshape(-1, 3)
        if _first_match(cell, others, lengths) is not None:
            return False
        others.append(cell)
        return True


def duplicate_of(
    crystals: Sequence[AsymmetricUnit], *, num_workers: int | None = None
) -> list[int]:
    """For each crystal an equal one that comes first; its own index if there is none.

    Args:
        crystals: what to compare.
        num_workers: processes; None is one a core.

    Returns:
        Indices ``(N,)``; what they point to points to itself.
    """
    formulas: dict[Formula, list[int]] = defaultdict(list)
    for index, crystal in enumerate(crystals):
        formulas[formula_key(crystal.composition)].append(index)
    shared = sorted(chain(*(group for group in formulas.values() if len(group) > 1)))
    labels = list(range(len(crystals)))
    with process_map(num_workers, len(shared) >= 2 * CHUNK) as each:
        cells = dict(zip(shared, _reduced((crystals[i] for i in shared), each)))
        groups = [group for group in _by_counts(cells).values() if len(group) > 1]
        groups.sort(key=len, reverse=True)
        batches = list(_batches(groups, len))
        tasks = [[[cells[i] for i in group] for group in batch] for batch in batches]
        for batch, done in zip(batches, each(_label_all, tasks)):
            for group, found in zip(batch, done):
                for index, first in zip(group, found):
                    labels[index] = group[first]
    return labels


def find_known(
    crystals: Sequence[AsymmetricUnit],
    reference: ReferenceIndex,
    *,
    num_workers: int | None = None,
) -> list[int | None]:
    """Row of a reference crystal that each crystal matches, None for new ones.

    Args:
        crystals: what to look up.
        reference: the known crystals.
        num_workers: processes; None is one a core.

    Returns:
        Rows ``(N,)``. Where several match, one of equal Wyckoff description or, among
        many, of the nearest fingerprint.
    """
    found: list[int | None] = [None] * len(crystals)
    asked, rows = [], set()
    for index, crystal in enumerate(crystals):
        known = reference.candidates(crystal.composition)
        if known:
            asked.append(index)
            rows.update(known)
    missing = sorted(rows - reference.cells.keys())
    with process_map(num_workers, len(asked) >= 2 * CHUNK) as each:
        cells = dict(zip(asked, _reduced((crystals[i] for i in asked), each)))
        new = _reduced((reference.dataset[row] for row in missing), each)
        reference.cells.update(zip(missing, new))
        known = _by_counts({row: reference.cells[row] for row in sorted(rows)})
        pairs = [
            (group[start : start + CHUNK], known[counts])
            for counts, group in _by_counts(cells).items()
            if counts in known
            for start in range(0, len(group), CHUNK)
        ]
        pairs.sort(key=lambda pair: len(pair[0]) * len(pair[1]), reverse=True)
        batches = list(_batches(pairs, lambda pair: len(pair[0]) + len(pair[1])))
        tasks = (
            [
                ([cells[i] for i in own], [reference.cells[row] for row in others])
                for own, others in batch
            ]
            for batch in batches
        )
        for batch, done in zip(batches, each(_look_up_all, tasks)):
            for (own, others), places in zip(batch, done):
                for index, place in zip(own, places):
                    found[index] = None if place is None else others[place]
    return found


def is_known(
    crystals: Sequence[AsymmetricUnit],
    reference: ReferenceIndex,
    *,
    num_workers: int | None = None,
) -> list[bool]:
    """Whether each crystal matches one of the reference set; see :func:`find_known`."""
    rows = find_known(crystals, reference, num_workers=num_workers)
    return [row is not None for row in rows]


def _first_match(
    cell: ReducedCell, others: list[ReducedCell], lengths: np.ndarray
) -> int | None:
    """Place of a match among cells of the same counts, whose lengths are ``(M, 3)``."""
    places = np.flatnonzero(could_match(cell.lengths, lengths)).tolist()
    if len(places) > FEW:
        fingerprints = np.array([others[i].fingerprint for i in places])
        distance = np.abs(fingerprints - cell.fingerprint).max(-1)
        places = [places[i] for i in np.argsort(distance, kind="stable")]
    places.sort(key=lambda i: others[i].description != cell.description)
    match = Match(cell)
    return next((place for place in places if match(others[place])), None)


def _label_all(tasks: list[list[ReducedCell]]) -> list[list[int]]:
    return [_label(task) for task in tasks]


def _label(cells: list[ReducedCell]) -> list[int]:
    """For each cell the place of one that it equals and that comes first."""
    firsts: list[int] = []
    kept: list[ReducedCell] = []
    lengths = np.empty((len(cells), 3))
    labels: list[int] = []
    for place, cell in enumerate(cells):
        found = _first_match(cell, kept, lengths[: len(kept)])
        labels.append(place if found is None else firsts[found])
        if found is None:
            lengths[len(kept)] = cell.lengths
            firsts.append(place)
            kept.append(cell)
    return labels


def _look_up_all(tasks: list[Lookup]) -> list[list[int | None]]:
    found = []
    for own, known in tasks:
        lengths = np.array([cell.lengths for cell in known])
        found.append([_first_match(cell, known, lengths) for cell in own])
    return found


def _reduce_all(crystals: list[AsymmetricUnit]) -> list[ReducedCell | None]:
    return [reduced_cell(crystal) for crystal in crystals]


def _reduced(
    crystals: Iterable[AsymmetricUnit], each: Callable
) -> Iterator[ReducedCell | None]:
    chunks = _batches(crystals, lambda crystal: 1)
    return chain.from_iterable(each(_reduce_all, chunks))


def _by_counts(cells: dict[int, ReducedCell | None]) -> dict[Counts, list[int]]:
    groups: dict[Counts, list[int]] = defaultdict(list)
    for index, cell in cells.items():
        if cell is not None:
            groups[cell.counts].append(index)
    return groups


def _batches(items: Iterable, size: Callable) -> Iterator[list]:
    """Consecutive items that together have about CHUNK crystals."""
    batch: list = []
    total = 0
    for item in items:
        batch.append(item)
        total += size(item)
        if total >= CHUNK:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch
