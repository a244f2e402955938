"""Check whole collections, in parallel, every input accounted for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from crystalvae.crystal import reduced_formula
from crystalvae.data.jobs import in_chunks, name_of, open_job, structure_jobs
from crystalvae.data.readers import Entry
from crystalvae.errors import CrystalVAEError, InvalidStructureError
from crystalvae.files import shown
from crystalvae.parallel import TooLong, run_chunks, time_limit
from crystalvae.screening.base import Candidate
from crystalvae.screening.checks import CHECKS, STRUCTURAL, Record, run_checks

if TYPE_CHECKING:
    import numpy as np

    from crystalvae.crystal import AsymmetricUnit

CHUNK = 64
TIMEOUT = 60
"""Seconds after which a structure is given up."""
MAX_ATOMS = 1000
"""Largest cell whose symmetry is searched: spglib takes minutes for some thousand atoms
and cannot be interrupted."""


@dataclass
class Inspected:
    """All that is known of one structure on its own."""

    record: Record
    """What the checks said."""
    source: str
    """Where it came from."""
    crystal: AsymmetricUnit | None = None
    """Its symmetric description, if asked for and if it passed."""
    fingerprint: np.ndarray | None = None
    """Its average minimum distances in Å, likewise."""
    properties: dict[str, float] = field(default_factory=dict)
    """Numbers that came with it."""


def check_entry(entry: Entry, names: Sequence[str] = tuple(CHECKS)) -> Record:
    """All that can be said about one entry; never raises."""
    if entry.error is not None or entry.lattice is None:
        return Record(entry.material_id, "", error=entry.error or "no structure")
    candidate = Candidate(
        entry.lattice, entry.frac_coords, entry.atomic_numbers, entry.declared_group
    )
    formula = reduced_formula(candidate.reduced_composition)
    return Record(entry.material_id, formula, run_checks(candidate, names))


@dataclass(frozen=True)
class Inspector:
    """Inspects structures in a worker.

    Args:
        names: checks to run.
        describe: also find the symmetric description and fingerprint of what passes.
    """

    names: tuple[str, ...] = tuple(CHECKS)
    describe: bool = False

    def __call__(self, jobs: list[Any]) -> list[Inspected]:
        """Inspect each job; never raises."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [self._one(job) for job in jobs]

    def _one(self, job: Any) -> Inspected:
        name, source = name_of(job)
        try:
            with time_limit(TIMEOUT):
                entry = open_job(job)
                record = check_entry(entry, self.names)
                found = Inspected(record, source, properties=entry.properties)
                if self.describe and record.passed:
                    self._describe(entry, found)
                return found
        except TooLong:
            return _failed(name, source, f"it took more than {TIMEOUT} s; simplify it")
        except Exception as error:
            text = str(error).splitlines()[0] if str(error) else repr(error)
            return _failed(name, source, text)

    def _describe(self, entry: Entry, found: Inspected) -> None:
        from crystalvae.screening.fingerprint import average_minimum_distances
        from crystalvae.symmetry.standardize import standardize

        if len(entry.atomic_numbers) > MAX_ATOMS:
            found.record.error = (
                f"its {len(entry.atomic_numbers)} atoms are more than the {MAX_ATOMS} "
                "whose symmetry is searched; give a smaller cell"
            )
            return
        try:
            found.crystal = standardize(
                entry.lattice, entry.frac_coords, entry.atomic_numbers
            )
            found.fingerprint = average_minimum_distances(found.crystal)
        except InvalidStructureError as error:
            found.record.error = str(error)


def _failed(name: str, source: str, error: str) -> Inspected:
    return Inspected(Record(name, "", error=error), source)


def killed(job: Any) -> Inspected:
    """The result for a structure that killed its worker."""
    return _failed(*name_of(job), "it crashed the checks; look at its cell and atoms")


def inspect_all(
    jobs: Iterator[Any],
    inspector: Inspector,
    *,
    num_workers: int | None = None,
    scheduler: str | None = None,
    progress: bool = False,
    load: Callable[[int], list[Inspected] | None] | None = None,
    save: Callable[[int, list[Inspected]], None] | None = None,
) -> list[Inspected]:
    """Inspect structures in parallel; the result is in the order of the input.

    Args:
        jobs: of :func:`crystalvae.data.jobs.structure_jobs`.
        inspector: what to do with each.
        num_workers: processes; None is one a core, 1 is this process.
        scheduler: address of a Dask scheduler that does the work instead.
        progress: show a bar on stderr.
        load: gives the results of a chunk that was done before, or None.
        save: keeps those of a chunk.
    """
    found: dict[int, list[Inspected]] = {}
    with tqdm(unit="structure", disable=None if progress else True) as bar:

        def missing() -> Iterator[tuple[int, list[Any]]]:
            for number, chunk in in_chunks(jobs, CHUNK):
                done = load(number) if load is not None else None
                if done is None:
                    yield number, chunk
                else:
                    found[number] = done
                    bar.update(len(chunk))

        def settle(number: int, chunk: list[Any], results: list[Inspected]) -> None:
            if save is not None:
                save(number, results)
            found[number] = results
            bar.update(len(chunk))

        run_chunks(
            inspector,
            missing(),
            settle,
            killed,
            num_workers=num_workers,
            scheduler=scheduler,
        )
    return [item for number in sorted(found) for item in found[number]]


def screen_input(
    path: str | Path, *, num_workers: int | None = None, progress: bool = False
) -> list[Record]:
    """Check everything in a file, folder, archive or database.

    Raises:
        CrystalVAEError: the input as a whole cannot be read, or is empty.
    """
    jobs = structure_jobs(path)
    found = inspect_all(jobs, Inspector(), num_workers=num_workers, progress=progress)
    if not found:
        raise CrystalVAEError(f"{shown(path)} holds no structures")
    return [item.record for item in found]


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Counts of passed, failed and not computed, over all records and by check."""
    readable = [record for record in records if record.error is None]
    names = dict.fromkeys(name for r in readable for name in r.results)
    checks = {}
    for name in names or CHECKS:
        verdicts = [r.results[name].passed for r in readable if name in r.results]
        checks[name] = {
            "passed": sum(v is True for v in verdicts),
            "failed": sum(v is False for v in verdicts),
            "not_computed": sum(v is None for v in verdicts),
        }
    summary: dict[str, Any] = {
        "structures": len(records),
        "unreadable": len(records) - len(readable),
        "passed": sum(record.passed for record in records),
    }
    if all(name in checks for name in STRUCTURAL):
        structural = sum(
            all(r.results[name].passed for name in STRUCTURAL) for r in readable
        )
        summary["structural_validity"] = round(structural / len(records), 4)
    if "smact" in checks:
        passed = checks["smact"]["passed"]
        summary["smact_validity"] = round(passed / len(records), 4)
    return {**summary, "checks": checks}
