"""Sync execute with an executor that waits, against three bare requests in a row to Tornado's `RequestHandler`.

Clients are threads of this process; emulator, executor and the bare server are three others.
"""

from __future__ import annotations

import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.figures import Figure, report
from bench.programs import executor_of, serve, serve_emulator
from bench.wire import Application

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.programs import Server

CALLS, WARM_UP = 3_200, 320
CLIENTS = (1, 16)


def three_bare(application: Application) -> None:
    """Send three requests, one after the other."""
    for _ in range(3):
        application.execute()


def durations(server: Server, clients: int, call: Callable[[Application], object]) -> list[float]:
    """Return the percentiles 1 to 99 of many calls, in milliseconds."""

    def work(application: Application, count: int) -> list[float]:
        taken = []
        for _ in range(count):
            start = time.perf_counter()
            call(application)
            taken.append((time.perf_counter() - start) * 1000)
        return taken

    applications = [Application(server) for _ in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(partial(work, count=WARM_UP // clients), applications))
        taken = [
            each for all_of_one in pool.map(partial(work, count=CALLS // clients), applications) for each in all_of_one
        ]
    for application in applications:
        application.wire.close()
    return statistics.quantiles(taken, n=100)


def main() -> None:
    """Measure and report."""
    with serve_emulator() as emulator, executor_of(emulator), serve("ceiling", "handlers") as bare:
        for clients in CLIENTS:
            three = durations(bare, clients, three_bare)
            execute = durations(emulator, clients, Application.execute)
            who = f"{clients} clients" if clients > 1 else "1 client"
            say = partial(Figure, "sync_execute", unit="ms")
            report(say(f"{who}: p50", execute[49], against="three bare requests", base=three[49], at_most=1.5))
            report(say(f"{who}: p95", execute[94], against="the same of three bare requests", base=three[94]))
            report(say(f"{who}: p99", execute[98], against="its own p50", base=execute[49], at_most=3))


if __name__ == "__main__":
    main()
