"""Known crystals with their elements replaced: where predictions can start.

Most compounds take a structure that a similar compound is known in. Known crystals of
the same anonymous formula get the elements of a composition; those whose elements are
similar vote for their Wyckoff template, and the templates with most votes come first.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from crystalvae.data.packed import compositions_of, material_id
from crystalvae.errors import InvalidStructureError
from crystalvae.screening.base import element_table
from crystalvae.screening.elements import periodic_place
from crystalvae.screening.uniqueness import ReferenceIndex, find_known
from crystalvae.symmetry.standardize import standardize
from crystalvae.symmetry.tables import symmetry_tables

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.data.packed import PackedDataset

UNITS = {"electronegativity": 0.6, "radius": 0.35, "group": 6.0, "period": 2.0}
"""What counts as a difference of 1 between two elements: Pauling units, Å, and places
of the periodic table; being an f element or not counts as 2."""
MOST_ASSIGNMENTS = 5040
"""Ways to hand out elements that are looked at; formulas with more have no analogue."""
WIDTH = 0.3
"""A known crystal at distance d has exp(-d / WIDTH) votes."""


@cache
def element_distances() -> np.ndarray:
    """Dissimilarity of two elements, Euclidean in :data:`UNITS`, ``(119, 119)``."""
    features = np.zeros((119, 5))
    for z, row in element_table().items():
        group, period, lanthanoid = periodic_place(z)
        features[z] = (
            (row["electronegativity"] or 1.5) / UNITS["electronegativity"],
            row["radius"] / UNITS["radius"],
            group / UNITS["group"],
            period / UNITS["period"],
            2.0 * lanthanoid,
        )
    return np.linalg.norm(features[:, None] - features, axis=-1)


@dataclass
class Analogue:
    """A known crystal that was given other elements."""

    crystal: AsymmetricUnit
    """With the new elements, its cell scaled by their radii, in canonical form."""
    row: int
    """The known crystal's."""
    distance: float
    """Sum of :func:`element_distances` over its elements; 0 for the crystal itself."""
    votes: float
    """Of all known crystals that have its template."""


@dataclass
class _Choice:
    row: int
    names: dict[int, int]
    distance: float
    votes: float = 0.0


class Analogues:
    """Known crystals by anonymous formula of the primitive cell.

    Args:
        known: a packed data set, or any sequence of asymmetric units.
    """

    def __init__(self, known: PackedDataset | Sequence[AsymmetricUnit]):
        self.known = known
        rows: dict[tuple[int, ...], list] = defaultdict(list)
        for row, composition in enumerate(compositions_of(known)):
            counts, elements = _ordered(composition)
            rows[counts].append((row, elements))
        self.rows = {
            counts: (np.array([r for r, _ in found]), np.array([e for _, e in found]))
            for counts, found in rows.items()
        }
        self.sites: dict[int, tuple[int, np.ndarray, list[int]]] = {}

    def propose(
        self, composition: dict[int, int], num: int, scan: int = 3000
    ) -> list[Analogue]:
        """Analogues that differ in group, positions or elements on them.

        Args:
            composition: atomic number → count in the primitive cell.
            num: how many at most.
            scan: nearest known crystals, with their elements handed out in any way,
                that are looked at.

        Returns:
            Those with most votes first, each from the nearest crystal that voted.
        """
        counts, elements = _ordered(composition)
        if counts not in self.rows or _num_assignments(counts) > MOST_ASSIGNMENTS:
            return []
        rows, known = self.rows[counts]
        wanted = np.array([np.array(elements)[list(p)] for p in _assignments(counts)])
        table = element_distances()
        costs = np.stack([table[known, own].sum(1) for own in wanted]).ravel()
        choices: dict[tuple, _Choice] = {}
        for place in np.argsort(costs, kind="stable")[:scan].tolist():
            distance = float(costs[place])
            if len(choices) >= num and distance > costs.min() + 6 * WIDTH:
                break
            turn, at = divmod(place, len(rows))
            row = int(rows[at])
            names = dict(zip(known[at].tolist(), wanted[turn].tolist()))
            choice = choices.setdefault(
                self._template(row, names), _Choice(row, names, distance)
            )
            choice.votes += math.exp(-distance / WIDTH)
        found = []
        for choice in sorted(choices.values(), key=lambda c: (-c.votes, c.distance)):
            try:
                crystal = renamed(self.known[choice.row], choice.names)
            except InvalidStructureError:
                continue
            found.append(Analogue(crystal, choice.row, choice.distance, choice.votes))
            if len(found) == num:
                break
        return found

    def _template(self, row: int, names: dict[int, int]) -> tuple:
        """Group, letters and new elements, the same for equivalent descriptions."""
        if row not in self.sites:
            crystal = self.known[row]
            tables = symmetry_tables()
            letters = tables.equivalent_letters(crystal.number, crystal.wyckoffs)
            self.sites[row] = crystal.number, letters, crystal.atomic_numbers.tolist()
        number, letters, species = self.sites[row]
        kinds = np.sort(letters * 128 + [names[z] for z in species], axis=1)
        return number, min(map(tuple, kinds.tolist()))


def _ordered(composition: dict[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Counts, ascending, and their elements."""
    pairs = sorted((n, z) for z, n in composition.items())
    return tuple(n for n, _ in pairs), tuple(z for _, z in pairs)


def _num_assignments(counts: tuple[int, ...]) -> int:
    sizes = (len(list(same)) for _, same in itertools.groupby(counts))
    return math.prod(map(math.factorial, sizes))


def _assignments(counts: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Orders of the elements that leave the counts as they are."""
    places = itertools.groupby(range(len(counts)), key=lambda place: counts[place])
    blocks = [list(itertools.permutations(same)) for _, same in places]
    for choice in itertools.product(*blocks):
        yield tuple(itertools.chain(*choice))


def renamed(crystal: AsymmetricUnit, names: dict[int, int]) -> AsymmetricUnit:
    """Other elements on the same sites, in a cell of their size, in canonical form.

    Args:
        crystal: the known crystal.
        names: old → new atomic number; elements that are not in it stay.

    Raises:
        InvalidStructureError: no symmetry is found.
    """
    table = element_table()

    def size(species: np.ndarray) -> float:
        radii = np.array([table[z]["radius"] for z in species.tolist()])
        return float((crystal.multiplicities * radii**3).sum())

    species = np.array([names.get(z, z) for z in crystal.atomic_numbers.tolist()])
    scale = (size(species) / size(crystal.atomic_numbers)) ** (1 / 3)
    new = dataclasses.replace(
        crystal, lattice=crystal.lattice * scale, atomic_numbers=species
    )
    return standardize(*new.expand()[:3])


def analogue_names(
    analogues: Analogues,
    compositions: Sequence[dict[int, int]],
    crystals: Sequence[AsymmetricUnit],
    *,
    num: int = 100,
    num_workers: int | None = None,
) -> list[str]:
    """Whose structure crystals have, up to the elements.

    Args:
        analogues: known crystals.
        compositions: whose analogues are looked at.
        crystals: of these compositions.
        num: analogues of each composition that are looked at, the best ones.
        num_workers: processes; None is one a core.

    Returns:
        Formula and name of the known crystal, such as ``CaTiO3 (mp-5827)``, or nothing.
    """
    own = [a for c in compositions for a in analogues.propose(c, num)]
    index = ReferenceIndex([analogue.crystal for analogue in own])
    names = []
    for place in find_known(crystals, index, num_workers=num_workers):
        if place is None:
            names.append("")
            continue
        row = own[place].row
        name = material_id(analogues.known, row)
        formula = analogues.known[row].formula
        names.append(formula if name is None else f"{formula} ({name})")
    return names
