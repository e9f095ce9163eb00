"""Round trips of a job, five requests each, against constant answers of Tornado: processor time of the server.

Submitters and workers are threads of this process; a worker serves one runtime, and asks with `Prefer: wait` when there
are several of either.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.figures import Figure, report
from bench.programs import Server, serve, serve_emulator
from bench.wire import Application, Executor, cycle

CYCLES = 1920
WARM_UP = 192
MOST = 1.15
PAIRS = ((1, 1), (8, 1), (64, 1), (8, 8), (64, 8))


def submit_and_fetch(application: Application, count: int) -> None:
    """Be a submitter: wait for each job before the next."""
    for _ in range(count):
        application.fetch(application.submit(), waits=True)


def work(executor: Executor, count: int) -> None:
    """Be a worker."""
    for _ in range(count):
        executor.work(waits=True)


def measure(server: Server, submitters: int, workers: int) -> tuple[float, float]:
    """Return the server's processor time and the time of a round trip, in milliseconds."""
    applications = [Application(server, number % workers) for number in range(submitters)]
    executors = [Executor(server, number) for number in range(workers)]
    alone = submitters == workers == 1

    def run(count: int) -> None:
        if alone:
            for _ in range(count):
                cycle(applications[0], executors[0])
            return
        with ThreadPoolExecutor(submitters + workers) as pool:
            jobs = [pool.submit(submit_and_fetch, each, count // submitters) for each in applications]
            jobs += [pool.submit(work, each, count // workers) for each in executors]
            for job in jobs:
                job.result()

    run(WARM_UP)
    cpu, start = server.cpu(), time.perf_counter()
    run(CYCLES)
    wall = time.perf_counter() - start
    for wire in [each.wire for each in applications] + [each.wire for each in executors]:
        wire.close()
    return (server.cpu() - cpu) * 1000 / CYCLES, wall * 1000 / CYCLES


def main() -> None:
    """Measure and report."""
    with serve_emulator() as emulator, serve("ceiling", "handlers") as handlers, serve("ceiling", "plain") as plain:
        for submitters, workers in PAIRS:
            (ours, wall), (most, wall_most), (least, _) = (
                measure(server, submitters, workers) for server in (emulator, handlers, plain)
            )
            who = f"{submitters} submitter{'s' * (submitters > 1)}, {workers} worker{'s' * (workers > 1)}"
            say = partial(Figure, "round_trip", unit="ms")
            report(say(f"{who}: CPU", ours, against="RequestHandler", base=most, at_most=MOST))
            report(say(f"{who}: CPU beside a callback", ours, against="HTTPServer callback", base=least))
            report(say(f"{who}: time", wall, against="RequestHandler", base=wall_most))


if __name__ == "__main__":
    main()
