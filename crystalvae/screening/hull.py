"""Energy above the convex hull of known crystals, all in one potential."""

from __future__ import annotations

import json
import logging
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from crystalvae.data.joined import parts_of
from crystalvae.data.packed import material_id
from crystalvae.errors import ConfigError, DataError
from crystalvae.parallel import ordered_map
from crystalvae.screening.relax import SECONDS, relax

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

    from crystalvae.crystal import AsymmetricUnit

logger = logging.getLogger(__name__)

Composition = dict[int, int]

RELAX_STEPS = 50
"""Most steps in which a known crystal near the hull is relaxed."""
MARGIN = 0.1
"""eV/atom above the hull of the unrelaxed up to which known crystals are relaxed."""


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
        for system, known in self.lowest.items():
            if not system.issubset(composition):
                continue
            places = [elements.index(z) for z in sorted(system)]
            for own, value in known.items():
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
    with _Energies(dict(zip(starts, files, strict=True))) as energies:

        def hull_of(found: dict[int, float]) -> Hull:
            return Hull([chosen[row] for row in found], list(found.values()))

        def evaluate(rows: Iterable[int], most: int) -> dict[int, float]:
            rows, failed = list(rows), []
            missing = [row for row in rows if (row, most) not in energies.known]
            work = partial(_energy, known, calculator, most, seconds)
            each = ordered_map(work, missing, min(num_workers, len(missing)))
            for row, energy in zip(missing, each):
                if isinstance(energy, str):
                    failed.append(f"{material_id(known, row) or row}: {energy}")
                else:
                    energies.add(row, most, energy)
                if advance is not None:
                    advance()
            found = {
                row: energies.known[row, most]
                for row in rows
                if (row, most) in energies.known
            }
            if failed and not found and not most:
                raise ConfigError(
                    f"the potential gave no energy of any known crystal ({failed[0]})"
                )
            if failed and not most:
                logger.warning(
                    f"{len(failed)} of {len(rows)} known crystals have no energy and "
                    f"are not in the hull, which may lie too high ({failed[0]})"
                )
            return found

        found = evaluate(chosen, 0)
        hull = hull_of(found)
        if not steps:
            return hull
        near = []
        for row, energy in found.items():
            above = hull.energy_above(chosen[row], energy)
            if above is not None and above <= MARGIN:
                near.append(row)
        for row, energy in evaluate(near, steps).items():
            found[row] = min(energy, found[row])
        return hull_of(found)


class _Energies:
    """Energies by row and number of steps, in files that only grow.

    Args:
        paths: first row of each part → its file, ascending.
    """

    def __init__(self, paths: dict[int, Path]):
        self.starts, self.paths = list(paths), list(paths.values())
        self.known: dict[tuple[int, int], float] = {}

    def __enter__(self) -> _Energies:
        with ExitStack() as stack:
            self.files = [
                stack.enter_context(self._open(start, path))
                for start, path in zip(self.starts, self.paths)
            ]
            self.stack = stack.pop_all()
        return self

    def _open(self, start: int, path: Path) -> TextIO:
        try:
            text = path.read_text() if path.exists() else ""
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                path.write_text(whole)
            for line in whole.splitlines():
                row, energy, steps = json.loads(line)
                if energy is not None:
                    self.known[start + row, steps] = energy
        except (OSError, TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged ({error}); delete it") from error
        try:
            return path.open("a")
        except OSError as error:
            raise _unwritable(path, error) from error

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def add(self, row: int, steps: int, energy: float) -> None:
        self.known[row, steps] = energy
        part = bisect_right(self.starts, row) - 1
        file = self.files[part]
        try:
            file.write(json.dumps([row - self.starts[part], energy, steps]) + "\n")
            file.flush()
        except OSError as error:
            raise _unwritable(self.paths[part], error) from error


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write {path} ({error}); free some disk space and run again"
    )


def _energy(
    known: Sequence[AsymmetricUnit],
    calculator: Calculator,
    steps: int,
    seconds: int,
    row: int,
) -> float | str:
    """Energy of a known crystal in eV/atom, or why there is none."""
    atoms = known[row].to_atoms()
    try:
        if steps:
            energy = relax(atoms, calculator, max_steps=steps, seconds=seconds).energy
        else:
            atoms.calc = calculator
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                energy = float(atoms.get_potential_energy()) / len(atoms)
    except Exception as error:
        return str(error) or type(error).__name__
    return energy if np.isfinite(energy) else f"the energy is {energy}"
