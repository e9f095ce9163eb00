"""What becomes of jobs and replicas when workers, clients and the network fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import pytest
from client import eventually
from conftest import faults

from cmemu_nb import Emulator
from cmemu_nb.errors import JobFailed, LaunchFailed
from cmemu_nb.executors.cluster import cluster as cluster_module
from cmemu_nb.executors.cluster import tasks as tasks_module
from cmemu_nb.executors.cluster.tasks import run_on_workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client


from scale.cluster import done, local_cluster, nobody_serves, pids, where

pytestmark = [pytest.mark.once, pytest.mark.long_lived]


def test_nothing_is_lost_doubled_or_crossed_when_a_worker_is_killed_and_a_function_run_again(
    emu: Emulator, client: Client
) -> None:
    hostile = '</script><img src=x onerror="alert(1)">\r\nHTTP/1.1 200 OK\r\n\r\n{"jobId":'

    def define(version: int) -> None:
        @emu.function
        def work(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
            time.sleep(0.01)
            return [event["n"], version, hostile]

    define(1)
    cluster = emu.scale(client, replicas=4, max_concurrent_tasks=2).wait_until_responsive()
    before = {each.token for each in emu.lifecycle.replicas("notebook")}
    queries = [f'{{"n": {number}}}'.encode() for number in range(800)]
    records = emu.change(lambda lifecycle: [lifecycle.submit("notebook", "work", query) for query in queries])
    jobs = [emu.job(record.job_id) for record in records]
    eventually(lambda: done(jobs) > 200, "a quarter is done")
    processes = pids(client)
    victim = random.Random(1).choice(sorted(processes.values()))
    survivors = {
        each.replica.token for each in cluster.seats.values() if each.replica and processes[each.worker] != victim
    }
    os.kill(victim, signal.SIGKILL)
    streamed = emu.submit("count", {"n": 100})
    eventually(lambda: done(jobs) > 400, "half is done")
    define(2)
    seen = emu.submit("work", {"n": -1})
    eventually(lambda: done([*jobs, streamed, seen]) == 802, "everything is done", seconds=60)

    ends = Counter(
        event.job_id for event in emu.lifecycle.events.recent() if event.kind in ("job_succeeded", "job_failed")
    )
    starts = Counter(event.job_id for event in emu.lifecycle.events.recent() if event.kind == "job_started")
    assert set(ends.values()) == set(starts.values()) == {1}
    failed = [job for job in jobs if job.status == "failed"]
    assert len(failed) <= 4
    assert all("left the cluster" in (job.record.error_message or "") for job in failed)
    results = {number: job.result() for number, job in enumerate(jobs) if job.status == "succeeded"}
    assert all(result[0] == number and result[2] == hostile for number, result in results.items())
    assert {result[1] for result in results.values()} == {1, 2}
    assert seen.result() == [-1, 2, hostile]
    assert [each["number"] for each in streamed.result()] == list(range(100))
    cluster.wait_until_responsive()
    after = {each.token for each in emu.lifecycle.replicas("notebook")}
    assert len(after) == 4
    assert after & before == survivors


def test_a_worker_that_is_cut_off_loses_its_jobs_with_their_lease_and_the_others_go_on(client: Client) -> None:
    with Emulator(port=0, home="thread", job_timeout=2) as emu:
        emu.function(where)
        cluster = emu.scale(client, replicas=2).wait_until_responsive()
        while len({seat.worker for seat in cluster.seats.values()}) < 2:  # Dask says on which worker each one is
            cluster.scale(len(cluster.seats) + 1).wait_until_responsive()
        cut_off = cluster.seats[0].worker
        there = sum(seat.worker == cut_off for seat in cluster.seats.values())
        pid = pids(client)[cut_off]
        os.kill(pid, signal.SIGSTOP)
        try:
            jobs = [emu.submit("where", {}) for _ in range(20)]
            eventually(lambda: done(jobs) == 20, "every job has ended", seconds=60)
        finally:
            os.kill(pid, signal.SIGCONT)
        failed = [job.record.error_message for job in jobs if job.status == "failed"]
        assert 1 <= len(failed) <= there
        assert all("lease ran out" in str(each) for each in failed)
        assert pid not in {job.result() for job in jobs if job.status == "succeeded"}
        eventually(lambda: pid in set(emu.map("where", [{}] * 8)["value"]), "the worker takes jobs again")
        cluster.stop()
        assert faults(emu) == []


def test_a_worker_that_retires_leaves_its_replicas_to_the_others(emu: Emulator) -> None:
    with local_cluster(3) as client:
        cluster = emu.scale(client, replicas=3).wait_until_responsive()
        retiring = cluster.seats[1].worker
        client.retire_workers([retiring])
        eventually(lambda: retiring not in client.nthreads(), "the worker has left")
        eventually(lambda: cluster.seats[1].worker != retiring, "its replica has begun elsewhere")
        cluster.wait_until_responsive()
        assert {seat.worker for seat in cluster.seats.values()} <= set(client.nthreads())
        assert set(emu.map("where", [{}] * 30)["value"]) <= set(pids(client).values())
        cluster.stop()


def test_an_interrupt_while_it_scales_leaves_no_replicas(
    emu: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    resize = cluster_module.Cluster._resize  # noqa: SLF001 - an interrupt comes at its end

    async def interrupted(self: cluster_module.Cluster, replicas: int) -> None:
        await resize(self, replicas)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    with monkeypatch.context() as patched:
        patched.setattr(cluster_module.Cluster, "_resize", interrupted)
        with pytest.raises(KeyboardInterrupt):
            emu.scale(client, replicas=2)
    assert list(emu.clusters) == []
    eventually(lambda: nobody_serves(client), "those that were to begin have left", seconds=10)
    assert emu.lifecycle.replicas("notebook") == []
    assert emu.call("where", {}) == os.getpid()


def test_a_client_that_is_closed_gives_the_jobs_back_to_the_notebook() -> None:
    with local_cluster(1) as client, Emulator(port=0, home="thread") as emu:
        emu.function(where)
        cluster = emu.scale(client, replicas=2).wait_until_responsive()
        client.close()
        eventually(lambda: cluster.stopped, "the replicas are given up")
        assert emu.call("where", {}, timeout=5) == os.getpid()


@contextlib.contextmanager
def one_more_worker(client: Client) -> Iterator[int]:
    """Start a worker without a nanny, which would start another one when it is killed; yields its process id."""
    address = client.scheduler_info()["address"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard"]
    with subprocess.Popen([*worker, "--nthreads", "1"], stderr=subprocess.DEVNULL) as process:
        yield process.pid
        process.terminate()


def test_replicas_wait_for_a_worker_and_when_it_dies_for_the_next_that_joins(emu: Emulator) -> None:
    with local_cluster(0) as client:
        cluster = emu.scale(client, replicas=2)
        with pytest.raises(LaunchFailed, match="0 waiting for a worker"):
            cluster.wait_until_responsive(0.5)
        with one_more_worker(client) as first:
            cluster.wait_until_responsive()
            assert emu.call("where", {}) == first
            os.kill(first, signal.SIGKILL)
            eventually(lambda: all(each.state == "lost" for each in cluster.seats.values()), "both are lost")
        with one_more_worker(client) as second:
            cluster.wait_until_responsive()
            assert emu.call("where", {}) == second
            cluster.stop()


def test_a_call_of_dask_ends_although_a_worker_hangs(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "ANSWER_SECONDS", 0.5)
    pid = min(pids(client).values())
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(OSError, match="did not answer within"):
            run_on_workers(client, os.getpid)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_worker_that_hangs_is_told_and_leaves_nothing_begun(
    emu: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "ANSWER_SECONDS", 0.5)
    pid = min(pids(client).values())
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(LaunchFailed, match=r"did not answer within 0.5 s.*client.restart\(\)"):
            emu.scale(client, replicas=2)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert emu.call("where", {}) == os.getpid()


def test_no_query_ends_a_replica(emu: Emulator, client: Client) -> None:
    @emu.function
    def echo(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        return event

    emu.scale(client, replicas=1).wait_until_responsive()
    for _ in range(3):
        with pytest.raises(JobFailed, match=r"the official SDK can't read the query .ValueError: Exceeds the limit"):
            emu.submit("echo", msgspec.Raw(b'{"x": ' + b"7" * 5000 + b"}")).result(20)
        assert emu.submit("echo", msgspec.Raw(b'{"x": 1e400}')).raw(20) == b'{"x": Infinity}'
    assert emu.call("echo", {"x": 1}, timeout=20) == {"x": 1}
