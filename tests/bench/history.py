"""What a job costs after a million others, and what those cost who wait: processor time of the emulator.

An emulator with a history and one without take turns, a few cycles each, so that both meet the same machine. A cycle is
submit, poll, result, status and fetch.
"""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.figures import Figure, report
from bench.programs import KEEP_ALL, Server, serve_emulator
from bench.wire import CONTOUR, QUERY, Application, Executor, cycle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HISTORIES = (1_000, 10_000, 100_000, 1_000_000)
CYCLES, POLLS, TURN = 200, 1_000, 20
MOST = 1.1
WAITING, REST_SECONDS = 2_000, 6.0
MOST_AT_REST = 2.0
IDLE_RUNTIME, WAITED_RUNTIME = 6, 7


class Client:
    """An application and an executor of one emulator."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._application, self._executor = Application(server), Executor(server)

    def cycles(self, count: int) -> float:
        """Return the processor time of so many cycles."""
        return self._cost(lambda: cycle(self._application, self._executor), count)

    def polls(self, count: int) -> float:
        """Return the processor time of so many polls that find nothing."""
        return self._cost(self._executor.poll, count)

    def collections(self, count: int) -> float:
        """Return the processor time of so many full collections of garbage, as anything in the process may cause."""
        return self._cost(lambda: self.server.ask("gc"), count)

    def _cost(self, work: Callable[[], object], count: int) -> float:
        before = self.server.cpu()
        for _ in range(count):
            work()
        return self.server.cpu() - before


def in_turns(ours: Callable[[int], float], others: Callable[[int], float], count: int) -> tuple[float, float]:
    """Return the processor time of one of each in milliseconds, after a turn to warm up."""
    ours(TURN)
    others(TURN)
    times = [(ours(TURN), others(TURN)) for _ in range(count // TURN)]
    return sum(each for each, _ in times) * 1000 / count, sum(each for _, each in times) * 1000 / count


def measure_history() -> None:
    """Report what cycles and polls cost after more and more finished jobs."""
    say = partial(Figure, "history", unit="ms", against="with no history", at_most=MOST)
    with serve_emulator(**KEEP_ALL) as server, serve_emulator(**KEEP_ALL) as empty:
        old, new = Client(server), Client(empty)
        old.cycles(CYCLES)
        new.cycles(CYCLES)
        there = 0
        for history in HISTORIES:
            server.ask(f"fill {history - there}")
            there = history
            cost, base = in_turns(old.cycles, new.cycles, CYCLES)
            report(say(f"cycle after {history:,} jobs", cost, base=base))
            cost, base = in_turns(old.polls, new.polls, POLLS)
            report(say(f"empty poll after {history:,} jobs", cost, base=base))
        cost, base = in_turns(old.collections, new.collections, TURN)
        report(say(f"garbage collection after {there:,} jobs", cost, base=base, at_most=None))


def requests_that_wait(server: Server) -> tuple[bytes, bytes]:
    """Return a sync execute that nobody serves, and a poll for which there is no job."""
    host = urlsplit(server.url).netloc
    body = json.dumps({"deployedAppRid": server.apps[WAITED_RUNTIME], "queryType": "f", "query": QUERY}).encode()
    execute = (
        f"POST {CONTOUR}/compute-modules/jobs/execute HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: Bearer {server.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    poll = (
        f"GET /_emulate/foundry/compute-modules/runtimes/r{IDLE_RUNTIME}/job HTTP/1.1\r\nHost: {host}\r\n"
        f"Module-Auth-Token: {server.module_tokens[IDLE_RUNTIME]}\r\nPrefer: wait=60\r\n\r\n"
    )
    return execute.encode() + body, poll.encode()


@contextlib.contextmanager
def held(server: Server) -> Iterator[None]:
    """Have sync clients and long polls wait, each on a connection of its own."""
    host = urlsplit(server.url)
    assert host.hostname is not None
    assert host.port is not None
    with contextlib.ExitStack() as connections:
        sockets = []
        for request in requests_that_wait(server):
            for _ in range(WAITING):
                connection = connections.enter_context(socket.create_connection((host.hostname, host.port), timeout=60))
                connection.sendall(request)
                sockets.append(connection)
        wait_until_idle(server)
        yield
        for connection in sockets:
            connection.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                raise AssertionError(connection.recv(1 << 16))  # it was to wait


def wait_until_idle(server: Server) -> None:
    """Wait until a server has nothing to do."""
    deadline = time.monotonic() + 60
    while share(server, 0.5) > 1:
        assert time.monotonic() < deadline, "the emulator is not at rest"


def share(server: Server, seconds: float) -> float:
    """Return how many percent of a core a server uses."""
    before, start = server.cpu(), time.perf_counter()
    time.sleep(seconds)
    return (server.cpu() - before) * 100 / (time.perf_counter() - start)


def measure_waiting() -> None:
    """Report what those cost who wait: by themselves, and those who work beside them."""
    say = partial(Figure, "history", against="with nobody waiting")
    patient = {**KEEP_ALL, "execute_timeout": 600.0}
    with serve_emulator(**patient) as server, serve_emulator(**patient) as empty:
        full, alone = Client(server), Client(empty)
        full.cycles(TURN)
        alone.cycles(TURN)
        with held(server):
            before, start = [each.cpu() for each in (server, empty)], time.perf_counter()
            time.sleep(REST_SECONDS)
            seconds = time.perf_counter() - start
            busy, idle = ((each.cpu() - was) * 100 / seconds for each, was in zip((server, empty), before, strict=True))
            cost, base = in_turns(full.cycles, alone.cycles, CYCLES)
        who = f"{WAITING:,} sync clients and {WAITING:,} long polls"
        report(say(f"{who} at rest", busy - idle, "% of a core", at_most=MOST_AT_REST))
        report(say(f"cycle beside {who}", cost, "ms", base=base, at_most=MOST))


def main() -> None:
    """Measure and report."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    measure_waiting()
    measure_history()


if __name__ == "__main__":
    main()
