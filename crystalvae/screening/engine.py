"""Check whole collections, in parallel, every input accounted for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from crystalvae.data.readers import Entry, read_structures
from crystalvae.errors import CrystalVAEError
from crystalvae.screening.base import Candidate
from crystalvae.screening.checks import CHECKS, STRUCTURAL, Record, run_checks

CHUNK = 64


def check_entry(entry: Entry, names: Sequence[str] = tuple(CHECKS)) -> Record:
    """All that can be said about one entry; never raises."""
    if entry.error is not None or entry.lattice is None:
        return Record(entry.material_id, "", error=entry.error or "no structure")
    candidate = Candidate(
        entry.lattice, entry.frac_coords, entry.atomic_numbers, entry.declared_group
    )
    formula = _formula(candidate.reduced_composition)
    return Record(entry.material_id, formula, run_checks(candidate, names))


def _formula(composition: dict[int, int]) -> str:
    from pymatgen.core import Composition, Element

    counts = {Element.from_Z(z): n for z, n in composition.items()}
    return Composition(counts).reduced_formula


def _check_chunk(chunk: list[Entry]) -> list[Record]:
    return [check_entry(entry) for entry in chunk]


def screen_entries(
    entries: Iterator[Entry], *, num_workers: int | None = None, progress: bool = False
) -> list[Record]:
    """Check entries in parallel, in order.

    Args:
        entries: what to check.
        num_workers: processes; None is one a core, 1 is this process.
        progress: show a bar on stderr.
    """
    num_workers = num_workers or len(os.sched_getaffinity(0))
    records: list[Record] = []
    chunks = iter(lambda: list(islice(entries, CHUNK)), [])
    with tqdm(unit="structure", disable=None if progress else True) as bar:
        if num_workers == 1:
            for chunk in chunks:
                records += _check_chunk(chunk)
                bar.update(len(chunk))
            return records
        context = get_context("spawn")
        with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
            waiting = []
            for chunk in chunks:
                waiting.append(pool.submit(_check_chunk, chunk))
                if len(waiting) > 4 * num_workers:
                    done = waiting.pop(0).result()
                    records += done
                    bar.update(len(done))
            for future in waiting:
                done = future.result()
                records += done
                bar.update(len(done))
    return records


def screen_input(
    path: str | Path, *, num_workers: int | None = None, progress: bool = False
) -> list[Record]:
    """Check everything in a file, folder, archive or database.

    Raises:
        CrystalVAEError: the input as a whole cannot be read, or is empty.
    """
    records = screen_entries(
        read_structures(path), num_workers=num_workers, progress=progress
    )
    if not records:
        raise CrystalVAEError(f"{path} holds no structures")
    return records


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Counts of passed, failed and not computed, over all records and by check."""
    readable = [record for record in records if record.error is None]
    checks = {}
    for name in CHECKS:
        verdicts = [r.results[name].passed for r in readable if name in r.results]
        checks[name] = {
            "passed": sum(v is True for v in verdicts),
            "failed": sum(v is False for v in verdicts),
            "not_computed": sum(v is None for v in verdicts),
        }
    structural = sum(
        all(r.results[name].passed for name in STRUCTURAL) for r in readable
    )
    smact = checks["smact"]["passed"]
    return {
        "structures": len(records),
        "unreadable": len(records) - len(readable),
        "passed": sum(record.passed for record in records),
        "structural_validity": round(structural / len(records), 4),
        "smact_validity": round(smact / len(records), 4),
        "checks": checks,
    }
