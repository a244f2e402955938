"""The whole screening of a collection: check, compare, rank, report."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalvae.data.jobs import fingerprint, open_work, structure_jobs
from crystalvae.errors import ConfigError, DataError
from crystalvae.files import shown
from crystalvae.parallel import num_cores
from crystalvae.screening.base import (
    ENERGY,
    PROBABILITY,
    RESIDUAL,
    CheckResult,
    add_verdict,
    estimated,
)
from crystalvae.screening.checks import DEFAULT, parse_checks
from crystalvae.screening.engine import CHUNK, Inspected, Inspector, inspect_all
from crystalvae.screening.resume import load_pickle, save_pickle

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.data.packed import PackedDataset
    from crystalvae.screening.hull import Hull

Estimates = Callable[[list["AsymmetricUnit"]], list[dict[str, float]]]
WORK = ".work"
SCORES = ("novelty", "density", "volume", "num_sites")
"""What the survivors can be ranked by, besides estimates and numbers of the input."""
HIGHEST = {"novelty", "density", "volume", PROBABILITY}
"""Of what the highest comes first."""


@dataclass
class Campaign:
    """What a screening found."""

    inspected: list[Inspected]
    """Every input, in order, with the checks ``unique`` and ``novel`` added."""
    survivors: list[int]
    """Places in ``inspected`` of what passed everything, best first."""
    nearest: dict[int, tuple[float, str]]
    """Place → distance to the nearest known crystal in Å, and its name."""
    reference: str | None
    """Name of the reference set, None if novelty was not judged."""
    extra: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Place → further columns of its row in the table."""
    ranked_by: str | None = None
    """What the survivors are ranked by."""
    within: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Property → smallest and largest estimate that was asked for."""
    hull: Hull | None = None
    """Of the reference crystals, where stability was judged."""

    @property
    def judged_novelty(self) -> bool:
        """Whether there was a reference set."""
        return self.reference is not None or bool(self.nearest)


class _Shards:
    """Finished chunks beside the output, to go on after an interruption."""

    def __init__(self, directory: Path, key: str):
        self.directory = directory
        open_work(directory, key)

    def load(self, number: int) -> list[Inspected] | None:
        return load_pickle(self._path(number))

    def save(self, number: int, results: list[Inspected]) -> None:
        save_pickle(self._path(number), results)

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:07d}.pickle"


def screen(
    source: str | Path,
    output: Path,
    *,
    names: Sequence[str] = DEFAULT,
    reference: PackedDataset | Sequence[AsymmetricUnit] | None = None,
    reference_name: str | None = None,
    rank_by: str | None = None,
    highest: bool = False,
    estimates: Estimates | None = None,
    within: Mapping[str, tuple[float, float]] | None = None,
    num_workers: int | None = None,
    scheduler: str | None = None,
    progress: bool = False,
) -> Campaign:
    """Check every structure of an input, drop copies and known ones, rank the rest.

    Chunks that are done are kept in ``output/.work`` until :func:`finish`, so that a
    second call with the same arguments goes on where the first was interrupted.

    Args:
        source: anything that ``crystalvae prepare`` reads.
        output: directory of the results.
        names: checks to run.
        reference: known crystals; None leaves novelty not computed.
        reference_name: what to call them.
        rank_by: ``novelty``, ``density`` (g/cm³), ``volume`` (Å³ an atom) or
            ``stable_probability``, highest first; ``num_sites``, another estimate or a
            number that came with the input, lowest first. None is the probability, or
            the residual, where that is estimated, and novelty elsewhere.
        highest: whether the highest comes first in any case.
        estimates: what gives further columns of crystals in their order, as
            :func:`crystalvae.design.estimates.estimate_columns`. Of copies one that
            passed everything is kept, the one nearest to relaxed; without estimates
            the first.
        within: property → smallest and largest value of its estimate; what lies
            elsewhere or has none falls.
        num_workers: processes; None is one a core.
        scheduler: address of a Dask scheduler that does the checks instead.
        progress: show a bar on stderr.

    Raises:
        ConfigError: an unknown check.
        DataError: the input cannot be read or holds nothing.
    """
    names = parse_checks(names)
    jobs = structure_jobs(source)
    key = fingerprint(source, {"names": names, "chunk": CHUNK})
    shards = _Shards(output / WORK, key)
    inspected = inspect_all(
        jobs,
        Inspector(names, describe=True),
        num_workers=num_workers,
        scheduler=scheduler,
        progress=progress,
        load=shards.load,
        save=shards.save,
    )
    if not inspected:
        raise DataError(f"{shown(source)} holds no structures")
    places = [i for i, item in enumerate(inspected) if item.crystal is not None]
    extra: dict[int, dict[str, Any]] = {}
    if estimates is not None:
        columns = estimates([inspected[place].crystal for place in places])
        extra = {place: dict(own) for place, own in zip(places, columns)}
        found = {name for own in extra.values() for name in own}
        nearest_to_relaxed, likeliest = (
            next((name for name in names if name in found), "novelty")
            for names in ((RESIDUAL, PROBABILITY), (PROBABILITY, RESIDUAL))
        )
        highest_first = nearest_to_relaxed in HIGHEST
        places.sort(key=_score(inspected, {}, extra, nearest_to_relaxed, highest_first))
        for name, window in (within or {}).items():
            for place in places:
                value = extra[place].get(estimated(name))
                add_verdict(inspected[place].record.results, name, value, window)
        places.sort(key=lambda place: not inspected[place].record.passed)
        rank_by = rank_by or likeliest
    nearest = _compare(inspected, places, reference, num_workers)
    rank_by = rank_by or "novelty"
    _require_score(inspected, extra, rank_by)
    if rank_by not in SCORES:
        for place in places:
            own = inspected[place].properties
            if rank_by in own:
                extra.setdefault(place, {}).setdefault(rank_by, own[rank_by])
    score = _score(inspected, nearest, extra, rank_by, highest or rank_by in HIGHEST)
    survivors = sorted(p for p in places if inspected[p].record.passed)
    survivors.sort(key=score)
    ranked_by = rank_by if rank_by != "novelty" or reference is not None else None
    return Campaign(
        inspected,
        survivors,
        nearest,
        reference_name,
        extra,
        ranked_by,
        within or {},
    )


def finish(output: Path) -> None:
    """Remove what was kept for going on."""
    shutil.rmtree(output / WORK, ignore_errors=True)


def _compare(
    inspected: list[Inspected],
    places: list[int],
    reference: PackedDataset | Sequence[AsymmetricUnit] | None,
    num_workers: int | None,
) -> dict[int, tuple[float, str]]:
    """Add the verdicts ``unique`` and ``novel``; distances to the nearest known.

    Of copies the one that comes first in ``places`` is unique.
    """
    import numpy as np

    from crystalvae.screening.fingerprint import NearestKnown, reference_fingerprints
    from crystalvae.screening.uniqueness import (
        ReferenceIndex,
        duplicate_of,
        find_known,
    )

    crystals = [inspected[i].crystal for i in places]
    for own, first in enumerate(duplicate_of(crystals, num_workers=num_workers)):
        record = inspected[places[own]].record
        other = inspected[places[first]].record.name
        text = "" if first == own else f"the same as {other}"
        record.results["unique"] = CheckResult("unique", first == own, None, text)
    if reference is None:
        for place in places:
            inspected[place].record.results["novel"] = CheckResult(
                "novel", None, None, "no reference set was given"
            )
        return {}
    index = ReferenceIndex(reference)
    nearest_known = NearestKnown(reference_fingerprints(reference, num_workers))
    fingerprints = np.stack([inspected[i].fingerprint for i in places] or [[]])
    nearest: dict[int, tuple[float, str]] = {}
    if places:
        distance, row = nearest_known(
            fingerprints.astype(np.float32), num_workers or num_cores()
        )
        for place, d, r in zip(places, distance.tolist(), row.tolist()):
            nearest[place] = (d, index.name(r))
    known = find_known(crystals, index, num_workers=num_workers)
    for place, row in zip(places, known):
        text = "" if row is None else f"the same as {index.name(row)}"
        inspected[place].record.results["novel"] = CheckResult(
            "novel", row is None, nearest[place][0], text
        )
    return nearest


def _score(
    inspected: list[Inspected],
    nearest: dict[int, tuple[float, str]],
    extra: dict[int, dict[str, Any]],
    rank_by: str,
    highest: bool,
) -> Callable[[int], tuple[float, float]]:
    """What places are sorted by; those without a number come last.

    Of equal ones (probabilities near 1) the estimated energy decides.
    """

    def value(place: int) -> float | None:
        crystal = inspected[place].crystal
        if rank_by == "novelty":
            return nearest.get(place, (0.0, ""))[0]
        if rank_by == "num_sites":
            return len(crystal.wyckoffs)
        if rank_by == "density":
            return crystal.density
        if rank_by == "volume":
            return crystal.volume / crystal.num_atoms
        return extra.get(place, {}).get(rank_by)

    def score(place: int) -> tuple[float, float]:
        found = value(place)
        energy = extra.get(place, {}).get(ENERGY, math.inf)
        if found is None or math.isnan(found):
            return math.inf, energy
        return -found if highest else found, energy

    return score


def _require_score(
    inspected: list[Inspected], extra: dict[int, dict[str, Any]], rank_by: str
) -> None:
    """Refuse to rank by what no crystal has.

    Raises:
        ConfigError: there is no such score.
    """
    known = dict.fromkeys(SCORES)
    known.update(dict.fromkeys(name for own in extra.values() for name in own))
    known.update(dict.fromkeys(name for i in inspected for name in i.properties))
    if rank_by not in known:
        raise ConfigError(f"cannot rank by {rank_by!r}; known are {', '.join(known)}")


def funnel(campaign: Campaign) -> list[tuple[str, int]]:
    """What is left after each step, from all inputs to the survivors.

    A check that was computed for nothing is no step.
    """
    left = list(campaign.inspected)
    steps = [("structures", len(left))]
    left = [item for item in left if item.record.error is None]
    steps.append(("readable", len(left)))
    names = dict.fromkeys(n for item in left for n in item.record.results)
    for name in names:
        verdicts = [item.record.results.get(name) for item in left]
        if left and all(v is None or v.passed is None for v in verdicts):
            continue
        left = [
            item
            for item in left
            if name not in item.record.results
            or item.record.results[name].passed is not False
        ]
        steps.append((name, len(left)))
    return steps


def table_rows(campaign: Campaign) -> list[dict[str, Any]]:
    """One row an input, survivors first and ranked, then the others in order."""
    place_of = {place: rank for rank, place in enumerate(campaign.survivors, 1)}
    rest = [i for i in range(len(campaign.inspected)) if i not in place_of]
    rows = []
    for place in [*campaign.survivors, *rest]:
        item = campaign.inspected[place]
        row: dict[str, Any] = {"rank": place_of.get(place, ""), "source": item.source}
        row.update(item.record.row())
        if item.crystal is not None:
            row["space_group"] = item.crystal.number
            row["num_primitive_atoms"] = item.crystal.num_primitive_atoms
        if place in campaign.nearest:
            distance, name = campaign.nearest[place]
            row["nearest_known"] = name
            row["nearest_distance"] = round(distance, 4)
        row.update(campaign.extra.get(place, {}))
        rows.append(row)
    return rows
