"""Energy above the convex hull of known crystals, all in one potential."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystalvae.errors import DataError

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

    from crystalvae.crystal import AsymmetricUnit

Composition = dict[int, int]


class Hull:
    """Lower convex hull over compositions.

    Args:
        compositions: atomic number → count of each known crystal.
        energies: eV/atom of each.
    """

    def __init__(self, compositions: Sequence[Composition], energies: Sequence[float]):
        self.entries = list(zip(compositions, energies))

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
        known = [(c, e) for c, e in self.entries if set(c) <= set(elements)]
        if not known:
            return None
        shares = np.array([_shares(c, elements) for c, _ in known]).T
        solution = linprog(
            [e for _, e in known],
            A_eq=shares,
            b_eq=_shares(composition, elements),
            bounds=(0, None),
            method="highs",
        )
        return float(energy - solution.fun) if solution.status == 0 else None


def _shares(composition: Composition, elements: Sequence[int]) -> np.ndarray:
    counts = np.array([composition.get(z, 0) for z in elements], float)
    return counts / sum(composition.values())


def reference_hull(
    known: Sequence[AsymmetricUnit],
    wanted: Iterable[Composition],
    calculator: Calculator,
    cached: Path,
    *,
    advance: Callable[[], object] | None = None,
) -> Hull:
    """The hull of those known crystals whose elements the wanted compositions have.

    Each energy is appended to a file as it is computed, so that an interrupted run goes
    on and the next one need not compute it again. Crystals are taken as they are, not
    relaxed: a reference set is relaxed already, though in another functional.

    Args:
        known: the reference crystals.
        wanted: compositions that are to be judged.
        calculator: the potential that judges them too.
        cached: JSON-lines file, one for each potential and reference set.
        advance: called after each crystal.

    Raises:
        DataError: the file cannot be read or written.
    """
    energies: dict[int, float | None] = {}
    try:
        if cached.exists():
            for line in cached.read_text().splitlines():
                row, energy = json.loads(line)
                energies[row] = energy
    except (OSError, ValueError) as error:
        raise DataError(f"{cached} is damaged ({error}); delete it") from error
    systems = {frozenset(composition) for composition in wanted}
    chosen = [
        row
        for row in range(len(known))
        if any(system.issuperset(known[row].composition) for system in systems)
    ]
    try:
        with cached.open("a") as file:
            for row in chosen:
                if row not in energies:
                    energies[row] = _energy(known[row], calculator)
                    file.write(json.dumps([row, energies[row]]) + "\n")
                    file.flush()
                if advance is not None:
                    advance()
    except OSError as error:
        raise DataError(
            f"cannot write {cached} ({error}); free some disk space and run again"
        ) from error
    usable = [row for row in chosen if energies[row] is not None]
    return Hull(
        [known[row].composition for row in usable], [energies[r] for r in usable]
    )


def _energy(crystal: AsymmetricUnit, calculator: Calculator) -> float | None:
    atoms = crystal.to_atoms()
    atoms.calc = calculator
    try:
        energy = float(atoms.get_potential_energy()) / len(atoms)
    except Exception:
        return None
    return energy if np.isfinite(energy) else None
