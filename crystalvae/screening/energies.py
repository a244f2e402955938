"""Energies of known crystals in a potential, kept as they are computed."""

from __future__ import annotations

import errno
import json
import logging
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from crystalvae.data.jobs import content_hash
from crystalvae.data.packed import material_id
from crystalvae.data.readers.prepared import is_prepared
from crystalvae.errors import ConfigError, DataError
from crystalvae.parallel import ordered_map
from crystalvae.screening.potentials import file_name
from crystalvae.screening.relax import SECONDS, relax

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

    from crystalvae.crystal import AsymmetricUnit

logger = logging.getLogger(__name__)


def energy_file(crystals: str | Path, potential: str, work: Path) -> Path:
    """Where energies are kept: beside a prepared data set, else in a work directory.

    Args:
        crystals: what was given as an input. Where that is not prepared, other contents
            have another file, since energies are kept by place.
        potential: name of the potential.
        work: directory for those of inputs that are not prepared.
    """
    name = f"energies-{file_name(potential)}"
    if is_prepared(crystals):
        return Path(crystals) / f"{name}.jsonl"
    return work / f"{name}-{content_hash(crystals)[:8]}.jsonl"


def evaluate(
    known: Sequence[AsymmetricUnit],
    rows: Iterable[int],
    calculator: Calculator,
    energies: EnergyFiles,
    *,
    steps: int = 0,
    seconds: int = SECONDS,
    num_workers: int = 1,
    advance: Callable[[], object] | None = None,
) -> dict[int, float]:
    """Energies of some crystals, those computed that are not kept yet.

    Args:
        known: crystals.
        rows: which of them.
        calculator: the potential.
        energies: where energies are kept.
        steps: most steps of a relaxation; 0 leaves the crystals as they are.
        seconds: time limit of each relaxation.
        num_workers: processes.
        advance: called after each energy that is computed.

    Returns:
        Row → energy in eV/atom, without those that failed.

    Raises:
        ConfigError: the potential gives no energy of any unrelaxed crystal.
        DataError: the file cannot be written.
    """
    rows, failed = list(rows), []
    missing = [row for row in rows if (row, steps) not in energies.known]
    work = partial(_energy, known, calculator, steps, seconds)
    each = ordered_map(work, missing, min(num_workers, len(missing)))
    for row, energy in zip(missing, each):
        if isinstance(energy, str):
            failed.append(f"{material_id(known, row) or row}: {energy}")
        else:
            energies.add(row, steps, energy)
        if advance is not None:
            advance()
    found = {
        row: energies.known[row, steps]
        for row in rows
        if (row, steps) in energies.known
    }
    if failed and not steps:
        if not found:
            raise ConfigError(
                f"the potential gave no energy of any crystal ({failed[0]})"
            )
        logger.warning(
            f"{len(failed)} of {len(rows)} crystals have no energy, and a hull without "
            f"them may lie too high ({failed[0]})"
        )
    return found


class EnergyFiles:
    """Energies by row and number of steps, in files that only grow.

    JSON lines of ``[row, energy, steps]``, one file for each potential and part of the
    known crystals. Where a place may not be written, what is computed is not kept for
    the next run, which is said.

    Args:
        paths: first row of each part → its file, ascending.

    Raises:
        DataError: on entering, a file cannot be read.
    """

    def __init__(self, paths: dict[int, Path]):
        self.starts, self.paths = list(paths), list(paths.values())
        self.files: dict[int, TextIO | None] = {}
        self.known: dict[tuple[int, int], float] = {}

    def __enter__(self) -> EnergyFiles:
        for start, path in zip(self.starts, self.paths):
            self._read(start, path)
        return self

    def _read(self, start: int, path: Path) -> None:
        try:
            text = path.read_text() if path.exists() else ""
            for line in text[: text.rfind("\n") + 1].splitlines():
                row, energy, steps = json.loads(line)
                if energy is not None:
                    self.known[start + row, steps] = energy
        except (OSError, TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged ({error}); delete it") from error

    def __exit__(self, *_: object) -> None:
        for file in self.files.values():
            if file is not None:
                file.close()

    def add(self, row: int, steps: int, energy: float) -> None:
        """Keep an energy in eV/atom, also in its file.

        Raises:
            DataError: the file cannot be written.
        """
        self.known[row, steps] = energy
        part = bisect_right(self.starts, row) - 1
        if part not in self.files:
            self.files[part] = _opened(self.paths[part])
        file = self.files[part]
        if file is None:
            return
        try:
            file.write(json.dumps([row - self.starts[part], energy, steps]) + "\n")
            file.flush()
        except OSError as error:
            raise _unwritable(self.paths[part], error) from error


def _opened(path: Path) -> TextIO | None:
    """A file to append lines to, a line that was cut off removed; None where barred."""
    try:
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole)
        return path.open("a")
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise _unwritable(path, error) from error
        logger.warning(f"{path} cannot be written; its energies are not kept")
        return None


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
