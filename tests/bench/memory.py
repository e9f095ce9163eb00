"""Memory of a finished job with a query and a result of 1 KB, against those bytes alone in a list.

Each is measured in a process of its own, as growth of its resident memory after the log of events is full.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.figures import Figure, report
from bench.programs import KEEP_ALL, Server, serve_emulator
from bench.wire import Application, Executor

FILLED, OVER_HTTP = 100_000, 8_000
WARM_UP = 5_000
MOST = 600


def growth(command: str, count: int) -> float:
    """Return how many bytes of memory each of `count` takes that an emulator makes by a command of its own."""
    with serve_emulator(**KEEP_ALL) as server:
        server.ask(f"fill {WARM_UP}")
        before = _memory(server)
        server.ask(f"{command} {count}")
        return (_memory(server) - before) / count


def growth_over_http(count: int) -> float:
    """Return how many bytes of memory each job takes that clients submit, take and finish."""
    with serve_emulator(**KEEP_ALL) as server:
        server.ask(f"fill {WARM_UP}")
        application, executor = Application(server), Executor(server)
        before = 0.0
        for done in range(-WARM_UP // 10, count):
            if done == 0:
                before = _memory(server)
            application.submit()
            executor.work()
        return (_memory(server) - before) / count


def _memory(server: Server) -> float:
    server.ask("gc")
    return server.ask("memory")


def main() -> None:
    """Measure and report."""
    say = partial(Figure, "memory", unit="bytes")
    bare = growth("hold", FILLED)
    for what, each in (("finished job", growth("fill", FILLED)), ("finished over HTTP", growth_over_http(OVER_HTTP))):
        report(say(what, each, against="query and result in a list", base=bare))
        report(say(f"{what}: beyond query and result", each - bare, at_most=MOST))


if __name__ == "__main__":
    main()
