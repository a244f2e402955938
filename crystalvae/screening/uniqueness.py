"""Which structures are the same, and which are known: StructureMatcher decides.

Only structures of one reduced formula can match, so candidates come from a table of
formulas and no pair that could match is missed; the cost grows with the number of
structures that share a formula, not with all pairs.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from math import gcd
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.data.packed import PackedDataset

Formula = tuple[tuple[int, int], ...]


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
    """Known crystals by reduced formula.

    Args:
        dataset: a packed data set, or any sequence of asymmetric units.
    """

    def __init__(self, dataset: PackedDataset | Sequence[AsymmetricUnit]):
        self.dataset = dataset
        self.rows: dict[Formula, list[int]] = defaultdict(list)
        for row, key in enumerate(_formulas(dataset)):
            self.rows[key].append(row)

    def candidates(self, composition: dict[int, int]) -> list[int]:
        """Rows of the known crystals that could be the same."""
        return self.rows.get(formula_key(composition), [])

    def name(self, row: int) -> str:
        """Identifier of a known crystal."""
        ids = getattr(self.dataset, "material_ids", None)
        return ids[row] if ids else str(row)


def _formulas(dataset: PackedDataset | Sequence[AsymmetricUnit]) -> Iterable[Formula]:
    offset = getattr(dataset, "comp_offset", None)
    if offset is None:
        for crystal in dataset:
            yield formula_key(crystal.composition)
        return
    offset = np.asarray(offset)
    elements = np.asarray(dataset.comp_element).tolist()
    counts = np.asarray(dataset.comp_count).tolist()
    for start, end in zip(offset[:-1].tolist(), offset[1:].tolist()):
        yield formula_key(dict(zip(elements[start:end], counts[start:end])))


def _label(task: list[Structure]) -> list[int]:
    """First equal structure of each, within one formula."""
    matcher = default_matcher()
    firsts: list[int] = []
    labels: list[int] = []
    for place, structure in enumerate(task):
        for first in firsts:
            if _fit(matcher, structure, task[first]):
                labels.append(first)
                break
        else:
            firsts.append(place)
            labels.append(place)
    return labels


def _fit(matcher: StructureMatcher, one: Structure, other: Structure) -> bool:
    try:
        return bool(matcher.fit(one, other))
    except Exception:
        return False


def duplicate_of(
    crystals: Sequence[AsymmetricUnit], *, num_workers: int | None = None
) -> list[int]:
    """For each crystal the index of the first equal one; its own if it is the first.

    Args:
        crystals: what to compare.
        num_workers: processes; None is one a core.
    """
    groups: dict[Formula, list[int]] = defaultdict(list)
    for index, crystal in enumerate(crystals):
        groups[formula_key(crystal.composition)].append(index)
    labels = list(range(len(crystals)))
    shared = [group for group in groups.values() if len(group) > 1]
    tasks = [[crystals[i].to_structure() for i in group] for group in shared]
    for group, found in zip(shared, _map(_label, tasks, num_workers)):
        for place, first in enumerate(found):
            labels[group[place]] = group[first]
    return labels


def _first_match(task: tuple[Structure, list[Structure]]) -> int | None:
    structure, known = task
    matcher = default_matcher()
    places = (i for i, other in enumerate(known) if _fit(matcher, structure, other))
    return next(places, None)


def find_known(
    crystals: Sequence[AsymmetricUnit],
    reference: ReferenceIndex,
    *,
    num_workers: int | None = None,
) -> list[int | None]:
    """Row of the first reference crystal that each crystal matches, None for new ones.

    Args:
        crystals: what to look up.
        reference: the known crystals.
        num_workers: processes; None is one a core.
    """
    found: list[int | None] = [None] * len(crystals)
    places, tasks = [], []
    for index, crystal in enumerate(crystals):
        rows = reference.candidates(crystal.composition)
        if rows:
            places.append((index, rows))
            structures = [reference.dataset[row].to_structure() for row in rows]
            tasks.append((crystal.to_structure(), structures))
    for (index, rows), place in zip(places, _map(_first_match, tasks, num_workers)):
        found[index] = None if place is None else rows[place]
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


def _map(function, tasks: list, num_workers: int | None) -> list:
    num_workers = num_workers or len(os.sched_getaffinity(0))
    if num_workers == 1 or len(tasks) < 200:
        return [function(task) for task in tasks]
    context = get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        return list(pool.map(function, tasks, chunksize=32))
