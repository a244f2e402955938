"""What is the same crystal, a distortion of one, or an exchange of its elements."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ase.data import chemical_symbols

from crystalvae.benchmark.matching import TOLERANCES
from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.joined import JoinedSets
from crystalvae.data.load import open_known
from crystalvae.data.packed import PackedDataset
from crystalvae.errors import ConfigError
from crystalvae.screening.uniqueness import ReferenceIndex, formula_key, is_known
from crystalvae.symmetry.tables import symmetry_tables

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure


def occupation(crystal: AsymmetricUnit) -> tuple:
    """The group, and which elements sit on which positions, the same in all settings.

    Returns:
        Hashable; equal where crystals differ in coordinates and cell only.
    """
    letters = tuple(crystal.wyckoffs.tolist())
    species = crystal.atomic_numbers.tolist()
    rows = symmetry_tables().equivalent_letters(crystal.number, letters).tolist()
    return crystal.number, min(tuple(sorted(zip(row, species))) for row in rows)


@cache
def _loose_matcher() -> StructureMatcher:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(**TOLERANCES)


def is_distortion(first: AsymmetricUnit, second: AsymmetricUnit) -> bool:
    """Whether crystals of equal :func:`occupation` match with wide tolerances.

    Those of the reconstruction benchmark,
    :data:`~crystalvae.benchmark.matching.TOLERANCES`. Relaxed, most such pairs are the
    same crystal.
    """
    return bool(_loose_matcher().fit(first.to_structure(), second.to_structure()))


def merge_distorted(
    crystals: Sequence[AsymmetricUnit], matches: Sequence[int]
) -> list[int]:
    """Labels of matching crystals, those of distortions made one.

    Args:
        crystals: the crystals.
        matches: for each the first that it matches, or its own index.

    Returns:
        For each the first crystal that it is linked to by matches and distortions.
    """
    root = list(range(len(crystals)))

    def find(place: int) -> int:
        while root[place] != place:
            place = root[place]
        return place

    def join(one: int, other: int) -> None:
        low, high = sorted((find(one), find(other)))
        root[high] = low

    for place, first in enumerate(matches):
        join(place, first)
    classes: dict[tuple, list[int]] = defaultdict(list)
    for place, crystal in enumerate(crystals):
        seen = classes[occupation(crystal)]
        linked = False
        for other in seen:
            if find(other) != find(place) and is_distortion(crystals[other], crystal):
                join(other, place)
            linked = linked or find(other) == find(place)
        if not linked:
            seen.append(place)
    return [find(place) for place in range(len(crystals))]


class Listed:
    """Known crystals, and which others are among them.

    Args:
        known: the known crystals by formula.
        distortions: whether distortions of them count as new.
    """

    def __init__(self, known: ReferenceIndex, distortions: bool = False):
        self.known = known
        self.distortions = distortions
        self._occupations: dict[int, tuple] = {}

    @classmethod
    def of(
        cls,
        known: Listed
        | str
        | Path
        | Iterable[str | Path]
        | Iterable[AsymmetricUnit | Structure | Atoms],
        distortions: bool = False,
    ) -> Listed:
        """From known crystals, or from where they are.

        Args:
            known: crystals, or paths of data sets or of anything that ``prepare``
                reads, one or several. One that is made already is given back.
            distortions: whether distortions of them count as new.

        Raises:
            ConfigError: it is neither.
            DataError: the path holds nothing that can be used.
            InvalidStructureError: something is no crystal, or cannot be used.
        """
        if isinstance(known, Listed):
            return known
        if isinstance(known, (str, Path)):
            known = [known]
        elif not isinstance(known, Iterable):
            raise ConfigError(
                "known crystals are a path or a list of crystals, not one "
                f"{type(known).__name__}"
            )
        if not isinstance(known, (PackedDataset, JoinedSets)):
            known = list(known)
            if known and all(isinstance(item, (str, Path)) for item in known):
                known = open_known([str(path) for path in known])
            else:
                known = [AsymmetricUnit.of(crystal) for crystal in known]
        return cls(ReferenceIndex(known), distortions)

    def __call__(
        self, crystals: Sequence[AsymmetricUnit], *, num_workers: int | None = None
    ) -> list[bool]:
        """Which crystals match a known one, or are a distortion of one."""
        found = is_known(crystals, self.known, num_workers=num_workers)
        if self.distortions:
            return found
        return [
            old or self._is_distorted(crystal) for old, crystal in zip(found, crystals)
        ]

    def _is_distorted(self, crystal: AsymmetricUnit) -> bool:
        own = occupation(crystal)
        for row in self.known.candidates(crystal.composition):
            if row not in self._occupations:
                self._occupations[row] = occupation(self.known.dataset[row])
            if self._occupations[row] == own and is_distortion(
                self.known.dataset[row], crystal
            ):
                return True
        return False


def change(known: AsymmetricUnit, found: AsymmetricUnit) -> str:
    """What is different, in a few words.

    Returns:
        ``geometry`` where the same elements sit on the same positions; ``Fe → Co``
        where the positions are the same and elements are exchanged, with ``some`` where
        an element keeps other sites; ``structure`` where only the formula is the same;
        ``stoichiometry`` where only the elements are; otherwise the elements that come
        and go, ``+F -P``.
    """
    pairs = _exchanges(known, found)
    if pairs is not None:
        kept = {old for old, new in pairs if old == new}
        names = sorted(
            f"{'some ' if old in kept else ''}"
            f"{chemical_symbols[old]} → {chemical_symbols[new]}"
            for old, new in pairs
            if old != new
        )
        return ", ".join(names) or "geometry"
    if formula_key(known.composition) == formula_key(found.composition):
        return "structure"
    gained = found.composition.keys() - known.composition.keys()
    lost = known.composition.keys() - found.composition.keys()
    signed = [f"+{chemical_symbols[z]}" for z in sorted(gained)]
    signed += [f"-{chemical_symbols[z]}" for z in sorted(lost)]
    return " ".join(signed) or "stoichiometry"


def _exchanges(
    known: AsymmetricUnit, found: AsymmetricUnit
) -> set[tuple[int, int]] | None:
    """(old, new) elements of the sites, paired so that as few as can be change.

    None where the positions are not the same.
    """
    if known.number != found.number or len(known.wyckoffs) != len(found.wyckoffs):
        return None
    letters = tuple(found.wyckoffs.tolist())
    rows = symmetry_tables().equivalent_letters(found.number, letters).tolist()
    best: tuple[int, set[tuple[int, int]]] | None = None
    for row in rows:
        if sorted(row) != sorted(known.wyckoffs.tolist()):
            continue
        pairs: list[tuple[int, int]] = []
        for letter in set(row):
            old = Counter(known.atomic_numbers[known.wyckoffs == letter].tolist())
            new = Counter(
                z for z, own in zip(found.atomic_numbers.tolist(), row) if own == letter
            )
            pairs += [(z, z) for z in (old & new).elements()]
            pairs += zip(sorted((old - new).elements()), sorted((new - old).elements()))
        changed = sum(old != new for old, new in pairs)
        if best is None or changed < best[0]:
            best = changed, set(pairs)
    return None if best is None else best[1]
