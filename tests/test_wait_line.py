"""A call that waits says why: on every way to call, once or in place, never too late, and never without a reason."""

from __future__ import annotations

import asyncio
import io
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from cells import ADD, make
from cli_processes import OnTerminal
from client import eventually

from cmemu_nb.calls import wait_line
from cmemu_nb.errors import JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmemu_nb import Emulator

pytestmark = pytest.mark.once

WAIT = "def wait(context, event) -> Iterable[str]:\n    gate.wait()\n    yield 'done'"
RUNNING = (
    "No result for N s. 'wait' has been running for N s on a worker of 'notebook'; "
    "emu.job(ID).cancel() or %cmemu cancel wait ends it."
)
FIB = """
def fib(context, event: Sum) -> int:
    n = event.x
    return n if n < 2 else emu.call("fib", {"x": n - 1}) + emu.call("fib", {"x": n - 2})
"""


class Stderr:
    """What was written to a stderr that is no terminal."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self._text = ""

    @property
    def lines(self) -> list[str]:
        """The lines so far, with every duration as N s and every id as ID."""
        self._text += self._capture.readouterr().err
        return timeless(self._text).splitlines()


def timeless(text: str) -> str:
    return re.sub(r'emu\.job\(".{6}"\)', "emu.job(ID)", re.sub(r"[\d.]+ (ns|µs|ms|s)\b", "N s", text))


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Stderr:
    """The stderr of calls that lose their patience soon."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(wait_line, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(wait_line, "UPDATE_SECONDS", 0.05)
    return Stderr(capsys)


@pytest.fixture
def emu(serve_functions: Callable[..., Any]) -> Iterator[Emulator]:
    with serve_functions(max_concurrent_tasks=2) as emulator:
        yield emulator


async def awaited(emu: Emulator) -> Any:
    return await emu.submit("wait")


async def listed(emu: Emulator) -> Any:
    return [item async for item in emu.stream("wait")]


WAYS: dict[str, Callable[[Emulator], Any]] = {
    "call": lambda emu: emu.call("wait"),
    "result": lambda emu: emu.submit("wait").result(),
    "stream": lambda emu: list(emu.stream("wait")),
    "map": lambda emu: emu.map("wait", [{}])["value"][0],
    "acall": lambda emu: asyncio.run(emu.acall("wait")),
    "await": lambda emu: asyncio.run(awaited(emu)),
    "amap": lambda emu: asyncio.run(emu.amap("wait", [{}]))["value"][0],
    "async for": lambda emu: asyncio.run(listed(emu)),
    "on the emulator's own loop": lambda emu: emu.home.run(emu.acall("wait")),
}


def in_thread(call: Callable[[], Any], then: Callable[[], Any]) -> Any:
    """Call something that waits on a thread of its own, do something meanwhile, and return what the call returns."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call)
        then()
        return waiting.result(30)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_wait_says_why_in_one_line(emu: Emulator, stderr: Stderr, gate: threading.Event, way: str) -> None:
    emu.function(make(WAIT, gate=gate), streaming=True)

    def then() -> None:
        eventually(lambda: stderr.lines, "it says why")
        threading.Event().wait(0.2)  # several updates
        gate.set()

    assert in_thread(lambda: WAYS[way](emu), then) == ["done"]
    assert stderr.lines == [RUNNING]


@pytest.mark.parametrize("quiet", ["progress=False", "the setting", "CI"])
def test_nothing_is_said_where_nobody_wants_it(
    emu: Emulator, stderr: Stderr, monkeypatch: pytest.MonkeyPatch, quiet: str
) -> None:
    emu.open_runtime("r", "ri.r")
    options: dict[str, Any] = {"progress": False} if quiet == "progress=False" else {}
    if quiet == "the setting":
        monkeypatch.setattr(emu.settings, "progress", False)
    elif quiet == "CI":
        monkeypatch.setenv("CI", "true")
    with pytest.raises(JobTimeout):
        emu.call("f", timeout=0.5, **options)
    with pytest.raises(JobTimeout):
        emu.submit("f").result(0.5, **options)
    assert stderr.lines == []


def test_a_quick_call_says_nothing_and_a_map_that_makes_progress_neither(emu: Emulator, stderr: Stderr) -> None:
    emu.function(make(ADD))
    tenth = "def tenth(context, event):\n    pause.wait(0.1)"
    emu.function(make(tenth, pause=threading.Event()))
    assert emu.call("add", {"x": 1}) == 3
    assert len(emu.map("tenth", [{}] * 12)) == 12
    assert stderr.lines == []


def test_a_map_says_how_many_are_done_and_what_the_next_one_waits_for(
    emu: Emulator, stderr: Stderr, gate: threading.Event
) -> None:
    emu.function(make("def third(context, event):\n    event['n'] == 3 and gate.wait()", gate=gate))

    def then() -> None:
        eventually(lambda: stderr.lines, "it says why")
        gate.set()

    in_thread(lambda: emu.map("third", [{"n": n} for n in range(1, 5)], concurrency=1), then)
    (line,) = stderr.lines
    running = RUNNING.replace("wait", "third").removeprefix("No result for N s. ")
    assert line == f"2 of 4 jobs are done, no further one for N s. {running}"


def test_a_line_is_printed_again_when_the_reason_is_another(
    emu: Emulator, stderr: Stderr, gate: threading.Event
) -> None:
    runtime = emu.open_runtime("r", "ri.r")

    def then() -> None:
        eventually(lambda: stderr.lines, "it says why")
        runtime.function(make(WAIT, gate=gate), streaming=True)
        eventually(lambda: len(stderr.lines) == 2, "it says the new reason")
        gate.set()

    assert in_thread(lambda: emu.call("wait"), then) == ["done"]
    assert stderr.lines[0].startswith("No result for N s. 'wait' is queued, and nothing has polled 'r' for jobs yet.")
    assert stderr.lines[1] == RUNNING.replace("'notebook'", "'r'")


def test_functions_that_wait_for_each_other_without_end_are_told_so(emu: Emulator, stderr: Stderr) -> None:
    emu.function(make(FIB, emu=emu))
    assert emu.call("fib", {"x": 2}, progress=False) == 1  # one worker calls, the other one answers

    def then() -> None:
        eventually(lambda: stderr.lines, "it says why")
        eventually(lambda: emu.lifecycle.logs().get(emu.lifecycle.jobs()[-2].job_id), "so does the call inside")
        emu.cancel("all")

    with pytest.raises(Exception, match="cancelled"):
        in_thread(lambda: emu.call("fib", {"x": 3}), then)
    deadlock = (
        "'fib' is queued: both workers of 'notebook' are taken by functions (2 x fib, longest N s) that wait for "
        "queued jobs themselves, so none of them can end. Call such a function directly instead of as a job, or "
        "start with more workers: %cmemu start --max-concurrent-tasks 4; "
        'emu.cancel("fib") or %cmemu cancel fib ends them.'
    )
    waits = "'fib' has been running for N s, and waits for a job that it has submitted. "
    assert stderr.lines == [f"No result for N s. {waits}{deadlock}"]
    # What the functions themselves wait for stands in their logs.
    inner = emu.lifecycle.jobs()[-2]
    assert timeless(emu.lifecycle.log(inner.job_id).text).splitlines()[0] == f"No result for N s. {deadlock}"


@pytest.mark.usefixtures("stderr")
def test_a_stderr_that_can_not_be_written_ends_no_call(
    emu: Emulator, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    emu.function(make(WAIT, gate=gate), streaming=True)
    tried = threading.Event()

    class Broken(io.StringIO):
        def write(self, _: str) -> int:
            tried.set()
            raise OSError("no space left")

    monkeypatch.setattr(sys, "stderr", Broken())

    def then() -> None:
        tried.wait(30)
        gate.set()

    assert in_thread(lambda: emu.call("wait"), then) == ["done"]


PROGRAM = """
import sys, threading
from cmemu_nb import Emulator
from cmemu_nb.calls import wait_line

wait_line.PATIENCE_SECONDS = wait_line.UPDATE_SECONDS = 0.2
gate = threading.Event()
with Emulator(port=0, home="thread") as emu:
    @emu.function
    def wait_for_a_line_on_the_terminal(context, event):
        gate.wait()
        return "the result"
    threading.Thread(target=lambda: (sys.stdin.readline(), gate.set())).start()
    print(emu.call("wait_for_a_line_on_the_terminal"))
"""


def test_on_a_terminal_the_line_is_replaced_in_place_and_gone_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with OnTerminal(program=[sys.executable, "-c", PROGRAM], TERM="xterm") as terminal:
        terminal.until("%cmemu cancel wait_for_a_line_on_the_terminal ends it.\r\x1b[1A\x1b[JNo result for")
        terminal.write("go\n")
        terminal.until("the result")
    assert re.search(r"ends it\.(go\r\n)?\r\x1b\[1A\x1b\[Jthe result\r\n$", terminal.seen)
    assert terminal.seen.count("\n") <= 2
