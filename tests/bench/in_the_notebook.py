"""An emulator in a kernel: how fast it answers beside cells and a dashboard, and how little it holds the kernel up.

The same ipykernel runs three times: with the emulator on the kernel's loop, with it on a thread, and without one. Every
situation comes again in several turns, so that a busy moment of the machine falls on all of them.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.figures import Figure, report
from bench.notebook import Notebook, open_notebook
from bench.programs.dashboard_load import load
from bench.wire import Application, Executor, cycle
from kernels.driver import running_cell, wait_until
from kernels.notebooks import start_executor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.dashboard_browser import Browser

LONG = bool(os.environ.get("CMEMU_LONG"))
VERSIONS = ("7.4", "7.3", "6.30") if LONG else ("7.4",)
TURNS, COUNT, WARM_UP, CELLS = 8, 30, 8, 60
CLOSER, SLOWER, SYNC_MS, HELD_MS = 1.15, 1.2, 6.0, 10.0
JOBS_PER_SECOND, LOAD_SECONDS = 1000, 4.0

IDLE, COMPUTES, DASHBOARD = "idle", "a cell computes", "a dashboard is open"
WAITING = {
    "a cell sleeps": "import time; time.sleep(600)",
    "a cell awaits": "import asyncio\nwhile True: await asyncio.sleep(0.1)",  # a quiet loop is deaf to interrupts
}
CELL_CODE = {**WAITING, COMPUTES: "number = 0\nwhile True: number += 1"}
SITUATIONS = (IDLE, *CELL_CODE, DASHBOARD)


# Answers


@dataclass
class Waits:
    """The milliseconds of each of many jobs, and of the kernel's processor time for all of them."""

    times: list[float] = field(default_factory=list)
    cpu: float = 0.0

    def add(self, browser: Browser, work: Callable[[], object]) -> None:
        """Time a job many times, after some to warm up."""
        for _ in range(WARM_UP):
            work()
        cpu = browser.cpu()
        for _ in range(COUNT):
            start = time.perf_counter()
            work()
            self.times.append((time.perf_counter() - start) * 1000)
        self.cpu += (browser.cpu() - cpu) * 1000

    @property
    def median(self) -> float:
        """The median of the times."""
        return statistics.median(self.times)

    @property
    def cpu_each(self) -> float:
        """The processor time of one."""
        return self.cpu / len(self.times)


@dataclass
class Clients:
    """A notebook, the clients outside, and how long they waited in each situation."""

    notebook: Notebook
    round_trips: defaultdict[str, Waits] = field(default_factory=lambda: defaultdict(Waits))
    executes: defaultdict[str, Waits] = field(default_factory=lambda: defaultdict(Waits))

    def __post_init__(self) -> None:
        self._cycled, self._outside = (Application(self.notebook, number) for number in range(2))
        self._executor = Executor(self.notebook)

    def measure(self, situation: str) -> None:
        """Time both ways to run a job while a situation lasts."""
        with self._lasting(situation):
            self.round_trips[situation].add(self.notebook.browser, partial(cycle, self._cycled, self._executor))
            self.executes[situation].add(self.notebook.browser, self._outside.execute)

    @contextlib.contextmanager
    def _lasting(self, situation: str) -> Iterator[None]:
        browser = self.notebook.browser
        if situation in CELL_CODE:
            with running_cell(browser, CELL_CODE[situation]) as cell:
                yield
            browser.interrupt()
            wait_until(lambda: cell.status is not None, "the end of the cell")
        elif situation == DASHBOARD:
            with dashboard(self.notebook):
                yield
        else:
            yield


@contextlib.contextmanager
def dashboard(notebook: Notebook) -> Iterator[None]:
    """Look at the jobs in a dashboard."""
    browser = notebook.browser
    window = (browser.windows or browser.open_windows(1))[0]
    browser.look(window, {"tab": "jobs"})
    wait_until(lambda: browser.shows(window), "the dashboard")
    yield
    browser.say(window, "close")


def report_answers(say: Callable[..., Figure], kernel: Clients, thread: Clients) -> None:
    """Report the medians: against the thread's, while a cell waits also against an idle kernel's."""
    for what, ours, theirs in (
        ("round trip", kernel.round_trips, thread.round_trips),
        ("sync execute", kernel.executes, thread.executes),
    ):
        for situation in SITUATIONS:
            case, base = ours[situation], theirs[situation]
            report(say(f"{what}, {situation}", case.median, "ms", "ThreadHome", base.median, CLOSER))
            if situation != COMPUTES:
                report(say(f"{what}, {situation}: CPU", case.cpu_each, "ms", "ThreadHome", base.cpu_each, CLOSER))
        for situation in WAITING:
            case, idle = ours[situation], ours[IDLE]
            report(say(f"{what}, {situation}, and idle", case.median, "ms", IDLE, idle.median, SLOWER))
            report(say(f"{what}, {situation}, and idle: CPU", case.cpu_each, "ms", IDLE, idle.cpu_each, SLOWER))
    report(say(f"sync execute, {COMPUTES}: p50", kernel.executes[COMPUTES].median, "ms", at_most=SYNC_MS))


# What the kernel feels


def report_cells(say: Callable[..., Figure], bare: Notebook, busy: dict[str, Notebook]) -> None:
    """Report how long a trivial cell takes from its request to its reply, and how late a timer of the kernel's loop is.

    The emulator is idle at first, then it does a thousand jobs a second.
    """
    every = {"": bare, **busy}
    idle = _cells(every)
    for home in busy:
        report(say(f"a trivial cell, {home} idle", idle[home], "ms", "no emulator", idle[""]))
    for home, notebook in busy.items():
        with _working(notebook):
            working = _cells({"": bare, home: notebook})
            late, held, rate = _late(notebook)
        doing = f"{home} at {JOBS_PER_SECOND:,} jobs a second"
        report(say(f"a trivial cell, {doing}", working[home], "ms", "no emulator", working[""]))
        report(say(f"{doing}: done", rate, "jobs a second"))
        report(say(f"the kernel's loop is late, {doing}: median", statistics.median(late), "ms"))
        report(say(f"the kernel's loop is late, {doing}: p99", statistics.quantiles(late, n=100)[98], "ms"))
        report(say(f"the kernel's loop is late, {doing}: most", max(late), "ms", at_most=HELD_MS))
        report(say(f"the kernel's loop is held, {doing}: CPU, most", max(held), "ms", at_most=HELD_MS))


def _cells(every: dict[str, Notebook]) -> dict[str, float]:
    """Return the median milliseconds of a trivial cell in each, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in every}
    for _ in range(CELLS):
        for name, notebook in every.items():
            times[name].append(notebook.browser.time_cell("1") * 1000)
    return {name: statistics.median(each) for name, each in times.items()}


@contextlib.contextmanager
def _working(notebook: Notebook) -> Iterator[None]:
    with load(notebook, JOBS_PER_SECOND) as both:
        both.say("+")
        yield


def _late(notebook: Notebook) -> tuple[list[float], list[float], float]:
    """Return how late the timer came, how much processor time its thread had meanwhile, and the jobs a second."""
    notebook.browser.run("meter.start()")
    time.sleep(LOAD_SECONDS)
    found: dict[str, Any] = notebook.browser.ask("meter.stop()")
    return found["late"], found["held"], found["jobs"] / found["seconds"]


def measure(version: str) -> None:
    """Measure one ipykernel."""
    say = partial(Figure, f"in_the_notebook, ipykernel {version}")
    with (
        open_notebook(version, "kernel") as kernel,
        open_notebook(version, "thread") as thread,
        open_notebook(version, "") as bare,
    ):
        both = [Clients(kernel), Clients(thread)]
        with contextlib.ExitStack() as executors:
            for each in (kernel, thread):
                executors.enter_context(start_executor(each.outside, each.module_tokens[1]))
            for _ in range(TURNS):
                for situation in SITUATIONS:
                    for clients in both:
                        clients.measure(situation)
        report_answers(say, *both)
        report_cells(say, bare, {"KernelHome": kernel, "ThreadHome": thread})


def main() -> None:
    """Measure and report."""
    for version in VERSIONS:
        measure(version)


if __name__ == "__main__":
    main()
