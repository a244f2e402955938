"""Stability of what a screening left: relaxed, above the hull of known crystals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from crystalvae.errors import InvalidStructureError
from crystalvae.parallel import forks, num_cores, ordered_map
from crystalvae.screening.base import THRESHOLD, CheckResult
from crystalvae.screening.hull import RELAX_STEPS, Hull, reference_hull
from crystalvae.screening.potentials import POTENTIALS, file_name, load_potential
from crystalvae.screening.relax import SECONDS, Relaxation, relax
from crystalvae.screening.resume import load_pickle, save_pickle

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.screening.campaign import Campaign


FAR_BELOW = 0.2
"""eV/atom below the hull from which on it is the hull that is doubted."""


@dataclass(frozen=True)
class StabilityOptions:
    """How stability is judged."""

    potential: str = "chgnet"
    """Of :func:`crystalvae.screening.potentials.load_potential`."""
    top: int = 100
    """The best survivors that are relaxed."""
    threshold: float = THRESHOLD
    """Largest energy above the hull, eV/atom."""
    keep_symmetry: bool = True
    """Whether relaxation keeps the space group."""
    reference_steps: int = RELAX_STEPS
    """Most steps in which known crystals near the hull are relaxed; 0 for none."""
    seconds: int = SECONDS
    """Time limit of one relaxation."""


def add_stability(
    campaign: Campaign,
    known: Sequence[AsymmetricUnit],
    work: Path,
    hull_file: Path | Sequence[Path],
    options: StabilityOptions | None = None,
    *,
    calculator: Calculator | None = None,
    num_workers: int | None = None,
    advance: Callable[[], object] | None = None,
) -> dict[int, Relaxation]:
    """Relax the best survivors and add the verdict ``stable``; unstable ones fall.

    Survivors are ranked by energy above the hull afterwards, those not judged last, and
    with them what lies so far below that the reference must lack what competes with
    it. What a relaxed crystal has become the same as is noted.

    Args:
        campaign: a finished screening, changed in place.
        known: reference crystals that make the hull.
        work: directory that keeps relaxations, to go on after an interruption.
        hull_file: keeps the energies of known crystals, one for each part of them.
        options: how to judge.
        calculator: the potential, where it is loaded already.
        num_workers: processes; None is one a core where they fork and the potential is
            one of :data:`POTENTIALS`, else one.
        advance: called after each known crystal and each relaxation.

    Returns:
        Place in the campaign → relaxation.
    """
    options = options or StabilityOptions()
    calculator = calculator or load_potential(options.potential)
    shared = forks() and options.potential in POTENTIALS
    workers = num_workers or (num_cores() if shared else 1)
    chosen = campaign.survivors[: options.top]
    crystals = {place: campaign.inspected[place].crystal for place in chosen}
    wanted = [crystal.composition for crystal in crystals.values()]
    hull = reference_hull(
        known,
        wanted,
        calculator,
        hull_file,
        steps=options.reference_steps,
        seconds=options.seconds,
        num_workers=workers,
        advance=advance,
    )
    relax_one = partial(_relaxed_once, crystals, calculator, options, work)
    each = ordered_map(relax_one, chosen, min(workers, len(chosen)))
    relaxed: dict[int, Relaxation] = {}
    above: dict[int, float] = {}
    for (place, crystal), found in zip(crystals.items(), each):
        record = campaign.inspected[place].record
        if advance is not None:
            advance()
        if isinstance(found, str):
            text = f"not computed: {found}"
            record.results["stable"] = CheckResult("stable", None, None, text)
            continue
        relaxed[place] = found
        columns = campaign.extra.setdefault(place, {})
        columns.update(_columns(found, hull, crystal.composition))
        energy = hull.energy_above(crystal.composition, found.energy)
        if energy is None:
            text = "not computed: no known crystals to compare with"
            record.results["stable"] = CheckResult("stable", None, None, text)
            continue
        above[place] = energy
        stable = energy <= options.threshold
        text = "" if stable else f"{energy:.3f} eV/atom above the hull"
        if energy < -FAR_BELOW:
            text = "far below the hull: the reference lacks its competitors"
        record.results["stable"] = CheckResult("stable", stable, energy, text)
    campaign.hull = hull
    campaign.ranked_by = f"energy above the hull in {options.potential}"
    _compare_relaxed(campaign, relaxed, known)

    def order(place: int) -> tuple[bool, float]:
        energy = above.get(place, float("inf"))
        return energy < -FAR_BELOW, energy

    campaign.survivors = sorted(
        (p for p in campaign.survivors if campaign.inspected[p].record.passed),
        key=order,
    )
    return relaxed


def _compare_relaxed(
    campaign: Campaign,
    relaxed: dict[int, Relaxation],
    known: Sequence[AsymmetricUnit],
) -> None:
    """Add what a relaxed crystal is the same as: a known one, or an earlier one."""
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.screening.uniqueness import (
        ReferenceIndex,
        duplicate_of,
        find_known,
    )

    ends: dict[int, AsymmetricUnit] = {}
    for place, found in relaxed.items():
        with suppress(InvalidStructureError):
            ends[place] = AsymmetricUnit.from_atoms(found.atoms)
    places, crystals = list(ends), list(ends.values())
    index = ReferenceIndex(known)
    rows = find_known(crystals, index, num_workers=1)
    firsts = duplicate_of(crystals, num_workers=1)
    for own, (place, row, first) in enumerate(zip(places, rows, firsts)):
        same = "" if row is None else index.name(row)
        if row is None and first != own:
            same = campaign.inspected[places[first]].record.name
        campaign.extra[place]["relaxed_same_as"] = same


def _relaxed_once(
    crystals: dict[int, AsymmetricUnit],
    calculator: Calculator,
    options: StabilityOptions,
    work: Path,
    place: int,
) -> Relaxation | str:
    """A relaxation, from its file if there is one, or why there is none."""
    key = _key(crystals[place], options)
    path = work / f"relaxed-{file_name(options.potential)}-{key}.pickle"
    found = load_pickle(path)
    if found is None:
        try:
            found = relax(
                crystals[place].to_atoms(),
                calculator,
                keep_symmetry=options.keep_symmetry,
                seconds=options.seconds,
            )
        except RuntimeError as error:
            return str(error)
        save_pickle(path, found)
    return found


def _key(crystal: AsymmetricUnit, options: StabilityOptions) -> str:
    """What tells one relaxation from another in the same potential."""
    parts = [
        [crystal.number, options.keep_symmetry, options.seconds],
        crystal.lattice.round(6).tolist(),
        crystal.wyckoffs.tolist(),
        crystal.atomic_numbers.tolist(),
        crystal.frac_coords.round(6).tolist(),
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _columns(
    found: Relaxation, hull: Hull, composition: dict[int, int]
) -> dict[str, float | bool]:
    formation = hull.formation_energy(composition, found.energy)
    columns = {
        "relaxed_energy": found.energy,
        "relaxed_rmsd": found.rmsd,
        "relaxed_volume_change": found.volume_change,
        **({} if formation is None else {"formation_energy": formation}),
    }
    rounded = {name: round(value, 4) for name, value in columns.items()}
    return {**rounded, "relaxed_converged": found.converged}


def stability_summary(
    campaign: Campaign, relaxed: dict[int, Relaxation], options: StabilityOptions
) -> dict[str, float | int | str]:
    """Counts for ``summary.json``, the definition beside the number."""
    verdicts = [
        campaign.inspected[place].record.results["stable"].passed for place in relaxed
    ]
    judged = [verdict for verdict in verdicts if verdict is not None]
    moved = [found.rmsd for found in relaxed.values()]
    how = (
        f"relaxed in up to {options.reference_steps} steps"
        if options.reference_steps
        else "unrelaxed"
    )
    changed = [
        place
        for place in relaxed
        if campaign.inspected[place].record.results["stable"].passed
        and campaign.extra[place].get("relaxed_same_as")
    ]
    far = [
        place
        for place in relaxed
        if (campaign.inspected[place].record.results["stable"].value or 0) < -FAR_BELOW
    ]
    return {
        "relaxed": len(relaxed),
        "converged": sum(found.converged for found in relaxed.values()),
        "judged": len(judged),
        "stable": sum(judged),
        "of_these_known_or_repeated_once_relaxed": len(changed),
        "stable_unique_novel": sum(judged) - len(changed),
        "far_below_the_hull": len(far),
        "definition": (
            f"relaxed with {options.potential}; at most {options.threshold} eV/atom "
            f"above the hull of the reference crystals, {how}, in the same "
            "potential; unique and novel by StructureMatcher, also once relaxed"
        ),
        "mean_rmsd_to_relaxed": round(sum(moved) / len(moved), 4) if moved else None,
    }


def relaxed_frames(
    campaign: Campaign, relaxed: dict[int, Relaxation], names: dict[int, str]
) -> list[Atoms]:
    """The relaxed crystals with their energies in ``info``, best survivors first.

    Args:
        campaign: after :func:`add_stability`.
        relaxed: what that gave.
        names: place → name of a survivor; others keep the name they came with.
    """
    rest = [place for place in relaxed if place not in campaign.survivors]
    frames = []
    for place in [*campaign.survivors, *rest]:
        if place not in relaxed:
            continue
        record = campaign.inspected[place].record
        frame = relaxed[place].atoms.copy()
        frame.info = {
            "material_id": names.get(place, record.name),
            **campaign.extra[place],
        }
        above = record.results["stable"].value
        if above is not None:
            frame.info["energy_above_hull"] = round(above, 4)
        frames.append(frame)
    return frames
