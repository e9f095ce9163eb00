"""Interrupting cells that call functions: their jobs are cancelled, their functions ended, and every slot is free."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import moments
import pytest
from kernels.driver import cell_of, running_cell, wait_until
from kernels.notebooks import open_notebook
from kernels.test_cell_functions import attempt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernels.notebooks import Notebook

pytestmark = pytest.mark.kernels


@pytest.fixture(scope="module", params=["kernel", "thread"])
def notebook(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    with open_notebook("7.4", request.param, tmp_path_factory.mktemp("kernel")) as opened:
        opened.kernel.run(FUNCTIONS)
        yield opened


FUNCTIONS = """
import asyncio, threading, time

@emu.function
def loop(context, event):
    while True: time.sleep(.01)

@emu.function(streaming=True)
def endless(context, event):
    while True:
        yield {"n": 1}
        time.sleep(.01)

together = threading.Barrier(4)

@emu.function
def meet(context, event):
    together.wait(20)
    return 1
"""
NOTHING_LEFT = """
def left():
    shown = [(each.running, each.abandoned) for each in emu.functions]
    return set(shown), [job for job in emu.lifecycle.jobs() if not job.finished]
"""


def interrupt(notebook: Notebook, code: str, *, running: int = 1) -> str:
    """Run a cell, and interrupt it as soon as so many of its jobs run; returns its error."""
    with running_cell(notebook.kernel, code) as cell:
        path = "/_emulate/foundry/compute-modules/runtimes/notebook/jobs?status=running"
        wait_until(lambda: len(notebook.get(path)["jobs"]) == running, "its jobs run")
    notebook.kernel.interrupt()
    # asyncio's name for it in a cell that awaits is CancelledError.
    error = notebook.kernel.finish(cell).error or ""
    assert error.startswith(("KeyboardInterrupt", "CancelledError"))
    return error


def settle(notebook: Notebook) -> None:
    """Wait until no job and no thread of a function is left."""
    said = "{(0, 0)} []"
    wait_until(lambda: notebook.kernel.run(f"{NOTHING_LEFT}print(*left())") == said, "nothing is left")


def messages(notebook: Notebook) -> set[str]:
    said = "{j.error_message for j in emu.lifecycle.jobs() if j.error_message}"
    return set(json.loads(notebook.kernel.run(f"import json; print(json.dumps(list({said})))")))


CALLED = "cancelled: the cell that called it was interrupted"
AWAITED = "cancelled: the cell that awaited it was interrupted or stopped waiting"
CALLS = {
    "emu.call(loop)": (1, CALLED),
    "await emu.acall('loop')": (1, AWAITED),
    "emu.map('loop', [{}] * 20)": (4, CALLED),
    "await emu.amap('loop', [{}] * 20)": (4, AWAITED),
    "emu.submit('loop').result()": (1, CALLED),
    "await emu.submit('loop')": (1, AWAITED),
    "list(emu.stream('endless'))": (1, CALLED),
    "for item in emu.stream('endless'):\n    time.sleep(30)": (1, CALLED),
    "async for item in emu.stream('endless'):\n    while True: await asyncio.sleep(0.05)": (1, f"{CALLED} {AWAITED}"),
    "%cmemu call loop": (1, CALLED),
}


def test_a_loop_that_is_called_and_interrupted_four_times_leaves_all_slots_free(notebook: Notebook) -> None:
    for _ in range(4):
        said = interrupt(notebook, "emu.call('loop')")
        assert said == "KeyboardInterrupt: the unfinished jobs of this call are cancelled"
    assert notebook.kernel.run("print(emu.map('meet', [{}] * 4, progress=False)['value'].tolist())") == "[1, 1, 1, 1]"
    settle(notebook)


@pytest.mark.parametrize("code", CALLS)
def test_interrupting_a_cell_cancels_its_jobs_and_ends_their_functions(notebook: Notebook, code: str) -> None:
    running, expected = CALLS[code]
    notebook.kernel.run("emu.runtime('notebook').reset()")
    interrupt(notebook, code, running=running)
    settle(notebook)
    (message,) = messages(notebook)
    # In the body of the loop, or still at its first item.
    assert message in expected


def test_a_job_of_an_earlier_cell_is_left_by_a_cell_that_waits_for_it(notebook: Notebook) -> None:
    notebook.kernel.run("job = emu.submit('loop')\nstream = emu.stream('endless')")
    interrupt(notebook, "job.result()", running=2)
    assert notebook.kernel.run("print(job.status, stream.job_id in emu.lifecycle.unfinished())") == "running True"
    interrupt(notebook, "for item in stream: time.sleep(30)", running=2)
    assert attempt(notebook, "%cmemu cancel loop").strip() == "Cancelled 1 job."
    settle(notebook)


def test_a_function_that_is_mended_while_it_hangs_says_how_to_end_the_old_one(notebook: Notebook) -> None:
    cell = "@emu.function\ndef hangs(context, event):\n    {}"
    notebook.kernel.run(cell.format("while True: time.sleep(.01)"))
    notebook.kernel.run(
        "jobs = [emu.submit('hangs') for _ in range(3)]\nwhile emu.functions['hangs'].running < 3: pass"
    )
    said = notebook.kernel.run(cell.format("return 'mended'"))
    assert said == "3 jobs of hangs's earlier version still run. %cmemu cancel hangs ends them."
    assert notebook.kernel.run("print(emu.call('hangs'))") == "mended"
    assert "Cancelled 3 jobs." in attempt(notebook, "%cmemu cancel hangs")
    settle(notebook)
    assert notebook.kernel.run(cell.format("return 'again'")) == ""
    assert "There is nothing to cancel" in attempt(notebook, "%cmemu cancel hangs")
    assert "'nobody'. No job is queued or running." in attempt(notebook, "%cmemu cancel nobody")


EVERY_MOMENT = """
import warnings

@emu.function
def brief(context, event):
    for _ in range(10): time.sleep(.002)

unfinished = []
number = 0
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # interrupted before it begins, a coroutine is never awaited
    while interrupted_at(number, lambda: emu.call('brief', progress=False)):
        number += 3
        end = time.monotonic() + 10
        emu.home.run(asyncio.sleep(0.005))  # what was submitted in this moment
        while emu.lifecycle.unfinished() and time.monotonic() < end:
            emu.home.run(asyncio.sleep(0.005))  # what is cancelled ends when its thread runs again
        unfinished += emu.lifecycle.unfinished()
"""


def test_a_call_that_is_interrupted_at_any_moment_leaves_no_job(notebook: Notebook) -> None:
    notebook.kernel.run(cell_of(moments))
    said = notebook.kernel.run(f"{EVERY_MOMENT}print(number > 500, unfinished)", 120)
    assert said.splitlines()[-1] == "True []"
    settle(notebook)
    assert notebook.events("internal_error", "listener_failed", "log") == []
