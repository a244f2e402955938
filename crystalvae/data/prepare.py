"""From structures as people keep them to a packed data set, in parallel, resumable."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from crystalvae.data.jobs import (
    fingerprint,
    in_chunks,
    name_of,
    open_job,
    open_work,
    structure_jobs,
)
from crystalvae.data.packed import PARTIAL, PackedDataset, require_free
from crystalvae.data.packing import merge_shards, read_shard, write_shard
from crystalvae.data.readers import Entry
from crystalvae.data.table import PropertyTable
from crystalvae.errors import ConfigError, DataError, InvalidStructureError
from crystalvae.files import shown
from crystalvae.parallel import TooLong, run_chunks, time_limit

CHUNK = 200
TIMEOUT = 60


@dataclass
class Report:
    """What became of the input."""

    total: int = 0
    """Entries read."""
    converted: int = 0
    """Crystals in the data set."""
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    """(material_id, source, reason) of the others."""
    seconds: float = 0.0
    """Wall time of this call."""
    known: dict[str, int] = field(default_factory=dict)
    """Property → crystals that have a value of it."""

    @property
    def reasons(self) -> dict[str, int]:
        """Refusals by kind, most frequent first."""
        kinds = Counter(
            reason.split(";")[0].split("(")[0] for *_, reason in self.refused
        )
        return dict(kinds.most_common())


def prepare(
    source: str | Path,
    output: str | Path,
    *,
    num_workers: int | None = None,
    symprec: float = 0.1,
    max_atoms: int | None = None,
    properties: str | Path | None = None,
    scheduler: str | None = None,
    progress: bool = False,
) -> Report:
    """Convert every structure of an input to a packed data set.

    Finished shards are kept beside the output until the end, so a second call with the
    same arguments goes on where an interrupted one stopped. The result does not depend
    on the number of workers.

    Args:
        source: anything that :func:`crystalvae.data.readers.read_structures` reads.
        output: directory to make.
        num_workers: processes; None is one a core.
        symprec: distance tolerance of the symmetry search, Å.
        max_atoms: refuse structures with more atoms in the primitive cell.
        properties: a table of numbers by name of the structure
            (:class:`~crystalvae.data.table.PropertyTable`), beside those that the
            input has itself.
        scheduler: address of a Dask scheduler that does the work instead.
        progress: show a bar on stderr.

    Returns:
        The report, also written as ``report.json`` and ``refused.csv`` to the output.

    Raises:
        ConfigError: ``symprec`` is not positive.
        DataError: the input as a whole or the table cannot be read, the input holds
            nothing usable, the table knows none of it, or the output cannot be written.
    """
    import time

    began = time.perf_counter()
    output = Path(output)
    if not symprec > 0:
        raise ConfigError(f"symprec must be positive, not {symprec}")
    require_free(output)
    table = None if properties is None else PropertyTable(properties)
    jobs = structure_jobs(source)
    shards = output.with_name(output.name + ".shards")
    options = {"symprec": symprec, "max_atoms": max_atoms}
    asked = {**options, "chunk": CHUNK}
    if table is not None:
        asked["properties"] = table.values
    open_work(shards, fingerprint(source, asked))
    try:
        with tqdm(unit="structure", disable=None if progress else True) as bar:

            def missing() -> Iterator[tuple[int, list[Any]]]:
                for number, chunk in in_chunks(jobs, CHUNK):
                    if _shard(shards, number).exists():
                        bar.update(len(chunk))
                    else:
                        yield number, chunk

            def settle(number: int, chunk: list[Any], results: list[tuple]) -> None:
                good = [r for r in results if not isinstance(r[0], str)]
                bad = [r for r in results if isinstance(r[0], str)]
                columns = zip(*good) if good else ((), (), ())
                write_shard(_shard(shards, number), *columns, bad, len(chunk))
                bar.update(len(chunk))

            work = _Work(symprec, max_atoms, table)
            run_chunks(
                work,
                missing(),
                settle,
                _killed,
                num_workers=num_workers,
                scheduler=scheduler,
            )
    except OSError as error:
        raise DataError(
            f"cannot write {shards} ({error}); free disk space and run the same "
            "command again to go on"
        ) from error
    paths = sorted(shards.glob("shard-*.npz"))
    report, named, example = Report(), 0, ""
    for path in paths:
        _, ids, _, refused, total = read_shard(path)
        report.total += total
        report.refused += refused
        if table is not None:
            named += sum(bool(table(name)) for name in ids)
        example = example or next(iter(ids), "")
    report.converted = report.total - len(report.refused)
    if not report.converted:
        shutil.rmtree(shards)
        reasons = "; ".join(reason for *_, reason in report.refused[:3])
        raise DataError(
            f"{shown(source)} holds no usable structure ({reasons or 'it is empty'})"
        )
    if table is not None and not named:
        shutil.rmtree(shards)
        raise DataError(
            f"{table.path} names none of the structures of {shown(source)}; its first "
            f"column must hold the names of files, such as {example}"
        )
    report.seconds = time.perf_counter() - began
    info = {"source": Path(shown(source)).name, "options": options}
    try:
        partial = merge_shards(paths, output, info)
        _write_report(partial, report)
        if output.exists():
            shutil.rmtree(output)
        partial.replace(output)
    except OSError as error:
        shutil.rmtree(output.with_name(output.name + PARTIAL), ignore_errors=True)
        raise DataError(
            f"cannot write {output} ({error}); free disk space and run the same "
            "command again to go on"
        ) from error
    columns = PackedDataset(output).properties
    report.known = {n: int(np.isfinite(v).sum()) for n, v in columns.items()}
    shutil.rmtree(shards)
    return report


def _shard(shards: Path, number: int) -> Path:
    return shards / f"shard-{number:06d}.npz"


def _killed(job: Any) -> tuple[str, str, str]:
    return *name_of(job), "it crashed the symmetry search; check its cell and atoms"


@dataclass
class _Work:
    """Turn jobs into crystals or refusals; runs in a worker."""

    symprec: float
    max_atoms: int | None
    table: PropertyTable | None = None

    def __call__(self, jobs: list[Any]) -> list[tuple]:
        return [self._one(job) for job in jobs]

    def _one(self, job: Any) -> tuple:
        """(crystal, graph, (id, properties)), or (id, source, reason)."""
        try:
            with time_limit(TIMEOUT):
                entry = open_job(job)
                numbers = entry.properties
                if self.table is not None:
                    numbers = {**numbers, **self.table(entry.material_id)}
                return *self._convert(entry), (entry.material_id, numbers)
        except TooLong:
            return *name_of(job), f"it took more than {TIMEOUT} s; simplify it"
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else repr(error)
            return *name_of(job), reason

    def _convert(self, entry: Entry) -> tuple:
        from crystalvae.graph import orbit_graph
        from crystalvae.symmetry.standardize import standardize

        if entry.error is not None:
            raise InvalidStructureError(entry.error)
        crystal = standardize(
            entry.lattice,
            entry.frac_coords,
            entry.atomic_numbers,
            symprec=self.symprec,
        )
        size = crystal.num_primitive_atoms
        if self.max_atoms is not None and size > self.max_atoms:
            raise InvalidStructureError(
                f"it has more than {self.max_atoms} atoms; raise --max-atoms ({size})"
            )
        return crystal, orbit_graph(crystal)


def _write_report(directory: Path, report: Report) -> None:
    summary = {
        "total": report.total,
        "converted": report.converted,
        "refused": len(report.refused),
        "reasons": report.reasons,
        "seconds": round(report.seconds, 2),
    }
    (directory / "report.json").write_text(json.dumps(summary, indent=1))
    with (directory / "refused.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "source", "reason"])
        writer.writerows(report.refused)
