"""What a function in a cell costs beside calling it, maps of many jobs, and calls of a launched module of the SDK.

The floor of a function in a cell is the four requests that its job takes: its submission, the poll that gets it, the
post of its result, and the fetch of that. They go through the same HTTP client to a Tornado server with constant
answers, `RequestHandler`s on the client's own loop as the emulator's server is; there is nothing else: no threads, no
job, no JSON. The floor and each way to call take turns, a slice at a time, so that a busy moment falls on all.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))

from bench.figures import Figure, report
from bench.programs.ceiling import ANSWERS, CONTOUR, QUERY, RUNTIMES, handler
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from cmemu_nb import Emulator
from cmemu_nb.clients.http import HttpClient
from cmemu_nb.eventloop.home import ThreadHome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

SLICES, JOBS, WARM_UP = 10, 192, 192
MAPPED = 1600
MODULE_CALLS = 150
WIDE = 16
MOST = 1.6
MODULE_APP = "ri.foundry.main.deployed-app.python_module"
SUBMIT = {"Authorization": f"Bearer {'t' * 43}", "Content-Type": "application/json"}
WORK = {"Module-Auth-Token": "m" * 43, "Content-Type": "application/octet-stream"}


def double(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG001 - as in a cell
    return event["x"] * 2


# The floor


class Floor:
    """A server with constant answers and clients that send the requests of a job, on one loop."""

    def __init__(self, url: str) -> None:
        self._application, self._executor = HttpClient(url), HttpClient(url)

    async def job(self) -> None:
        """Send what a job takes: what is asked for is there at once."""
        await self._application.request("POST", f"{CONTOUR}/deployed-apps/jobs", SUBMIT, QUERY)
        await self._executor.request("GET", f"{RUNTIMES}/notebook/job", {**WORK, "Prefer": "wait=60"})
        await self._executor.request("POST", f"{RUNTIMES}/notebook/results/foundry_job_1", WORK, b"42")
        fetch = {**SUBMIT, "Prefer": "wait=60"}
        await self._application.request("PUT", f"{CONTOUR}/jobs/result/v2", fetch, b'{"id":"foundry_job_1"}')

    async def close(self) -> None:
        """Close the clients."""
        self._application.close()
        self._executor.close()


@contextlib.contextmanager
def floor(home: ThreadHome) -> Iterator[Floor]:
    """Serve the constant answers on the home's loop."""

    async def start() -> tuple[HTTPServer, Floor]:
        server = HTTPServer(Application([(path, handler(answer)) for path, answer in ANSWERS.items()]))
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        return server, Floor(f"http://127.0.0.1:{sockets[0].getsockname()[1]}")

    server, clients = home.run(start())
    try:
        yield clients
    finally:
        home.run(clients.close())
        server.stop()


# Many at once, or one after the other


async def several(work: Callable[[], Awaitable[object]], count: int, at_once: int) -> None:
    """Do something many times, so many of them at once."""

    async def some() -> None:
        for _ in range(count // at_once):
            await work()

    await asyncio.gather(*(some() for _ in range(at_once)))


def one_after_the_other(emulator: Emulator, count: int) -> None:
    """Call the function again and again, in a thread as a cell does."""
    for number in range(count):
        assert emulator.call("double", {"x": number}) == 2 * number


@dataclass
class Cost:
    """Milliseconds of a job, and of its processor time."""

    time: float = 0.0
    cpu: float = 0.0


def in_turns(ways: dict[str, Callable[[int], object]]) -> dict[str, Cost]:
    """Return what a job costs each way, measured slice by slice in turns."""
    found = {name: Cost() for name in ways}
    each = 1000 / (SLICES * JOBS)
    for run in ways.values():
        run(WARM_UP)
    for _ in range(SLICES):
        for name, run in ways.items():
            start, cpu = time.perf_counter(), time.process_time()
            run(JOBS)
            found[name].time += (time.perf_counter() - start) * each
            found[name].cpu += (time.process_time() - cpu) * each
    return found


def functions(emulator: Emulator, clients: Floor, home: ThreadHome) -> None:
    """Report what a job costs beside the bare function, one at a time and many at once."""
    emulator.function(double)

    def call_many(count: int) -> None:
        asyncio.run(several(partial(emulator.acall, "double", {"x": 21}), count, WIDE))

    def bare(count: int) -> None:
        for _ in range(count):
            double(None, {"x": 21})  # type: ignore[no-untyped-call]

    found = in_turns(
        {
            "bare": bare,
            "floor": lambda count: home.run(several(clients.job, count, 1)),
            "wide floor": lambda count: home.run(several(clients.job, count, WIDE)),
            "call": partial(one_after_the_other, emulator),
            "acall": call_many,
        }
    )
    say = partial(Figure, "cell_functions", unit="ms", against="its requests alone", at_most=MOST)
    for what, way, floor_of in (
        ("emu.call, beside the function", "call", "floor"),
        (f"emu.acall, {WIDE} at once, beside the function", "acall", "wide floor"),
    ):
        base, bare_cost = found[floor_of], found["bare"]
        report(say(f"{what}: time", found[way].time - bare_cost.time, base=base.time))
        report(say(f"{what}: CPU", found[way].cpu - bare_cost.cpu, base=base.cpu))


def rate(work: Callable[[], object], count: int) -> float:
    """Return how many a second were done."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def maps(emulator: Emulator) -> None:
    """Report the jobs a second of a map."""
    queries = [{"x": number} for number in range(MAPPED)]
    emulator.map("double", queries[:WARM_UP], progress=False)
    jobs = rate(lambda: emulator.map("double", queries, progress=False), MAPPED)
    report(Figure("cell_functions", f"emu.map of {MAPPED:,} queries", jobs, "jobs a second"))


def launched_module(emulator: Emulator) -> None:
    """Report the calls a second of the official SDK's module in a process of its own."""
    emulator.launch(f"python {TESTS / 'programs' / 'python_module.py'}").wait_until_responsive()
    queries = [{"n": number} for number in range(MODULE_CALLS)]

    def call_each() -> None:
        for query in queries:
            assert emulator.call("echo", query, MODULE_APP) == query

    call_each()
    report(Figure("cell_functions", "a launched SDK module", rate(call_each, MODULE_CALLS), "calls a second"))


def main() -> None:
    """Measure and report."""
    home = ThreadHome(lambda: None)
    with Emulator(port=0, home="thread", max_concurrent_tasks=WIDE) as emulator, floor(home) as clients:
        functions(emulator, clients, home)
        maps(emulator)
        launched_module(emulator)
    home.close()


if __name__ == "__main__":
    main()
