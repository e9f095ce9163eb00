"""Interrupting a call cancels what it has submitted; cancelling by hand; the threads of what was cancelled."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from cells import make
from client import eventually

from cmemu_nb.errors import InvalidRequest, JobFailed, NotFound, NotRunning
from cmemu_nb.lifecycle.records import JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmemu_nb import Emulator

HANG = "def hang(context, event):\n    gate.wait(60)"
HANG_STREAM = "def items(context, event):\n    yield {'n': 1}\n    gate.wait(60)"


@pytest.fixture
def emu(serve: Callable[..., Any], gate: threading.Event) -> Iterator[Emulator]:
    with serve(max_concurrent_tasks=2) as emulator:
        emulator.function(make(HANG, gate=gate))
        emulator.function(make(HANG_STREAM, gate=gate), streaming=True)
        yield emulator
        gate.set()
        emulator.reset()


def interrupt_when(condition: Callable[[], object], waiting_in: str) -> threading.Thread:
    """Send the main thread an interrupt as soon as something holds and the thread waits in a function of that name."""
    main = threading.main_thread().ident or 0

    def waits() -> bool:
        return waiting_in in [each.name for each in traceback.extract_stack(sys._current_frames()[main])]  # noqa: SLF001

    def wait() -> None:
        eventually(lambda: condition() and waits(), "the moment to interrupt")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def let_it_settle(emu: Emulator) -> None:
    """Wait until the emulator's loop has done what it was given."""
    emu.home.run(asyncio.sleep(0))


def statuses(emu: Emulator) -> list[str]:
    return [str(job.status) for job in emu.lifecycle.jobs()]


WAITS_IN = {"call": "call", "stream": "__next__", "map": "map"}
CALLS: dict[str, Callable[..., object]] = {
    "call": lambda emu, **options: emu.call("hang", **options),
    "stream": lambda emu, **options: list(emu.stream("items", **options)),
    "map": lambda emu, **options: emu.map("hang", [{}] * 20, concurrency=4, **options),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_cancels_all_jobs_that_its_call_has_submitted_and_no_other(emu: Emulator, name: str) -> None:
    earlier = emu.submit("hang")
    jobs = {"call": 2, "stream": 2, "map": 5}[name]
    interrupt_when(lambda: len(statuses(emu)) == jobs and statuses(emu).count("running") == 2, WAITS_IN[name])
    with pytest.raises(KeyboardInterrupt):
        CALLS[name](emu)
    eventually(lambda: statuses(emu).count("failed") == jobs - 1, "its jobs are cancelled")
    messages = {job.error_message for job in emu.lifecycle.jobs() if job.job_id != earlier.id}
    assert messages == {"cancelled: the program that called it was interrupted"}
    assert earlier.status == JobStatus.RUNNING


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_leaves_the_jobs_where_that_is_wanted(emu: Emulator, name: str) -> None:
    jobs = {"call": 1, "stream": 1, "map": 4}[name]
    for options in ({"interrupt": "leave"}, {}):
        thread = interrupt_when(lambda: statuses(emu).count("running") == min(jobs, 2), WAITS_IN[name])
        with pytest.raises(KeyboardInterrupt):
            CALLS[name](emu, **options)
        thread.join()
        let_it_settle(emu)
        assert emu.cancel() == jobs
        emu.settings.interrupt = "leave"
    with pytest.raises(InvalidRequest, match="interrupt must be 'cancel' or 'leave', not 'kill'"):
        CALLS[name](emu, interrupt="kill")


def test_a_job_that_was_submitted_before_is_left_by_who_waits_for_it(emu: Emulator) -> None:
    job = emu.submit("hang")
    interrupt_when(lambda: job.status == JobStatus.RUNNING, "result")
    with pytest.raises(KeyboardInterrupt):
        job.result()
    let_it_settle(emu)
    assert job.status == JobStatus.RUNNING


def test_a_task_that_is_cancelled_cancels_its_jobs_too(emu: Emulator) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(emu.acall("hang"), 0.2)
        mapping = asyncio.ensure_future(emu.amap("hang", [{}] * 10, concurrency=3))
        await asyncio.to_thread(eventually, lambda: len(statuses(emu)) == 4, "the map has begun")
        mapping.cancel()

    asyncio.run(main())
    eventually(lambda: statuses(emu) == ["failed"] * 4, "all are cancelled")
    assert {job.error_message for job in emu.lifecycle.jobs()} == {
        "cancelled: the program that awaited it was interrupted or stopped waiting"
    }


def test_an_emulator_that_is_stopped_leaves_queued_jobs_to_the_next_start(emu: Emulator) -> None:
    def wait() -> None:
        with pytest.raises((JobFailed, NotRunning)):
            emu.call("hang")

    earlier = [emu.submit("hang") for _ in range(4)]
    waiting = threading.Thread(target=wait)
    waiting.start()
    eventually(lambda: len(statuses(emu)) == 5 and earlier[1].status == JobStatus.RUNNING, "two run, three wait")
    emu.stop()
    waiting.join()
    assert sorted(statuses(emu)) == ["failed", "failed", "queued", "queued", "queued"]
    emu.start()


# By hand


def test_a_job_is_cancelled_by_hand(emu: Emulator) -> None:
    job = emu.submit("hang")
    assert job.cancel() is True
    assert (job.status, job.record.error_message) == (JobStatus.FAILED, "cancelled: by job.cancel()")
    with pytest.raises(JobFailed, match=r"cancelled: by job\.cancel\(\)"):
        job.result()
    assert job.cancel() is False
    other = emu.submit("hang")
    other.cancel("it is Friday")
    assert other.record.error_message == "cancelled: it is Friday"
    third = emu.submit("hang")
    third.fail()
    assert third.record.error_message == "failed by hand"


def test_the_jobs_of_a_function_are_cancelled_or_all_or_one(emu: Emulator, gate: threading.Event) -> None:
    jobs = [emu.submit("hang") for _ in range(5)]
    other, direct = emu.submit("items"), emu.open_runtime("r").enqueue("direct")
    assert emu.cancel(jobs[4]) == emu.cancel(jobs[3].id) == 1
    assert emu.cancel("hang") == 3
    assert emu.cancel("hang") == 0
    assert {job.record.error_message for job in jobs} == {"cancelled: by emu.cancel()"}
    with pytest.raises(
        NotFound,
        match=r"no job or function 'hagn'\. Did you mean 'hang'\? Known functions with unfinished jobs: 'direct'",
    ):
        emu.cancel("hagn")
    gate.set()
    assert other.result() == [{"n": 1}]
    assert emu.cancel() == 1
    assert not direct.find() or direct.status == JobStatus.FAILED
