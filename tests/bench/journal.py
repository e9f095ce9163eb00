"""What a journal costs: whole cycles of a job over HTTP, without one, with one, and with one that survives a power cut.

The three emulators are processes of their own and take turns; their clients are threads of this one.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.figures import Figure, report
from bench.programs import Server, serve_emulator
from bench.wire import Application, Executor, cycle

CLIENTS = (1, 8)
TURN, TURNS = 160, 6
PLAIN = "no journal"
JOURNALS: dict[str, dict[str, Any]] = {"journal": {}, "journal, full": {"journal_sync": "full"}}


class Crowd:
    """Clients of one emulator, each an application with the executor of its own runtime."""

    def __init__(self, server: Server, clients: int) -> None:
        self._server = server
        self._clients = [(Application(server, number), Executor(server, number)) for number in range(clients)]

    def turn(self) -> tuple[float, float]:
        """Do a turn's cycles, all clients at once; return a cycle's processor time and its time in milliseconds."""
        with ThreadPoolExecutor(len(self._clients)) as pool:
            cpu, start = self._server.cpu(), time.perf_counter()
            list(pool.map(self._be_one, *zip(*self._clients, strict=True)))
            seconds = time.perf_counter() - start
            return (self._server.cpu() - cpu) * 1000 / TURN, seconds * 1000 / TURN

    def _be_one(self, application: Application, executor: Executor) -> None:
        for _ in range(TURN // len(self._clients)):
            cycle(application, executor)


def measure(servers: dict[str, Server], clients: int) -> dict[str, list[float]]:
    """Return what a cycle takes on each of the servers, after a turn to warm up."""
    crowds = {name: Crowd(server, clients) for name, server in servers.items()}
    turns = [{name: crowd.turn() for name, crowd in crowds.items()} for _ in range(TURNS + 1)][1:]
    return {
        name: [statistics.fmean(each) for each in zip(*(turn[name] for turn in turns), strict=True)] for name in crowds
    }


def main() -> None:
    """Measure and report."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        servers = {PLAIN: running.enter_context(serve_emulator())}
        for name, settings in JOURNALS.items():
            journal = str(Path(folder, f"{len(servers)}.db"))
            servers[name] = running.enter_context(serve_emulator(journal=journal, **settings))
        for clients in CLIENTS:
            found = measure(servers, clients)
            say = partial(Figure, "journal", unit="ms", against=PLAIN)
            for name in JOURNALS:
                who = f"{clients} client{'s' if clients > 1 else ''}, {name}"
                for what, ours, plain in zip(("CPU", "time"), found[name], found[PLAIN], strict=True):
                    report(say(f"{who}: {what} of a cycle", ours, base=plain))


if __name__ == "__main__":
    main()
