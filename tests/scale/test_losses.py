"""What becomes of jobs and replicas when workers, clients and the network fail."""

from __future__ import annotations

import asyncio
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

if TYPE_CHECKING:
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
    queries = [f'{{"n": {number}}}'.encode() for number in range(2000)]
    records = emu.change(lambda lifecycle: [lifecycle.submit("notebook", "work", query) for query in queries])
    jobs = [emu.job(record.job_id) for record in records]
    eventually(lambda: done(jobs) > 500, "a quarter is done")
    victim = random.Random(1).choice(sorted(pids(client).values()))
    os.kill(victim, signal.SIGKILL)
    streamed = emu.submit("count", {"n": 100})
    eventually(lambda: done(jobs) > 1000, "half is done")
    define(2)
    seen = emu.submit("work", {"n": -1})
    eventually(lambda: done([*jobs, streamed, seen]) == 2002, "everything is done", seconds=60)

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
    assert len(after & before) == 2


def test_a_worker_that_is_cut_off_loses_its_jobs_with_their_lease_and_the_others_go_on(client: Client) -> None:
    with Emulator(port=0, home="thread", job_timeout=2) as emu:
        emu.function(where)
        cluster = emu.scale(client, replicas=2).wait_until_responsive()
        cut_off = cluster.seats[0].worker
        pid = pids(client)[cut_off]
        os.kill(pid, signal.SIGSTOP)
        try:
            jobs = [emu.submit("where", {}) for _ in range(20)]
            eventually(lambda: done(jobs) == 20, "every job has ended")
        finally:
            os.kill(pid, signal.SIGCONT)
        failed = [job.record.error_message for job in jobs if job.status == "failed"]
        assert len(failed) == 1
        assert "lease ran out" in str(failed[0])
        assert {job.result() for job in jobs if job.status == "succeeded"} == {pids(client)[cluster.seats[1].worker]}
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
        assert set(emu.map("where", [{}] * 30)["value"]) == set(pids(client).values())
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


def test_replicas_whose_only_worker_dies_begin_on_the_next_that_joins(emu: Emulator) -> None:
    with local_cluster(1) as client:
        cluster = emu.scale(client, replicas=2).wait_until_responsive()
        [before] = pids(client).values()
        os.kill(before, signal.SIGKILL)
        eventually(lambda: all(each.state == "lost" for each in cluster.seats.values()), "both are lost")
        cluster.wait_until_responsive()
        assert emu.call("where", {}) not in (before, os.getpid())
        cluster.stop()


def test_replicas_on_a_cluster_that_has_no_worker_yet_begin_with_the_first(emu: Emulator) -> None:
    with local_cluster(1) as client:
        client.retire_workers()
        eventually(lambda: not client.nthreads(), "no worker is left")
        cluster = emu.scale(client, replicas=1)
        with pytest.raises(LaunchFailed, match="0 waiting for a worker"):
            cluster.wait_until_responsive(0.5)
        address = client.scheduler_info()["address"]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard"]
        with subprocess.Popen([*worker, "--nthreads", "1"], stderr=subprocess.DEVNULL) as process:
            cluster.wait_until_responsive()
            assert emu.call("where", {}) == process.pid
            cluster.stop()
            process.terminate()


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
