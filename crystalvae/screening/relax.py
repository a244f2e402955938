"""Relaxation of atoms and cell in a potential."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crystalvae.parallel import TooLong, time_limit

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

FORCE = 0.05
"""eV/Å; largest force at which a relaxation ends."""
STEPS = 200
"""Largest number of steps."""
SECONDS = 300
"""Time limit of one crystal."""


@dataclass(frozen=True)
class Relaxation:
    """What became of one crystal."""

    energy: float
    """eV/atom at the end."""
    start_energy: float
    """eV/atom before."""
    converged: bool
    """Whether the forces fell below the limit."""
    steps: int
    """Steps taken."""
    rmsd: float
    """Root mean square displacement of the atoms in Å, the cell's change removed."""
    volume_change: float
    """Relative change of the volume."""
    atoms: Atoms | None = None
    """The relaxed crystal."""


def relax(
    atoms: Atoms,
    calculator: Calculator,
    *,
    force: float = FORCE,
    max_steps: int = STEPS,
    keep_symmetry: bool = True,
    seconds: int = SECONDS,
) -> Relaxation:
    """Relax atoms and cell with FIRE.

    Args:
        atoms: a periodic crystal; it is not changed.
        calculator: energies, forces and stresses.
        force: largest force at the end, eV/Å (stresses alike, times the volume).
        max_steps: give up after so many.
        keep_symmetry: keep the space group while relaxing.
        seconds: give up after so long.

    Raises:
        RuntimeError: the potential or the symmetry's search failed, or the time was
            over.
    """
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    moved = atoms.copy()
    moved.calc = calculator
    try:
        if keep_symmetry:
            moved.set_constraint(FixSymmetry(moved, symprec=1e-3))
        with time_limit(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = moved.get_potential_energy() / len(moved)
            optimizer = FIRE(FrechetCellFilter(moved), logfile=None)
            converged = bool(optimizer.run(fmax=force, steps=max_steps))
            energy = moved.get_potential_energy() / len(moved)
    except TooLong as error:
        raise RuntimeError(f"it took more than {seconds} s") from error
    except Exception as error:
        raise RuntimeError(f"the relaxation failed: {error}") from error
    shift = moved.get_scaled_positions() - atoms.get_scaled_positions()
    shift -= np.round(shift)
    shift -= shift.mean(0)
    squared = ((shift @ moved.cell.array) ** 2).sum(1)
    moved.calc = None
    moved.set_constraint()
    return Relaxation(
        energy=float(energy),
        start_energy=float(start),
        converged=converged,
        steps=int(optimizer.nsteps),
        rmsd=float(np.sqrt(squared.mean())),
        volume_change=float(moved.get_volume() / atoms.get_volume() - 1),
        atoms=moved,
    )
