"""Energy above the convex hull of known crystals, all in one potential."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystalvae.data.joined import parts_of
from crystalvae.data.packed import compositions_of
from crystalvae.parallel import forks, num_cores
from crystalvae.screening.energies import EnergyFiles, evaluate
from crystalvae.screening.relax import SECONDS

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

    from crystalvae.crystal import AsymmetricUnit

Composition = dict[int, int]

RELAX_STEPS = 50
"""Most steps in which a known crystal near the hull is relaxed."""
MARGIN = 0.1
"""eV/atom above the hull of the unrelaxed up to which known crystals are relaxed."""
CLEARLY = 0.05
"""eV/atom above the hull from which on relaxing has something to take."""


class Hull:
    """Lower convex hull over compositions.

    Args:
        compositions: atomic number → count of each known crystal.
        energies: eV/atom of each.
    """

    def __init__(self, compositions: Sequence[Composition], energies: Sequence[float]):
        self.lowest: dict[frozenset[int], dict[tuple[float, ...], float]] = {}
        for composition, energy in zip(compositions, energies):
            elements = sorted(composition)
            system = self.lowest.setdefault(frozenset(elements), {})
            shares = tuple(_shares(composition, elements))
            system[shares] = min(energy, system.get(shares, energy))

    def energy_above(self, composition: Composition, energy: float) -> float | None:
        """Energy above the hull in eV/atom; negative below it.

        The least energy that a mixture of known crystals of the same elements can have
        at this composition, by linear programming.

        Args:
            composition: atomic number → count.
            energy: eV/atom.

        Returns:
            None where the known crystals cannot make up the composition.
        """
        from scipy.optimize import linprog

        elements = sorted(composition)
        shares, energies = [], []
        for system in self._systems_of(elements):
            places = [elements.index(z) for z in sorted(system)]
            for own, value in self.lowest[system].items():
                shares.append(np.zeros(len(elements)))
                shares[-1][places] = own
                energies.append(value)
        if not energies:
            return None
        solution = linprog(
            energies,
            A_eq=np.array(shares).T,
            b_eq=_shares(composition, elements),
            bounds=(0, None),
            method="highs",
        )
        return float(energy - solution.fun) if solution.status == 0 else None

    def _systems_of(self, elements: Sequence[int]) -> Iterator[frozenset[int]]:
        """Known chemical systems of some of these elements."""
        if 2 ** len(elements) > len(self.lowest):
            yield from (s for s in self.lowest if s.issubset(elements))
            return
        for size in range(1, len(elements) + 1):
            for chosen in map(frozenset, combinations(elements, size)):
                if chosen in self.lowest:
                    yield chosen

    def formation_energy(self, composition: Composition, energy: float) -> float | None:
        """Energy in eV/atom against the most stable known crystal of each element.

        Args:
            composition: atomic number → count.
            energy: eV/atom.

        Returns:
            None where an element has no known crystal of its own.
        """
        pure = {z: self.lowest.get(frozenset([z]), {}) for z in composition}
        if not all(pure.values()):
            return None
        elements = {z: min(energies.values()) for z, energies in pure.items()}
        total = sum(composition.values())
        return energy - sum(elements[z] * n for z, n in composition.items()) / total


@dataclass(frozen=True)
class HullEnergies:
    """Energies of crystals in a potential, and above the hull of known ones.

    NaN where there is none: the potential failed, or known crystals cannot make up the
    composition.
    """

    energy: np.ndarray
    """eV/atom, ``(N,)``."""
    above: np.ndarray
    """eV/atom, ``(N,)``; what relaxing will take is taken off where that was asked."""
    left: float = 1.0
    """Share of the energies above the hull that relaxing leaves."""


def energies_above(
    crystals: Sequence[AsymmetricUnit],
    known: Sequence[AsymmetricUnit],
    calculator: Calculator,
    own_file: Path,
    known_files: Sequence[Path],
    *,
    steps: int = 0,
    relaxed: int = 0,
    seconds: int = SECONDS,
    num_workers: int | None = None,
    advance: Callable[[], object] | None = None,
) -> HullEnergies:
    """Energies of crystals in a potential, and above the hull of known ones.

    Relaxing takes a hundred times as long as an energy, and of drafts it lowers those
    most that lie high: a few that are relaxed show which share of the energy above the
    hull is left in the median, and all that lie above it are multiplied by that.

    Args:
        crystals: what is judged.
        known: what makes the hull.
        calculator: the potential.
        own_file: keeps the energies of the crystals.
        known_files: keep those of the known ones, one for each part of them.
        steps: most steps of a relaxation; 0 takes all as they are.
        relaxed: how many that lie :data:`CLEARLY` above the hull are relaxed, at most,
            to learn what that leaves; 0 for none.
        seconds: time limit of each.
        num_workers: processes; None is one a core where they fork.
        advance: called after each energy that is computed.

    Raises:
        ConfigError: the potential gives no energy at all.
        DataError: a file cannot be read or written.
    """
    workers = num_workers or (num_cores() if forks() else 1)
    how = {"seconds": seconds, "num_workers": workers, "advance": advance}
    compositions = list(compositions_of(crystals))
    with EnergyFiles({0: own_file}) as kept:
        work = partial(evaluate, crystals, calculator=calculator, energies=kept, **how)
        found = work(range(len(crystals)), steps=steps)
        wanted = [compositions[row] for row in found]
        hull = reference_hull(
            known, wanted, calculator, known_files, steps=steps, **how
        )

        def heights(energies: dict[int, float]) -> dict[int, float]:
            each = {
                r: hull.energy_above(compositions[r], e) for r, e in energies.items()
            }
            return {row: height for row, height in each.items() if height is not None}

        above, left = heights(found), 1.0
        clearly = [row for row, height in above.items() if height > CLEARLY]
        chosen = random.Random(0).sample(clearly, min(relaxed, len(clearly)))
        if chosen:
            after = heights(work(chosen, steps=RELAX_STEPS))
            shares = [height / above[row] for row, height in after.items()]
            left = float(np.clip(np.median(shares), 0, 1)) if shares else 1.0
    result = HullEnergies(*np.full((2, len(crystals)), np.nan), left)
    for row, energy in found.items():
        result.energy[row] = energy
    for row, height in above.items():
        result.above[row] = height * left if height > 0 else height
    return result


def _shares(composition: Composition, elements: Sequence[int]) -> np.ndarray:
    counts = np.array([composition.get(z, 0) for z in elements], float)
    return counts / sum(composition.values())


def reference_hull(
    known: Sequence[AsymmetricUnit],
    wanted: Iterable[Composition],
    calculator: Calculator,
    cached: Path | Sequence[Path],
    *,
    steps: int = RELAX_STEPS,
    seconds: int = SECONDS,
    num_workers: int = 1,
    advance: Callable[[], object] | None = None,
) -> Hull:
    """The hull of those known crystals whose elements the wanted compositions have.

    All are evaluated as they are; those within :data:`MARGIN` of the hull are then
    relaxed, space group kept, since a reference set is relaxed in another functional.
    Each energy is appended to a file as it is computed, so that an interrupted run goes
    on and the next one need not compute it again. What failed is tried again by the
    next one.

    Args:
        known: the reference crystals.
        wanted: compositions that are to be judged.
        calculator: the potential that judges them too.
        cached: JSON-lines files of ``[row, energy, steps]``, one for each potential and
            part of the reference set.
        steps: most steps of a relaxation; 0 leaves all as they are.
        seconds: time limit of each; what takes longer stays as it is.
        num_workers: processes.
        advance: called after each energy.

    Raises:
        ConfigError: the potential gives no energy at all.
        DataError: the file cannot be read or written.
    """
    systems = {frozenset(composition) for composition in wanted}
    chosen = {}
    for row in range(len(known)):
        composition = known[row].composition
        if any(system.issuperset(composition) for system in systems):
            chosen[row] = composition
    files = [cached] if isinstance(cached, Path) else cached
    starts = [start for start, _ in parts_of(known)]
    with EnergyFiles(dict(zip(starts, files, strict=True))) as energies:
        work = partial(
            evaluate,
            known,
            calculator=calculator,
            energies=energies,
            seconds=seconds,
            num_workers=num_workers,
            advance=advance,
        )
        found = work(chosen)
        hull = Hull([chosen[row] for row in found], list(found.values()))
        if not steps:
            return hull
        near = []
        for row, energy in found.items():
            above = hull.energy_above(chosen[row], energy)
            if above is not None and above <= MARGIN:
                near.append(row)
        for row, energy in work(near, steps=steps).items():
            found[row] = min(energy, found[row])
        return Hull([chosen[row] for row in found], list(found.values()))
