"""Chunks of jobs in processes or on a Dask cluster; a dying worker loses nothing."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing import get_context
from typing import Any

from crystalvae.errors import ClusterError

logger = logging.getLogger(__name__)

STOP_SECONDS = 5.0
"""Longest wait for the thread of processes that were ended."""

Chunk = tuple[int, list[Any]]
Work = Callable[[list[Any]], list[Any]]
Settle = Callable[[int, list[Any], list[Any]], None]


class TooLong(BaseException):
    """A job ran into its time limit; no ``except Exception`` on the way can hide it."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise :class:`TooLong` inside the block after so many seconds.

    Signals reach main threads only, and Windows has no alarm: in other threads, as
    those of Dask workers, and there, there is no limit.
    """
    main = threading.current_thread() is threading.main_thread()
    if not (main and hasattr(signal, "SIGALRM")):
        yield
        return

    def stop(*_: Any) -> None:
        raise TooLong

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def process_map(num_workers: int | None, pays: bool) -> Iterator[Callable]:
    """A ``map`` over processes, or over none where starting them would not pay.

    Args:
        num_workers: processes; None is one a core, 1 is this process.
        pays: whether there is enough to do.

    Raises:
        ClusterError: no process can start, or one was killed.
    """
    num_workers = num_workers or num_cores()
    if num_workers == 1 or not pays:
        yield map
        return
    with _pool(num_workers) as pool:
        try:
            yield pool.map
        except BrokenProcessPool as error:
            with _pool(1) as other:
                _require_processes(other)
            raise ClusterError(
                "a process was killed, perhaps for want of memory; use fewer --workers"
            ) from error


def forks() -> bool:
    """Whether processes start as copies of this one, at once and with all it has.

    As torch's DataLoader does it on Linux: what a copy computes has one thread.
    """
    return sys.platform == "linux"


def ordered_map(
    work: Callable[[int], Any], numbers: Iterable[int], num_workers: int
) -> Iterator[Any]:
    """``work`` of each number, in their order, computed ahead in processes.

    Args:
        work: what is done, where processes do not fork picklable.
        numbers: what it is given; need not end.
        num_workers: processes; 1 is this one, nothing is computed ahead then. When one
            of them is killed, this process goes on alone.
    """
    numbers, waiting = iter(numbers), deque()
    if num_workers > 1:
        executor = _pool(num_workers, "fork" if forks() else "spawn", _take, work)
        try:
            waiting.extend(islice(numbers, num_workers + 1))
            ahead = deque(executor.submit(_call, number) for number in waiting)
            while waiting:
                result = ahead.popleft().result()
                for number in islice(numbers, 1):
                    waiting.append(number)
                    ahead.append(executor.submit(_call, number))
                waiting.popleft()
                yield result
        except BrokenProcessPool:
            logger.warning("a process was killed; going on with one, which is slower")
        finally:
            _stop(executor)
    yield from map(work, chain(waiting, numbers))


def _stop(executor: ProcessPoolExecutor) -> None:
    """End its processes at once: what they still compute is not wanted.

    Its thread is waited for, but not for ever: a program that ends while the thread
    closes its pipes prints a traceback.
    """
    thread = executor._executor_manager_thread
    for process in list((executor._processes or {}).values()):
        process.terminate()
    executor.shutdown(wait=False)
    if thread is not None:
        thread.join(STOP_SECONDS)


_work: Callable[[int], Any]


def _take(parent: int, work: Callable[[int], Any]) -> None:
    global _work
    _quiet(parent)
    import torch

    torch.set_num_threads(1)
    _work = work


def _call(number: int) -> Any:
    return _work(number)


def run_chunks(
    work: Work,
    chunks: Iterator[Chunk],
    settle: Settle,
    give_up: Callable[[Any], Any],
    *,
    num_workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Do all chunks and settle each here as it is done, in any order.

    A job that kills its process is found by giving each of its chunk a process of its
    own, and gets the result of ``give_up``; everything else is done again.

    Args:
        work: maps the jobs of a chunk to as many results; must be picklable.
        chunks: (number, jobs).
        settle: takes (number, jobs, results).
        give_up: result for a job that killed its worker.
        num_workers: processes; None is one a core, 1 is this process.
        scheduler: address of a Dask scheduler, ``tcp://host:port``, instead.

    Raises:
        ClusterError: the scheduler cannot be reached, or dask is not installed.
    """
    if scheduler is not None:
        _run_on_cluster(work, chunks, settle, give_up, scheduler)
        return
    num_workers = num_workers or num_cores()
    if num_workers == 1:
        for number, jobs in chunks:
            settle(number, jobs, work(jobs))
        return
    _run_in_processes(work, chunks, settle, give_up, num_workers)


def _quiet(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end when it has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _pool(
    num_workers: int,
    method: str = "spawn",
    initializer: Callable[..., None] = _quiet,
    *further: Any,
) -> ProcessPoolExecutor:
    arguments = (os.getpid(), *further)
    return ProcessPoolExecutor(num_workers, get_context(method), initializer, arguments)


def _nothing() -> None:
    """A job for which a process need only start."""


def _require_processes(pool: ProcessPoolExecutor) -> None:
    """Start a process.

    Raises:
        ClusterError: it ends at once.
    """
    try:
        pool.submit(_nothing).result()
    except BrokenProcessPool as error:
        raise ClusterError(
            "no process can start: put what your script does under `if __name__ == "
            '"__main__":`, or work in one process (num_workers=1)'
        ) from error


def _run_in_processes(
    work: Work,
    chunks: Iterator[Chunk],
    settle: Settle,
    give_up: Callable[[Any], Any],
    num_workers: int,
) -> None:
    waiting: dict[Future, Chunk] = {}
    executor = _pool(num_workers)

    def submit(chunk: Chunk) -> None:
        try:
            future = executor.submit(work, chunk[1])
        except BrokenProcessPool as error:
            future = Future()
            future.set_exception(error)
        waiting[future] = chunk

    def finish_one() -> None:
        nonlocal executor
        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
        future = done.pop()
        number, jobs = waiting.pop(future)
        try:
            results = future.result()
        except BrokenProcessPool:
            executor.shutdown(wait=False, cancel_futures=True)
            results = _one_by_one(work, jobs, give_up)
            again = [waiting.pop(other) for other in list(waiting)]
            executor = _pool(num_workers)
            for chunk in again:
                submit(chunk)
        settle(number, jobs, results)

    try:
        for chunk in chunks:
            submit(chunk)
            while len(waiting) > 2 * num_workers:
                finish_one()
        while waiting:
            finish_one()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _one_by_one(
    work: Work, jobs: list[Any], give_up: Callable[[Any], Any]
) -> list[Any]:
    results = []
    executor = _pool(1)
    _require_processes(executor)
    for job in jobs:
        try:
            results += executor.submit(work, [job]).result()
        except BrokenProcessPool:
            results.append(give_up(job))
            executor.shutdown(wait=False)
            executor = _pool(1)
    executor.shutdown()
    return results


def _run_on_cluster(
    work: Work,
    chunks: Iterator[Chunk],
    settle: Settle,
    give_up: Callable[[Any], Any],
    address: str,
) -> None:
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError as error:
        raise ClusterError(
            "a scheduler needs dask; install crystalvae[cluster]"
        ) from error
    try:
        client = Client(address, timeout=5)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"cannot reach a Dask scheduler at {address} ({error})"
        ) from error
    with client:
        waiting: dict[str, Chunk] = {}
        queue = as_completed()

        def submit(chunk: Chunk) -> None:
            future = client.submit(work, chunk[1], pure=False, retries=2)
            waiting[future.key] = chunk
            queue.add(future)

        def one_by_one(jobs: list[Any]) -> list[Any]:
            results = []
            for job in jobs:
                try:
                    results += client.submit(work, [job], pure=False).result()
                except KilledWorker:
                    results.append(give_up(job))
            return results

        def finish_one() -> None:
            future = next(queue)
            number, jobs = waiting.pop(future.key)
            try:
                results = future.result()
            except KilledWorker:
                results = one_by_one(jobs)
            settle(number, jobs, results)

        in_flight = max(32, 4 * sum(client.ncores().values()))
        for chunk in chunks:
            submit(chunk)
            while len(waiting) > in_flight:
                finish_one()
        while waiting:
            finish_one()
