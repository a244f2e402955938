"""From structures as people keep them to a packed data set, in parallel, resumable."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from crystalvae.data.packed import MANIFEST, PackedDataset
from crystalvae.data.packing import merge_shards, read_shard, write_shard
from crystalvae.data.readers import Entry, find_reader
from crystalvae.data.readers.archive import folder_files, read_folder, read_member_file
from crystalvae.data.readers.cif import parse_cif
from crystalvae.data.readers.text import csv_rows, read_csv_file
from crystalvae.errors import DataError

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
        progress: show a bar on stderr.

    Returns:
        The report, also written as ``report.json`` and ``refused.csv`` to the output.

    Raises:
        DataError: the input as a whole cannot be read, holds nothing usable, or the
            output cannot be written.
    """
    import time

    began = time.perf_counter()
    output = Path(output)
    if output.exists() and not (output / MANIFEST).exists() and any(output.iterdir()):
        raise DataError(f"{output} exists and is no data set; choose another name")
    jobs = _jobs(source)
    shards = output.with_name(output.name + ".shards")
    options = {"symprec": symprec, "max_atoms": max_atoms}
    _open_shards(shards, _fingerprint(source, options))
    work = _Work(symprec, max_atoms)
    num_workers = num_workers or len(os.sched_getaffinity(0))
    try:
        with tqdm(unit="structure", disable=None if progress else True) as bar:
            _run(_chunks(jobs), shards, work, num_workers, bar.update)
    except OSError as error:
        raise DataError(
            f"cannot write {shards} ({error}); free disk space and run the same "
            "command again to go on"
        ) from error
    paths = sorted(shards.glob("shard-*.npz"))
    report = Report()
    for path in paths:
        _, _, _, refused, total = read_shard(path)
        report.total += total
        report.refused += refused
    report.converted = report.total - len(report.refused)
    if not report.converted:
        reasons = "; ".join(reason for *_, reason in report.refused[:3])
        raise DataError(
            f"{source} holds no usable structure ({reasons or 'it is empty'})"
        )
    report.seconds = time.perf_counter() - began
    info = {"source": str(Path(str(source)).name), "options": options}
    partial = merge_shards(paths, output, info)
    _write_report(partial, report)
    if output.exists():
        shutil.rmtree(output)
    partial.replace(output)
    PackedDataset(output)
    shutil.rmtree(shards)
    return report


def _jobs(source: str | Path) -> Iterator[Any]:
    """Units of work, as raw as possible so that parsing happens in the workers."""
    reader = find_reader(source)
    if reader is read_csv_file:
        return csv_rows(Path(source))
    if reader is read_folder:
        return iter(folder_files(Path(source)))
    text = str(source)
    return reader(text if text.startswith("postgres") else Path(source))


def _chunks(jobs: Iterator[Any]) -> Iterator[tuple[int, list[Any]]]:
    number = 0
    while chunk := list(islice(jobs, CHUNK)):
        yield number, chunk
        number += 1


def _fingerprint(source: str | Path, options: dict) -> str:
    parts: list[Any] = [str(source), sorted(options.items())]
    path = Path(str(source))
    if path.is_file():
        stat = path.stat()
        parts += [stat.st_size, stat.st_mtime_ns]
    elif path.is_dir():
        parts += [(str(p), p.stat().st_size) for p in folder_files(path)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _open_shards(shards: Path, fingerprint: str) -> None:
    state = shards / "state.json"
    if state.exists() and json.loads(state.read_text())["fingerprint"] == fingerprint:
        return
    shutil.rmtree(shards, ignore_errors=True)
    try:
        shards.mkdir(parents=True)
        state.write_text(json.dumps({"fingerprint": fingerprint}))
    except OSError as error:
        raise DataError(f"cannot write {shards} ({error})") from error


def _run(
    chunks: Iterator[tuple[int, list[Any]]],
    shards: Path,
    work: _Work,
    num_workers: int,
    advance: Callable[[int], Any],
) -> None:
    context = get_context("spawn")
    waiting: dict[Future, tuple[int, list[Any]]] = {}

    def pool() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(num_workers, mp_context=context, initializer=_quiet)

    executor = pool()

    def settle(done: Future) -> None:
        nonlocal executor
        number, chunk = waiting.pop(done)
        try:
            result = done.result()
        except BrokenProcessPool:
            executor.shutdown(wait=False, cancel_futures=True)
            result = _one_by_one(chunk, work, context)
            again = [waiting.pop(other) for other in list(waiting)]
            executor = pool()
            for other in again:
                waiting[executor.submit(work, other[1])] = other
        write_shard(shards / f"shard-{number:06d}.npz", *result)
        advance(len(chunk))

    try:
        for number, chunk in chunks:
            if (shards / f"shard-{number:06d}.npz").exists():
                advance(len(chunk))
                continue
            waiting[executor.submit(work, chunk)] = (number, chunk)
            while len(waiting) > 2 * num_workers:
                finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
                settle(finished.pop())
        while waiting:
            finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
            settle(finished.pop())
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _one_by_one(chunk: list[Any], work: _Work, context: Any) -> tuple:
    """Find the entry that kills a worker: each in a process of its own."""
    results = []
    for job in chunk:
        with ProcessPoolExecutor(1, mp_context=context, initializer=_quiet) as single:
            try:
                results.append(single.submit(work, [job]).result())
            except BrokenProcessPool:
                name, source = _name_of(job)
                reason = "it crashed the symmetry search; check its cell and atoms"
                results.append(([], [], [], [(name, source, reason)], 1))
    joined: list[Any] = [[], [], [], [], 0]
    for result in results:
        joined = [a + b for a, b in zip(joined, result)]
    return tuple(joined)


def _name_of(job: Any) -> tuple[str, str]:
    if isinstance(job, Entry):
        return job.material_id, job.source
    if isinstance(job, Path):
        return job.stem, str(job)
    return job[0], job[1]


def _quiet() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _TooLong(Exception):
    pass


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _TooLong

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@dataclass
class _Work:
    """Turn a chunk of jobs into crystals and refusals; runs in a worker."""

    symprec: float
    max_atoms: int | None

    def __call__(self, chunk: list[Any]) -> tuple:
        crystals, graphs, kept, refused = [], [], [], []
        for job in chunk:
            name, source = _name_of(job)
            try:
                with _time_limit(TIMEOUT):
                    entry = self._entry(job)
                    crystal, graph = self._convert(entry)
            except _TooLong:
                refused.append(
                    (name, source, f"it took more than {TIMEOUT} s; simplify it")
                )
            except Exception as error:
                reason = str(error).splitlines()[0] if str(error) else repr(error)
                refused.append((name, source, reason))
            else:
                crystals.append(crystal)
                graphs.append(graph)
                kept.append((entry.material_id, entry.properties))
        return crystals, graphs, kept, refused, len(chunk)

    @staticmethod
    def _entry(job: Any) -> Entry:
        if isinstance(job, Entry):
            return job
        if isinstance(job, Path):
            return read_member_file(job)
        name, source, text, numbers = job
        return parse_cif(text, name, source, numbers)

    def _convert(self, entry: Entry) -> tuple:
        from crystalvae.errors import InvalidStructureError
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
