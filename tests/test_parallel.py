import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from crystalvae import parallel
from crystalvae.errors import ClusterError
from crystalvae.parallel import TooLong, ordered_map, run_chunks, time_limit


def work(jobs):
    for job in jobs:
        if job == 13:
            os._exit(1)
    return [job * job for job in jobs]


def give_up(job):
    return -job


def chunks():
    return ((i, list(range(5 * i, 5 * i + 5))) for i in range(8))


def collect(**options):
    found = {}
    run_chunks(
        work,
        chunks(),
        lambda n, jobs, r: found.update(zip(jobs, r)),
        give_up,
        **options,
    )
    return found


EXPECTED = {job: -13 if job == 13 else job * job for job in range(40)}


def test_a_dying_worker_loses_only_the_job_that_kills_it():
    assert collect(num_workers=2) == EXPECTED


def test_a_worker_that_died_before_the_next_chunk_is_sent(monkeypatch):
    good_pool = parallel._pool

    class BrokenPool:
        def submit(self, *_):
            raise BrokenProcessPool

        def shutdown(self, **_):
            pass

    pools = iter([BrokenPool()])
    monkeypatch.setattr(parallel, "_pool", lambda n: next(pools, None) or good_pool(n))
    assert collect(num_workers=2) == EXPECTED


def test_a_dying_worker_of_a_cluster_loses_only_its_job():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        assert collect(scheduler=cluster.scheduler_address) == EXPECTED


def test_no_scheduler_is_an_error_of_one_line():
    pytest.importorskip("distributed")
    with pytest.raises(ClusterError, match="cannot reach"):
        collect(scheduler="tcp://127.0.0.1:1")


def place_and_process(number):
    time.sleep(0.02 * (number % 3))
    return number, os.getpid()


def test_what_is_computed_ahead_comes_in_order():
    found = list(ordered_map(place_and_process, range(5, 17), 2))
    assert [number for number, _ in found] == list(range(5, 17))
    processes = {process for _, process in found}
    assert os.getpid() not in processes
    endless = ordered_map(place_and_process, itertools.count(), 2)
    assert [number for number, _ in itertools.islice(endless, 4)] == [0, 1, 2, 3]


def meet(folder, number):
    """Wait until two processes have come."""
    (folder / str(os.getpid())).touch()
    for _ in range(100):
        if len(list(folder.iterdir())) > 1:
            return number
        time.sleep(0.05)
    raise TimeoutError


def test_as_many_processes_as_asked_for_work_at_once(tmp_path):
    work = functools.partial(meet, tmp_path)
    assert list(ordered_map(work, range(4), 2)) == [0, 1, 2, 3]


def alive(pid):
    """``Process.is_alive`` may be wrong while another thread waits for its end."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc").exists()
    return state.rpartition(")")[2].split()[0] != "Z"


def ended(pids, seconds=15):
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(map(alive, pids))


def rest(number):
    time.sleep(0 if number == 0 else 30)


def test_who_stops_early_does_not_wait():
    before = set(multiprocessing.active_children())
    found = ordered_map(rest, range(10), 2)
    next(found)
    workers = {p.pid for p in set(multiprocessing.active_children()) - before}
    assert len(workers) == 2
    began = time.monotonic()
    found.close()
    assert ended(workers)
    assert time.monotonic() - began < 15


ORPHANS = """
import multiprocessing, time
from crystalvae.parallel import ordered_map

def rest(number):
    time.sleep(0 if number == 0 else 60)

found = ordered_map(rest, range(9), 2)
next(found)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
next(found)
"""


ORPHANS_OF_A_MAP = """
import multiprocessing, time

from crystalvae.parallel import process_map

with process_map(2, True) as each:
    found = each(time.sleep, [0, 60, 60])
    next(found)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    next(found)
"""


@pytest.mark.skipif(not parallel.forks(), reason="the script is not importable")
@pytest.mark.parametrize("script", [ORPHANS, ORPHANS_OF_A_MAP])
def test_workers_end_with_their_parent(script):
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    )
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    assert all(map(alive, workers))
    parent.kill()
    parent.wait()
    assert ended(workers)


def die_elsewhere(parent, deadly, number):
    if number == deadly and os.getpid() != parent:
        os._exit(1)
    return number


@pytest.mark.parametrize("deadly", [0, 2, 7])
def test_a_killed_process_loses_nothing(deadly, caplog):
    work = functools.partial(die_elsewhere, os.getpid(), deadly)
    assert list(ordered_map(work, range(8), 2)) == list(range(8))
    assert "a process was killed" in caplog.text


def fail_at_three(number):
    if number == 3:
        raise ValueError("three")
    return number


def test_an_error_of_another_process_arrives_here():
    found = ordered_map(fail_at_three, range(8), 2)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(found)


def test_where_processes_do_not_fork_work_is_sent_to_them(monkeypatch):
    monkeypatch.setattr(parallel, "forks", lambda: False)
    found = list(ordered_map(place_and_process, range(3), 2))
    assert [number for number, _ in found] == [0, 1, 2]
    assert os.getpid() not in {process for _, process in found}


def test_time_limit():
    with pytest.raises(TooLong), time_limit(1):
        time.sleep(3)
    with time_limit(1):
        pass
    time.sleep(1.1)


def test_a_broad_except_does_not_hide_the_limit():
    with pytest.raises(TooLong), time_limit(1), contextlib.suppress(Exception):
        time.sleep(3)


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from crystalvae.parallel import run_chunks\n"
        "run_chunks(list, iter([(0, [1])]), print, print, num_workers=2)\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0
    assert "__main__" in done.stderr.splitlines()[-1]


def test_without_alarms_there_is_no_limit(monkeypatch):
    monkeypatch.delattr(signal, "SIGALRM")
    with time_limit(1):
        time.sleep(1.1)
