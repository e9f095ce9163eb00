"""Clients outside never stop calling, while cells of every kind run and are interrupted at any moment."""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import moments
import pytest
from kernels.driver import cell_of, wait_until

if TYPE_CHECKING:
    from kernels.driver import Cell
    from kernels.notebooks import Notebook

pytestmark = pytest.mark.kernels

SECONDS = 300 if os.environ.get("CMEMU_LONG") else 3
CLIENTS = 4
CELLS = [
    "import time; time.sleep(5)",
    "while True: sum(range(1000))",
    "import asyncio\nwhile True: await asyncio.sleep(0.001)",
    "import asyncio, time\nwhile True:\n    await asyncio.sleep(0.01)\n    time.sleep(0.02)",
    "while True: emu.call('echo', 'sync')",
    "while True: await emu.acall('echo', 'async')",
    "import asyncio\nwhile True: await asyncio.gather(*(emu.acall('echo', i) for i in range(10)))",
    "import urllib.request\nwhile True: urllib.request.urlopen(emu.url + '/_emulate/health').read()",
    "while True: emu.jobs; emu.events",
]
EVERY_MOMENT = """
import asyncio, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # interrupted before it begins, a coroutine is never awaited
    number = 0
    while interrupted_at(number, lambda: emu.home.run(asyncio.sleep(0.01))):
        number += 1
        emu.change(lambda lifecycle: None)
"""


def ended_within(cell: Cell, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while cell.status is None and time.monotonic() < end:
        time.sleep(0.01)
    return cell.status is not None


def call_until(notebook: Notebook, end: float, client: int, wrong: list[str]) -> int:
    """Call one function after the other; returns how many."""
    number = 0
    while time.monotonic() < end and not wrong:
        number += 1
        sent = [client, number]
        try:
            if notebook.execute(query=sent) != sent:
                wrong.append(f"another's result for {sent}")
        except OSError as error:
            wrong.append(f"{sent}: {error!r}")
    return number


def run_and_interrupt(notebook: Notebook, code: str, delay: float) -> None:
    """Interrupt a cell at some moment; one press of the button at a time, and none when it has been heard.

    ipykernel itself, without any emulator, loses its signal handler or its reply in a burst of interrupts, and to
    one that comes before the cell has begun or while it ends by itself, so these cells never end.
    """
    cell = notebook.kernel.send(f"print('begun', flush=True)\n{code}")
    wait_until(lambda: "begun" in cell.text or cell.status is not None, "the cell's beginning")
    time.sleep(delay)
    for _ in range(8):
        if cell.error is None and cell.status is None:
            notebook.kernel.interrupt()
        if ended_within(cell, 4):
            return
    raise AssertionError(f"an interrupted cell goes on: {code}")


def test_no_call_is_lost_crossed_or_hung_and_the_kernel_lives(notebook: Notebook) -> None:
    chance = random.Random(20261123)
    end = time.monotonic() + SECONDS
    wrong: list[str] = []
    with ThreadPoolExecutor(CLIENTS) as pool:
        calls = [pool.submit(call_until, notebook, end, client, wrong) for client in range(CLIENTS)]
        while time.monotonic() < end and not wrong:
            run_and_interrupt(notebook, chance.choice(CELLS), chance.uniform(0, 0.5))
            notebook.kernel.run("x = 1")
    assert wrong == []
    assert all(call.result() for call in calls)
    assert notebook.kernel.alive()
    assert notebook.kernel.run("print(emu.call('echo', 'alive'))") == "alive"
    assert notebook.events("internal_error", "listener_failed", "log") == []
    # The executor outside runs the last of them to their ends, those that were cancelled too.
    wait_until(lambda: notebook.kernel.run("print(emu.lifecycle.unfinished())") == "[]", "no job is left")


def test_a_call_can_be_interrupted_at_any_moment(notebook: Notebook) -> None:
    notebook.kernel.run(cell_of(moments))
    notebook.kernel.run(EVERY_MOMENT)
    assert int(notebook.kernel.run("print(number)")) > 100
    assert notebook.execute(query="after") == "after"
    assert notebook.kernel.run("print(emu.call('echo', 'alive'))") == "alive"
    assert notebook.events("internal_error", "listener_failed", "log") == []
