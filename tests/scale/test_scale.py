"""Functions of the notebook as replicas on a real Dask cluster, whose workers are processes of their own."""

from __future__ import annotations

import os
import re
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
from client import eventually

from cmemu_nb import Emulator
from cmemu_nb.dashboard.runtimes import runtimes_part
from cmemu_nb.errors import FunctionError, JobFailed, JobTimeout
from cmemu_nb.executors.cluster.worker import Lines
from cmemu_nb.lifecycle.records import NOTEBOOK_APP

if TYPE_CHECKING:
    from distributed import Client


from scale.cluster import count, local_cluster, nobody_serves, pids, runs

pytestmark = [pytest.mark.once, pytest.mark.long_lived]


def test_functions_run_on_the_workers(emu: Emulator, client: Client) -> None:
    cluster = emu.scale(client, replicas=4).wait_until_responsive()
    assert repr(cluster) == "<Replicas of 'notebook' on 2 workers: 4 of 4 responsive>"
    found = set(emu.map("where", [{}] * 40)["value"])
    assert found == set(pids(client).values())
    assert found.isdisjoint({os.getpid()})
    assert [each["number"] for each in emu.stream("count", {"n": 3})] == [0, 1, 2]


def test_each_replica_has_a_token_and_an_address_of_its_own(emu: Emulator, client: Client) -> None:
    emu.scale(client, replicas=4).wait_until_responsive()
    replicas = emu.lifecycle.replicas("notebook")
    assert len({each.token for each in replicas}) == 4
    addresses = sorted(each.replica_id for each in replicas)
    workers = [address.removeprefix("tcp://") for address in client.nthreads()]
    assert [each.partition("@")[0] for each in addresses] == ["0", "1", "2", "3"]
    assert {each.partition("@")[2] for each in addresses} == set(workers)
    job = emu.submit("where", {})
    job.result()
    assert job.record.replica_id in addresses
    assert str(job.record.replica_id) in emu.timeline().svg


def test_it_shows_who_serves_where(emu: Emulator, client: Client) -> None:
    cluster = emu.scale(client, replicas=2).wait_until_responsive()
    shown = cluster._repr_mimebundle_()
    assert shown["text/plain"] == "<Replicas of 'notebook' on 2 workers: 2 of 2 responsive>"
    assert all(worker in shown["text/html"] for worker in client.nthreads())
    assert shown["text/html"].count("responsive") == 2
    [row] = runtimes_part(emu, time.time_ns())["rows"]
    assert [line["state"] for line in row["lines"]] == ["responsive", "responsive"]
    assert row["stops"]
    cluster.stop()
    assert "emu.scale(client)" in cluster._repr_mimebundle_()["text/html"]


def pause(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG001
    time.sleep(event["seconds"])


def test_a_job_that_no_replica_takes_says_how_the_replicas_stand(emu: Emulator, client: Client) -> None:
    with local_cluster(0) as empty:
        cluster = emu.scale(empty, replicas=2)
        waits = (
            "no replica of 'notebook' on the cluster polls for jobs (0 waiting for a worker, 1 waiting for a worker)"
        )
        with pytest.raises(JobTimeout, match=re.escape(f"'where' is queued: {waits}. client.get_worker_logs() may")):
            emu.call("where", {}, timeout=0.1)
        emu.cancel("all")
        cluster.stop()
    emu.function(pause)
    emu.scale(client, replicas=2).wait_until_responsive()
    jobs = [emu.submit("pause", {"seconds": 1.5}) for _ in range(3)]
    eventually(lambda: emu.lifecycle.queue_depth("notebook") == 1, "both replicas have a job")
    busy = "both replicas of 'notebook' are busy (2 x pause, longest "
    with pytest.raises(JobTimeout, match=re.escape(f"'pause' is queued behind 2 running jobs: {busy}")):
        jobs[2].result(timeout=0.01)
    assert [job.result() for job in jobs] == [None] * 3


def test_no_token_is_in_what_the_cluster_logs(emu: Emulator, client: Client) -> None:
    emu.scale(client, replicas=2).wait_until_responsive()
    tokens = [each.token for each in emu.lifecycle.replicas("notebook")] + [emu.token]
    said = f"{client.get_events()} {client.get_worker_logs()} {client.get_scheduler_logs()}"
    assert "asks" in said
    assert not any(token in said for token in tokens)


def test_prints_belong_to_the_job_and_to_the_replicas_log(emu: Emulator, client: Client) -> None:
    @emu.function
    def talk(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        print("said", event["n"])  # noqa: T201 - what is tested
        return event["n"]

    cluster = emu.scale(client, replicas=2).wait_until_responsive()
    jobs = [emu.submit("talk", {"n": number}) for number in range(10)]
    assert [job.result() for job in jobs] == list(range(10))
    eventually(lambda: all(job.logs for job in jobs), "what was printed has come")
    assert [str(job.logs) for job in jobs] == [f"said {number}\n" for number in range(10)]
    assert {line.message for line in cluster.logs} == {f"said {number}" for number in range(10)}


def test_functions_have_the_configuration_of_their_runtime_in_their_context(emu: Emulator, client: Client) -> None:
    @emu.function
    def password(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        print(context["sources"])  # noqa: T201 - what is tested
        return [context["sources"].get("Crm", {}).get("password"), context.get("CLIENT_ID")]

    emu.configure("notebook", sources={"Crm": {"password": "the-first-password"}})
    emu.scale(client, replicas=2).wait_until_responsive()
    job = emu.submit("password")
    assert job.result() == ["the-first-password", None]
    eventually(
        lambda: job.logs == "{'Crm': {'password': '…word'}}\n", "what was printed has come, without the password"
    )
    emu.configure("notebook", sources={"Crm": {"password": "another"}}, client={"id": "app", "secret": "its-secret"})
    eventually(lambda: emu.call("password") == ["another", "app"], "the replicas have the new configuration")


def test_the_replicas_go_on_after_a_reset_with_new_tokens(emu: Emulator, client: Client) -> None:
    cluster = emu.scale(client, replicas=2).wait_until_responsive()
    before = {each.token for each in emu.lifecycle.replicas("notebook")}
    emu.runtime("notebook").reset()
    eventually(lambda: len(emu.lifecycle.replicas("notebook")) == 2, "they have tokens again")
    cluster.wait_until_responsive()
    assert before.isdisjoint(each.token for each in emu.lifecycle.replicas("notebook"))
    assert emu.call("where", {}) in pids(client).values()


def test_replicas_of_a_runtime_that_is_deleted_leave(emu: Emulator, client: Client) -> None:
    cluster = emu.scale(client, replicas=2).wait_until_responsive()
    emu.runtime("notebook").delete()
    eventually(lambda: cluster.stopped and nobody_serves(client), "they have left")
    assert repr(cluster) == "<Replicas of 'notebook': stopped>"


def test_fewer_replicas_finish_what_they_run_and_more_begin(emu: Emulator, client: Client) -> None:
    @emu.function
    def slow(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        time.sleep(1)
        return event["n"]

    cluster = emu.scale(client, replicas=4).wait_until_responsive()
    jobs = [emu.submit("slow", {"n": number}) for number in range(4)]
    eventually(lambda: all(job.status == "running" for job in jobs), "all of them run")
    cluster.scale(1)
    assert [job.result() for job in jobs] == [0, 1, 2, 3]
    eventually(lambda: len(emu.lifecycle.replicas("notebook")) == 1, "three have left")
    cluster.scale(3).wait_until_responsive()
    assert len(emu.lifecycle.replicas("notebook")) == 3


def test_the_notebook_takes_no_jobs_beside_a_cluster_unless_it_is_to(emu: Emulator, client: Client) -> None:
    cluster = emu.scale(client, replicas=2).wait_until_responsive()
    assert os.getpid() not in set(emu.map("where", [{}] * 100)["value"])
    cluster.stop()
    assert emu.call("where", {}) == os.getpid()
    emu.scale(client, replicas=2, local=True).wait_until_responsive()
    eventually(lambda: len(set(emu.map("where", [{}] * 50)["value"])) == 3, "all three have taken jobs")


def test_the_notebook_takes_the_jobs_again_also_after_a_stop_and_a_start(emu: Emulator, client: Client) -> None:
    for _ in range(2):
        cluster = emu.scale(client, replicas=2).wait_until_responsive()
        assert emu.call("where", timeout=30) in pids(client).values()
        cluster.stop()
        assert emu.call("where", timeout=30) == os.getpid()
        emu.stop()
        emu.start()
    assert emu.call("where", timeout=30) == os.getpid()


def test_some_functions_go_to_a_runtime_of_their_own_and_follow_the_cell(emu: Emulator, client: Client) -> None:
    def define(version: str) -> None:
        @emu.function
        def slow(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
            return [version, os.getpid()]

    define("first")
    cluster = emu.scale(client, replicas=2, functions=["slow", count]).wait_until_responsive()
    assert cluster.runtime_id == "cluster"
    app = "ri.foundry.main.deployed-app.cluster"
    assert emu.call("slow", {}, app)[1] in pids(client).values()
    assert emu.call("slow", {}, NOTEBOOK_APP) == ["first", os.getpid()]
    assert {each["pid"] for each in emu.stream("count", {"n": 2}, app)} <= set(pids(client).values())
    define("second")
    eventually(lambda: emu.call("slow", {}, app)[0] == "second", "the new version is there")
    assert emu.call("slow", {}, app)[1] in pids(client).values()


def test_a_function_that_ends_without_a_result_fails_its_job_with_the_reason(emu: Emulator, client: Client) -> None:
    @emu.function
    def leaves(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        raise SystemExit(3)

    @emu.function(streaming=True)
    def breaks(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        yield {"n": 1}
        raise ValueError("half way")

    emu.scale(client, replicas=1).wait_until_responsive()
    with pytest.raises(JobFailed, match="SystemExit: 3"):
        emu.call("leaves", {})
    with pytest.raises(JobFailed):
        list(emu.stream("breaks", {}))
    assert emu.call("where", {}) in pids(client).values()


def test_a_result_that_can_not_be_encoded_is_named_with_its_place_and_the_cure(emu: Emulator, client: Client) -> None:
    @emu.function
    def collects(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        return {"found": {1}}

    @emu.function(streaming=True)
    def yields(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        yield {1}

    emu.scale(client, replicas=1).wait_until_responsive()
    job = emu.submit("collects", {})
    assert job.raw().startswith(b'{"exception": "Circular reference detected: Traceback')
    eventually(lambda: job.explanation, "what is wrong has come from the worker")
    with pytest.raises(FunctionError, match=r"^result\['found'\] is set, .*: return list\(\.\.\.\)"):
        job.result()
    streamed = emu.submit("yields", {})
    eventually(lambda: "items[0] is set" in (streamed.record.error_message or ""), "so has that of an item")


def test_two_clusters_on_one_runtime_are_told_apart_and_the_notebook_rests_until_both_have_stopped(
    emu: Emulator, client: Client
) -> None:
    first = emu.scale(client, replicas=2).wait_until_responsive()
    second = emu.scale(client, replicas=2).wait_until_responsive()
    assert len({each.replica_id for each in emu.lifecycle.replicas("notebook")}) == 4
    assert os.getpid() not in set(emu.map("where", [{}] * 40)["value"])
    first.stop()
    assert len(emu.lifecycle.replicas("notebook")) == 2
    assert os.getpid() not in set(emu.map("where", [{}] * 40)["value"])
    second.stop()
    assert emu.lifecycle.replicas("notebook") == []
    assert emu.call("where", {}) == os.getpid()


def test_fewer_replicas_and_more_at_once_while_jobs_run(emu: Emulator, client: Client) -> None:
    @emu.function
    def slow(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        time.sleep(0.5)
        return event["n"]

    cluster = emu.scale(client, replicas=4).wait_until_responsive()
    jobs = [emu.submit("slow", {"n": number}) for number in range(8)]
    eventually(lambda: sum(job.status == "running" for job in jobs) == 4, "four of them run")
    cluster.scale(1)
    cluster.scale(4).wait_until_responsive()
    assert [job.result() for job in jobs] == list(range(8))
    eventually(lambda: len(emu.lifecycle.replicas("notebook")) == 4, "those that were too many have left")
    assert [each.held for each in emu.lifecycle.replicas("notebook")] == [{}] * 4
    cluster.stop()
    assert emu.lifecycle.replicas("notebook") == []


def test_functions_that_go_to_a_cluster_are_chosen_by_name_or_themselves_time_and_again(
    emu: Emulator, client: Client
) -> None:
    @emu.function(streaming=True)
    def lists(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        return ["a", "b"]

    app = "ri.foundry.main.deployed-app.cluster"
    emu.scale(client, replicas=1, functions="where")
    emu.scale(client, replicas=1, functions=["where", lists]).wait_until_responsive()
    assert emu.call("where", {}, app) in pids(client).values()
    assert list(emu.stream("lists", {}, app)) == ["a", "b"]
    emu.functions.remove("where", "cluster")
    with pytest.raises(FunctionError, match="Unknown query type"):
        emu.call("where", {}, app, validate=False)


def test_a_job_that_is_ended_by_hand_frees_its_slot_and_its_function_holds_nobody_up(
    emu: Emulator, client: Client
) -> None:
    @emu.function
    def hangs(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        time.sleep(60)

    cluster = emu.scale(client, replicas=1).wait_until_responsive()
    for _ in range(2):
        job = emu.submit("hangs", {})
        eventually(partial(runs, job), "it runs")
        job.fail("by hand")
        assert emu.call("where", {}, timeout=30) in pids(client).values()
    eventually(partial(runs, emu.submit("hangs", {})), "one more runs")
    cluster.stop()
    eventually(lambda: nobody_serves(client), "the replica has left")


def test_the_function_of_a_job_that_is_cancelled_is_ended_on_its_worker(emu: Emulator, client: Client) -> None:
    @emu.function
    def loops(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        print("begins")  # noqa: T201
        while True:
            time.sleep(0.001)

    cluster = emu.scale(client, replicas=1).wait_until_responsive()
    job = emu.submit("loops", {})
    eventually(lambda: "begins" in job.logs, "it runs")
    assert job.cancel()
    name = f"cmemu-job-{job.id}"

    def threads() -> list[str]:
        import threading  # noqa: PLC0415 - it runs on the worker

        return [each.name for each in threading.enumerate()]

    eventually(lambda: not any(name in names for names in client.run(threads).values()), "its thread has ended")
    assert job.logs == "begins\n"
    cluster.stop()


def test_a_result_that_is_too_large_fails_its_job_at_once(client: Client) -> None:
    with Emulator(port=0, home="thread", max_body_bytes=100_000) as emu:

        @emu.function
        def large(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
            return "x" * 200_000

        cluster = emu.scale(client, replicas=1).wait_until_responsive()
        with pytest.raises(JobFailed, match="the result could not be posted"):
            emu.call("large", {}, timeout=20)
        cluster.stop()


def test_prints_without_an_end_of_line_come_whole_and_in_pieces_of_some_size() -> None:
    told: list[str] = []
    lines = Lines(told.append)
    for number in range(300_000):
        lines.write(str(number % 10))
    lines.write("end\nrest")
    lines.end()
    assert "".join(told) == "0123456789" * 30_000 + "end\nrest"
    assert max(map(len, told)) < 101_000
    assert len(told) == 4
