"""A function in another thread is ended at any moment while it runs itself, and never in other code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import random
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from cells import make
from client import eventually

from cmemu_nb.errors import JobEnded
from cmemu_nb.eventloop.ending import Ending, ending_here, shielded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cmemu_nb import Emulator


def frames() -> list[Any]:
    """Return what every thread does."""
    return list(sys._current_frames().values())  # noqa: SLF001


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


PAUSE = 0.003


def trace_steps(trace: Callable[..., Any]) -> None:
    """Trace this thread, step by step of its bytecode."""
    # Python 3.12 gives no steps unless somebody has asked for them before: https://github.com/python/cpython/issues/103615
    sys._getframe().f_trace_opcodes = True  # noqa: SLF001
    sys.settrace(trace)


class Run:
    """What a thread does for a job: a function that prints, a stream, and work of others around them."""

    def __init__(self) -> None:
        self.ending = Ending()
        self.shielded = self.unshielded = 0
        self.ended = False

    def function(self) -> list[int]:
        for _ in range(2):
            with shielded():
                self.shielded += 1
                sum(range(3))
                self.unshielded += 1
        return [1, 2]

    def __call__(self) -> None:
        self.ending.begin()
        try:
            for _ in self.ending.items(self.ending.call(self.function)):
                sum(range(3))
        except JobEnded:
            self.ended = True
        for _ in range(3):  # work of others, in which JobEnded would be seen
            sum(range(3))
        assert ending_here() is None


def run_and_end_at(run: Run, moment: int) -> bool:
    """Request the end when the thread has come to some step of its bytecode; False if it has not so many.

    Traced, a thread is ended at steps too at which it never is otherwise, so it is the harder test.
    """
    steps = itertools.count()
    at_moment, requested, over = threading.Event(), threading.Event(), threading.Event()
    reached: list[bool] = []
    errors: list[BaseException] = []

    def trace(frame: Any, event: str, _: object) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode" and next(steps) == moment:
            reached.append(True)
            at_moment.set()
            requested.wait(0.05)  # not for ever: this thread may hold the lock that the other waits for
        return trace

    def work() -> None:
        trace_steps(trace)
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - what comes out is looked at
            errors.append(error)
        finally:
            sys.settrace(None)
            over.set()
            at_moment.set()

    thread = threading.Thread(target=work)
    thread.start()
    at_moment.wait(20)
    while not run.ending.request() and not over.is_set():
        requested.set()
        time.sleep(0)
    requested.set()
    thread.join(20)
    assert not thread.is_alive()
    assert errors == []
    return bool(reached)


@pytest.mark.parametrize("frames_are_looked_at", [True, False])
def test_it_is_ended_at_every_step_and_only_the_function_sees_it(
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    frames_are_looked_at: bool,  # noqa: FBT001
) -> None:
    if not frames_are_looked_at:
        monkeypatch.setattr(Ending, "_is_harmful", lambda _: False)
        # Hypothesis measures collections in Python code, which runs in any thread: only its frame keeps the end out.
        gc.disable()
        request.addfinalizer(gc.enable)
    ended = 0
    for moment in itertools.count():
        run = Run()
        reached = run_and_end_at(run, moment)
        assert run.shielded == run.unshielded, f"it was ended while shielded at step {moment}"
        ended += run.ended
        if not reached:
            break
    assert moment > 300
    assert ended > moment / 2


class Loop:
    """A function that calls another in a loop, with a lock in each turn, and is called three times by one thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ending = Ending()
        self.outcomes: list[int] = []

    def function(self) -> int:
        for _ in range(300):
            with self.lock:
                self.called()
            with shielded():
                pass
        return 1

    def called(self) -> None:
        try:
            sum(range(2))
        finally:
            self.number = 0

    def run(self) -> None:
        self.ending.begin()
        for _ in range(3):
            try:
                self.outcomes.append(self.ending.call(self.function))
            except JobEnded:
                self.outcomes.append(0)
            for _ in range(5):
                sum(range(10))


@pytest.mark.usefixtures("quick_switches")
def test_it_is_ended_at_random_moments_once_and_leaves_its_locks() -> None:
    chance, ended = random.Random(20261201), [0, 0, 0]
    for _ in range(600):
        loop = Loop()
        thread = threading.Thread(target=loop.run)
        thread.start()
        time.sleep(chance.uniform(0, 0.002))
        while not loop.ending.request() and thread.is_alive():
            time.sleep(0)
        thread.join()
        assert not loop.lock.locked()
        assert len(loop.outcomes) == 3
        assert loop.outcomes.count(0) <= 1
        if 0 in loop.outcomes:
            ended[loop.outcomes.index(0)] += 1
    assert min(ended) > 20, ended


class Brief:
    """A function that returns while an end of it is being requested, and the longer work of others after it."""

    def __init__(self) -> None:
        self.ending = Ending()
        self.begun = threading.Event()
        self.seen: list[str] = []

    def function(self) -> None:
        self.begun.set()
        time.sleep(PAUSE / 2)

    def run(self) -> None:
        self.ending.begin()
        try:
            while not self.seen:
                try:
                    self.ending.call(self.function)
                except JobEnded:
                    self.seen.append("ended")
                for _ in range(10):
                    time.sleep(PAUSE / 5)
        except JobEnded:
            self.seen.append("escaped")


def request_and_pause_at(ending: Ending, moment: int) -> bool:
    """Request an end, and let other threads run on at some step of that; False if it has not so many."""
    steps = itertools.count()
    reached = []

    def trace(frame: Any, event: str, _: object) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode" and next(steps) == moment:
            reached.append(True)
            time.sleep(PAUSE)
        return trace

    def work() -> None:
        trace_steps(trace)
        try:
            while not ending.request():
                pass
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    return bool(reached)


def test_it_is_ended_by_a_request_that_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ending, "_is_harmful", lambda _: False)
    for moment in itertools.count():
        brief = Brief()
        thread = threading.Thread(target=brief.run)
        thread.start()
        brief.begun.wait()
        reached = request_and_pause_at(brief.ending, moment)
        thread.join()
        assert brief.seen == ["ended"], f"at step {moment} of the request"
        if not reached:
            break
    assert moment > 20


def test_while_c_code_keeps_it_from_ending_a_debugger_can_trace_other_threads() -> None:
    """In Python 3.11 a traced thread would never get past the beginning of a function."""
    ending, gate, ended = Ending(), threading.Lock(), []
    gate.acquire()

    def work() -> None:
        ending.begin()
        with contextlib.suppress(JobEnded):
            ending.call(gate.acquire)
            ended.append(False)
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    eventually(lambda: "call" in {each.f_code.co_name for each in frames()}, "it waits")
    assert ending.request()
    calls: list[str] = []
    sys.settrace(lambda frame, *_: calls.append(frame.f_code.co_name))
    runs_job = ending_here()
    sys.settrace(None)
    assert (runs_job, calls) == (None, ["ending_here"])
    gate.release()
    thread.join()
    assert ended == [True]


# Functions that the emulator serves


@pytest.fixture
def emu(serve_functions: Callable[..., Any]) -> Iterator[Emulator]:
    with serve_functions(max_concurrent_tasks=1) as emulator:
        yield emulator


LOOP = """
def loop(context, event):
    seen.append("begins")
    try:
        while True:
            time.sleep(0.001)
    finally:
        print("cleans up")
        seen.append("cleans up")
"""
ITEMS = LOOP.replace("def loop", "def items").replace("while True:", "yield 1\n        while True:")
# By what the job's error message says.
ENDS: dict[str, Callable[[Any, Any], object]] = {
    "cancelled: by job.cancel()": lambda _, job: job.cancel(),
    "enough": lambda _, job: job.fail("enough"),
    "the job's lease ran out: no result within 0.3 s (job_timeout)": lambda *_: None,
    "the emulator was stopped while the function ran": lambda emu, _: emu.stop(),
}


@pytest.mark.parametrize("message", ENDS)
@pytest.mark.parametrize("source", [LOOP, ITEMS], ids=["function", "stream"])
def test_the_function_of_a_job_that_is_ended_is_ended_and_cleans_up(
    serve: Callable[..., Any], source: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    threads = set(threading.enumerate())
    with serve(max_concurrent_tasks=1, job_timeout=0.3 if "lease" in message else None) as emu:
        function = emu.function(make(source, seen=seen, time=time), streaming=source is ITEMS)
        job = emu.submit(function.__name__)
        eventually(lambda: seen, "it has begun")
        ENDS[message](emu, job)
        eventually(lambda: len(seen) == 2, "it has cleaned up")
        assert job.record.error_message == message
        assert job.logs == "cleans up\n"
        if emu.running:
            served = emu.functions[function.__name__]
            eventually(lambda: (served.running, served.abandoned) == (0, 0), "its thread is not shown any more")
            assert (served.calls, served.errors) == (1, 1)
        kinds = {event.kind for event in emu.lifecycle.events.recent()}
        assert kinds & {"late_result", "internal_error", "listener_failed", "log"} == set()
        if emu.running:
            emu.reset()
    eventually(lambda: set(threading.enumerate()) <= threads, "every thread has ended")
    assert capfd.readouterr() == ("", "")


def test_what_waits_in_c_code_is_abandoned_and_ends_when_that_returns(emu: Emulator) -> None:
    seen: list[int] = []
    gate = threading.Lock()
    gate.acquire()
    emu.function(make("def sleepy(context, event):\n    gate.acquire()\n    seen.append(1)", gate=gate, seen=seen))
    emu.function(make("def quick(context, event):\n    return 1"))
    job = emu.submit("sleepy")
    # On its way there from the beginning of the line, a thread does not let another one run.
    eventually(lambda: ("sleepy", 2) in {(each.f_code.co_name, each.f_lineno) for each in frames()}, "it waits")
    job.cancel()
    assert emu.call("quick", timeout=10) == 1
    assert emu.functions["sleepy"].abandoned == 1
    gate.release()
    eventually(lambda: emu.functions["sleepy"].abandoned == 0, "it has ended")
    assert seen == []


def test_one_that_catches_it_and_goes_on_stays_abandoned_and_frees_its_slot(emu: Emulator) -> None:
    caught: list[str] = []
    begun, over = threading.Event(), threading.Event()
    source = """
def stubborn(context, event):
    try:
        while True:
            begun.set()
            time.sleep(0.001)
    except BaseException as error:
        caught.append(f"{type(error).__name__}: {error}")
    over.wait()
    return "late"
"""
    emu.function(make(source, begun=begun, over=over, caught=caught, time=time))
    emu.function(make("def quick(context, event):\n    return 1"))
    job = emu.submit("stubborn")
    assert begun.wait(20)
    job.cancel()
    assert emu.call("quick", timeout=10) == 1
    eventually(lambda: caught, "it has caught it")
    for _ in range(3):
        emu.cancel()
        assert emu.call("quick") == 1
    assert caught == ["JobEnded: the job of this function was ended"]
    assert emu.functions["stubborn"].abandoned == 1
    over.set()
    eventually(lambda: emu.functions["stubborn"].abandoned == 0, "it has returned")
    assert [event.detail for event in emu.lifecycle.events.recent() if event.kind == "late_result"] == ['"late"']


def test_a_function_that_waits_for_another_one_ends_with_it(emu: Emulator) -> None:
    emu.function(make("def outer(context, event):\n    return emu.call('outer')", emu=emu))
    job = emu.submit("outer")
    eventually(lambda: len(emu.lifecycle.jobs()) == 2, "it has called itself, and waits for its own slot")
    job.cancel()
    assert [str(job.status) for job in emu.lifecycle.jobs()] == ["failed", "failed"]
    assert emu.lifecycle.jobs()[1].error_message == "cancelled: the job that called it was ended"
    eventually(lambda: emu.functions["outer"].abandoned == 0, "its thread has ended")


def test_a_function_with_a_loop_of_its_own_ends(emu: Emulator) -> None:
    source = "def loops(context, event):\n    asyncio.run(wait())\n"
    seen: list[str] = []

    async def wait() -> None:
        seen.append("begins")
        try:
            while True:  # noqa: ASYNC110 - it is to run for ever
                await asyncio.sleep(0.001)
        finally:
            seen.append("cleans up")

    emu.function(make(source, asyncio=asyncio, wait=wait))
    job = emu.submit("loops")
    eventually(lambda: seen, "it has begun")
    job.cancel()
    eventually(lambda: emu.functions["loops"].abandoned == 0, "its thread has ended")
    assert seen == ["begins", "cleans up"]


def test_a_module_that_it_imports_is_imported_to_its_end(
    emu: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slowly_imported.py").write_text(
        "import time\nfor _ in range(200):\n    time.sleep(0.001)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    emu.function(make("def imports(context, event):\n    while True:\n        import slowly_imported"))
    job = emu.submit("imports")
    eventually(lambda: "slowly_imported" in sys.modules, "it is being imported")
    job.cancel()
    eventually(lambda: emu.functions["imports"].abandoned == 0, "its thread has ended")
    assert sys.modules.pop("slowly_imported").whole


# Everything that a function may do when it is ended, as fast as it can.
BUSY = """
def busy(context, event):
    number = 0
    while True:
        number += 1
        with lock:
            print("text", number)
        if event["kind"] == "calls":
            assert emu.call("add", {"x": number}) == number + 1
        if event["kind"] == "logs":
            logging.getLogger("busy").warning("%s", number)
        if event["kind"] == "yields":
            yield {"n": number}
"""


@pytest.mark.usefixtures("quick_switches")
def test_a_storm_of_cancellations_leaves_nothing_behind(serve: Callable[..., Any]) -> None:
    chance = random.Random(20261201)
    lock = threading.Lock()
    with serve(max_concurrent_tasks=4) as emu:
        emu.function(make(BUSY, emu=emu, lock=lock, logging=logging), streaming=True)
        emu.function(make("def add(context, event) -> int:\n    return event['x'] + 1"))
        for _ in range(60):
            jobs = [emu.submit("busy", {"kind": kind}) for kind in chance.choices(["", "calls", "logs", "yields"], k=2)]
            time.sleep(chance.uniform(0, 0.03))
            assert [job.cancel() for job in jobs] == [True, True]
            assert emu.call("add", {"x": 1}, timeout=20) == 2
        eventually(lambda: emu.functions["busy"].abandoned == 0, "every thread has ended")
        assert emu.map("add", [{"x": x} for x in range(100)])["value"].tolist() == list(range(1, 101))
        assert emu.lifecycle.unfinished() == []
        kinds = {event.kind for event in emu.lifecycle.events.recent()}
        assert kinds & {"internal_error", "listener_failed", "log"} == set()
        assert not lock.locked()
        logging.getLogger("busy").warning("its locks are free")
        emu.reset()
