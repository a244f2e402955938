"""Unlisted relatives of known crystals: one element exchanged for another.

Two known crystals that differ in one element only, on the same Wyckoff positions of the
same space group (MgAl2O4 and ZnAl2O4), show an exchange that chemistry allows. Counted
over a data set, such pairs say which element may take whose place, and how often; known
crystals with elements exchanged that often are what a model that generates should have
seen besides the known ones. Of MP-20's validation crystals 80 % differ from a training
crystal in one element at most.

Reference: the idea is that of G. Hautier et al., Inorg. Chem. 50, 656 (2011), who learn
from pairs of known compounds which ions replace each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crystalvae.data.packed import compositions_of, join, pack
from crystalvae.design.analogues import renamed
from crystalvae.errors import DataError, InvalidStructureError
from crystalvae.graph import orbit_graph
from crystalvae.parallel import run_chunks
from crystalvae.screening.charge import smact_valid
from crystalvae.screening.uniqueness import formula_key
from crystalvae.symmetry.tables import symmetry_tables

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.data.packed import PackedDataset

CHUNK = 250
BLOCK = 1_000_000
"""Exchanges drawn at a time at most."""
MAX_Z = 119
ROUNDS = 20
"""Rounds, each of twice as many exchanges as are missing, before fewer must do."""
PAYS = 500
"""Crystals from which on processes are worth their start."""


@dataclass(frozen=True)
class Exchange:
    """A known crystal and what becomes of one of its elements."""

    row: int
    """The known crystal's."""
    old: int
    """Atomic number that goes."""
    new: int
    """Atomic number that comes."""

    def of(self, composition: dict[int, int]) -> dict[int, int]:
        """What becomes of the known crystal's composition."""
        return {self.new if z == self.old else z: n for z, n in composition.items()}


def families_of(crystal: AsymmetricUnit) -> Iterator[tuple[tuple, int]]:
    """What is left of a crystal without one of its elements, and that element.

    Group, Wyckoff letters and the other elements on them, not the coordinates. The same
    for all descriptions of a crystal; hashable.
    """
    species = crystal.atomic_numbers
    letters = symmetry_tables().equivalent_letters(crystal.number, crystal.wyckoffs)
    for element in set(species.tolist()):
        others = np.where(species == element, 0, species)
        kinds = np.sort(letters * 128 + others, axis=1)
        yield (crystal.number, *min(map(tuple, kinds.tolist()))), element


def gather_families(
    known: PackedDataset | Sequence[AsymmetricUnit],
) -> dict[tuple, set[int]]:
    """The elements of each family of :func:`families_of` among crystals."""
    families: dict[tuple, set[int]] = defaultdict(set)
    for crystal in known:
        for family, element in families_of(crystal):
            families[family].add(element)
    return families


def exchange_counts(known: PackedDataset | Sequence[AsymmetricUnit]) -> np.ndarray:
    """How often one element takes the place of another in known crystals.

    A family of n elements, in which each can take the place of each, adds 1 / (n - 1)
    to each of its pairs, so that every member counts once.

    Args:
        known: a packed data set, or any sequence of asymmetric units.

    Returns:
        Symmetric, by atomic number, ``(119, 119)``.
    """
    counts = np.zeros((MAX_Z, MAX_Z))
    for elements in gather_families(known).values():
        members = np.array(sorted(elements))
        if len(members) > 1:
            counts[members[:, None], members] += 1 / (len(members) - 1)
    np.fill_diagonal(counts, 0.0)
    return counts


def draw_exchanges(
    known: PackedDataset | Sequence[AsymmetricUnit],
    num: int,
    *,
    counts: np.ndarray | None = None,
    seed: int = 0,
) -> list[Exchange]:
    """Draw exchanges that lead to unlisted compositions.

    Each pair of elements is drawn as often as it is counted, in both directions, so
    that elements keep their frequencies. Refused are compositions of a known crystal
    (in the primitive cell), and those that lose the SMACT validity that the known
    crystal has. No exchange is drawn twice, but exchanges of several known crystals may
    lead to the same one.

    Args:
        known: a packed data set, or any sequence of asymmetric units.
        num: how many at most.
        counts: of :func:`exchange_counts`; computed if None.
        seed: decides everything random.

    Returns:
        Fewer than ``num`` where the crystals allow no more.
    """
    counts = exchange_counts(known) if counts is None else counts
    compositions = list(compositions_of(known))
    listed = {tuple(sorted(c.items())) for c in compositions}
    owners = np.repeat(np.arange(len(compositions)), [len(c) for c in compositions])
    elements = np.concatenate([np.array(list(c)) for c in compositions])
    frequency = np.bincount(elements, minlength=MAX_Z)
    weight = (counts.sum(1) / np.maximum(frequency, 1))[elements]
    if not weight.any():
        return []
    num = min(num, int((counts > 0).sum(1)[elements].sum()))
    rng = np.random.default_rng(seed % 2**63)
    reach = weight.cumsum()
    ways = counts.cumsum(1)
    found: dict[Exchange, None] = {}
    for _ in range(ROUNDS + num // BLOCK):
        missing = num - len(found)
        if missing <= 0:
            break
        size = min(2 * missing, BLOCK)
        places = np.searchsorted(reach, rng.random(size) * reach[-1], "right")
        for place, draw in zip(places.tolist(), rng.random(len(places)).tolist()):
            row, old = int(owners[place]), int(elements[place])
            new = int(np.searchsorted(ways[old], draw * ways[old, -1], "right"))
            exchange = Exchange(row, old, new)
            if exchange not in found and _allowed(compositions[row], exchange, listed):
                found[exchange] = None
    return list(found)[:num]


def _allowed(composition: dict[int, int], exchange: Exchange, listed: set) -> bool:
    if exchange.new in composition:
        return False
    changed = exchange.of(composition)
    if tuple(sorted(changed.items())) in listed:
        return False
    return balanced(changed) or not balanced(composition)


def balanced(composition: dict[int, int]) -> bool:
    """SMACT's rule for a composition that need not be reduced."""
    return smact_valid(dict(formula_key(composition)))


def substitute(
    known: PackedDataset | Sequence[AsymmetricUnit],
    num: int,
    *,
    seed: int = 0,
    num_workers: int | None = None,
    advance: Callable[[int], object] | None = None,
) -> tuple[dict[str, np.ndarray], list[Exchange]]:
    """Relatives of known crystals as arrays of a packed data set.

    Positions are those of the known crystal, its cell is scaled by the elements' radii:
    group, positions and coordinates are an educated guess, the cell is a rough one.

    Args:
        known: a packed data set, or any sequence of asymmetric units.
        num: how many at most.
        seed: decides everything random; the result does not depend on the processes.
        num_workers: processes; None is one a core.
        advance: called with the number of exchanges done since the last call.

    Returns:
        Arrays as of :func:`crystalvae.data.packed.pack`, and the exchange of each
        crystal in them.

    All is held in memory, some 1.5 kB for each known crystal and each new one.

    Raises:
        DataError: no element of the crystals can be exchanged.
    """
    if not len(known):
        raise DataError("there are no crystals to exchange elements of")
    counts = exchange_counts(known)
    if not counts.any():
        raise DataError(
            "no element can be exchanged: no two of the crystals differ in one element"
        )
    exchanges = draw_exchanges(known, num, counts=counts, seed=seed)
    chunks = [exchanges[i : i + CHUNK] for i in range(0, len(exchanges), CHUNK)]
    parts: dict[int, dict[str, np.ndarray]] = {}
    kept: dict[int, list[Exchange]] = {}

    def jobs() -> Iterator[tuple[int, list[tuple]]]:
        for number, chunk in enumerate(chunks):
            yield number, [(known[e.row], {e.old: e.new}) for e in chunk]

    def settle(number: int, chunk: list[tuple], results: list) -> None:
        good = [place for place, result in enumerate(results) if result is not None]
        if good:
            parts[number] = pack(*zip(*(results[place] for place in good)))
            kept[number] = [chunks[number][place] for place in good]
        if advance is not None:
            advance(len(chunk))

    if len(exchanges) <= PAYS:
        num_workers = 1
    run_chunks(_relatives, jobs(), settle, lambda _: None, num_workers=num_workers)
    if not parts:
        raise DataError(
            "no element can be exchanged: every exchange gives the composition of a "
            "known crystal, or costs its charge balance"
        )
    order = sorted(parts)
    return join([parts[i] for i in order]), [e for i in order for e in kept[i]]


def _relatives(jobs: list[tuple]) -> list[tuple | None]:
    """Crystals with other elements and their orbit graphs, None where there is none."""
    found: list[tuple | None] = []
    for crystal, names in jobs:
        try:
            relative = renamed(crystal, names)
            found.append((relative, orbit_graph(relative)))
        except InvalidStructureError:
            found.append(None)
    return found
