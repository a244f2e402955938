"""Stability of what a screening left: relaxed, above the hull of known crystals."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crystalvae.errors import DataError
from crystalvae.screening.base import CheckResult
from crystalvae.screening.hull import reference_hull
from crystalvae.screening.potentials import load_potential
from crystalvae.screening.relax import Relaxation, relax

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.screening.campaign import Campaign

THRESHOLD = 0.1
"""eV/atom above the hull up to which a crystal counts as (meta)stable."""


@dataclass(frozen=True)
class StabilityOptions:
    """How stability is judged."""

    potential: str = "chgnet"
    """Name in :data:`crystalvae.screening.potentials.POTENTIALS`."""
    top: int = 100
    """The best survivors that are relaxed."""
    threshold: float = THRESHOLD
    """Largest energy above the hull, eV/atom."""
    keep_symmetry: bool = True
    """Whether relaxation keeps the space group."""


def add_stability(
    campaign: Campaign,
    known: Sequence[AsymmetricUnit],
    work: Path,
    hull_file: Path,
    options: StabilityOptions | None = None,
    *,
    advance: Callable[[], object] | None = None,
) -> dict[int, Relaxation]:
    """Relax the best survivors and add the verdict ``stable``; unstable ones fall.

    Survivors are ranked by energy above the hull afterwards, those not judged last.

    Args:
        campaign: a finished screening, changed in place.
        known: reference crystals that make the hull.
        work: directory that keeps relaxations, to go on after an interruption.
        hull_file: keeps the energies of known crystals.
        options: how to judge.
        advance: called after each known crystal and each relaxation.

    Returns:
        Place in the campaign → relaxation.
    """
    options = options or StabilityOptions()
    calculator = load_potential(options.potential)
    chosen = campaign.survivors[: options.top]
    crystals = {place: campaign.inspected[place].crystal for place in chosen}
    wanted = [crystal.composition for crystal in crystals.values()]
    hull = reference_hull(known, wanted, calculator, hull_file, advance=advance)
    relaxed: dict[int, Relaxation] = {}
    above: dict[int, float] = {}
    for place, crystal in crystals.items():
        record = campaign.inspected[place].record
        try:
            found = _relaxed_once(
                work / f"relaxed-{options.potential}-{place:07d}.pickle",
                lambda crystal=crystal: relax(
                    crystal.to_atoms(),
                    calculator,
                    keep_symmetry=options.keep_symmetry,
                ),
            )
        except RuntimeError as error:
            text = f"not computed: {error}"
            record.results["stable"] = CheckResult("stable", None, None, text)
            continue
        finally:
            if advance is not None:
                advance()
        relaxed[place] = found
        energy = hull.energy_above(crystal.composition, found.energy)
        if energy is None:
            text = "not computed: no known crystals to compare with"
            record.results["stable"] = CheckResult("stable", None, None, text)
            continue
        above[place] = energy
        stable = energy <= options.threshold
        text = "" if stable else f"{energy:.3f} eV/atom above the hull"
        record.results["stable"] = CheckResult("stable", stable, energy, text)
    campaign.survivors = sorted(
        (p for p in campaign.survivors if campaign.inspected[p].record.passed),
        key=lambda place: above.get(place, float("inf")),
    )
    return relaxed


def _relaxed_once(path: Path, work: Callable[[], Relaxation]) -> Relaxation:
    if path.exists():
        try:
            return pickle.loads(path.read_bytes())
        except (EOFError, pickle.UnpicklingError):
            path.unlink()
    found = work()
    partial = path.with_suffix(".partial")
    try:
        partial.write_bytes(pickle.dumps(found))
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write {path} ({error}); free some disk space and run the same "
            "command again to go on"
        ) from error
    return found


def stability_summary(
    campaign: Campaign, relaxed: dict[int, Relaxation], options: StabilityOptions
) -> dict[str, float | int | str]:
    """Counts for ``summary.json``, the definition beside the number."""
    verdicts = [
        campaign.inspected[place].record.results["stable"].passed for place in relaxed
    ]
    moved = [found.rmsd for found in relaxed.values()]
    return {
        "relaxed": len(relaxed),
        "converged": sum(found.converged for found in relaxed.values()),
        "stable_unique_novel": sum(verdict is True for verdict in verdicts),
        "definition": (
            f"relaxed with {options.potential}; at most {options.threshold} eV/atom "
            "above the hull of the reference crystals, unrelaxed, in the same "
            "potential; unique and novel by StructureMatcher"
        ),
        "mean_rmsd_to_relaxed": round(sum(moved) / len(moved), 4) if moved else 0.0,
    }
