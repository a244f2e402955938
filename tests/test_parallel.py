import contextlib
import os
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from crystalvae import parallel
from crystalvae.errors import ClusterError
from crystalvae.parallel import TooLong, run_chunks, time_limit


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


def test_time_limit():
    with pytest.raises(TooLong), time_limit(1):
        time.sleep(3)
    with time_limit(1):
        pass
    time.sleep(1.1)


def test_a_broad_except_does_not_hide_the_limit():
    with pytest.raises(TooLong), time_limit(1), contextlib.suppress(Exception):
        time.sleep(3)
