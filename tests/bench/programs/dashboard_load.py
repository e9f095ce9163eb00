"""Two processes that keep jobs going through an emulator: one submits, one executes.

`dashboard_load.py submit ...` and `dashboard_load.py execute ...` are the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from bench.dashboard_meter import HISTORY, query
from bench.wire import CONTOUR
from kernels.notebooks import APP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.notebook import Notebook

IN_FLIGHT, CONNECTIONS = 12, 4
PACE_SECONDS = 0.001
ANY_PACE = 1e6


class Connection(asyncio.Protocol):
    """A kept connection of raw HTTP, one request at a time; `done(connection, body)` is called with each answer."""

    def __init__(self, done: Callable[[Connection, bytes], None]) -> None:
        self._done = done
        self._buffer = b""
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def send(self, request: bytes) -> None:
        """Send a request."""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take a piece of the answer; anything but 2xx ends the process."""
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        assert head[9:10] == b"2", self._buffer
        self._buffer = b""
        self._done(self, body)


async def connect(netloc: str, done: Callable[[Connection, bytes], None]) -> list[Connection]:
    """Open the connections."""
    host, _, port = netloc.partition(":")
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(partial(Connection, done), host, int(port)))[1] for _ in range(CONNECTIONS)]


def request(netloc: str, method: str, path: str, headers: str, body: bytes = b"") -> bytes:
    """Return the bytes of a request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {netloc}\r\n{headers}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Submitter:
    """Submits a job for each byte that it reads, while "+" was the last that its standard input said.

    It submits so many a second at most.
    """

    def __init__(self, url: str, token: str, most_a_second: float) -> None:
        self._netloc = urlsplit(url).netloc
        self._headers = f"Authorization: Bearer {token}"
        self._free: deque[Connection] = deque()
        self._slots, self._number, self._open = 0, HISTORY, False
        self._pace, self._allowed, self._paced_at = most_a_second, 0.0, time.monotonic()

    async def run(self, slots: int) -> None:
        """Work until the input ends."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        self._free.extend(await connect(self._netloc, self._accepted))
        loop.add_reader(slots, self._add_slots, slots)
        loop.add_reader(0, self._hear, ended)
        self._allow()
        await ended.wait()

    def _allow(self) -> None:
        now = time.monotonic()
        self._allowed = min(self._allowed + self._pace * (now - self._paced_at), IN_FLIGHT)
        self._paced_at = now
        self._submit()
        asyncio.get_running_loop().call_later(PACE_SECONDS, self._allow)

    def _add_slots(self, slots: int) -> None:
        self._slots += len(os.read(slots, 65_536))
        self._submit()

    def _hear(self, ended: asyncio.Event) -> None:
        said = os.read(0, 65_536)
        self._open = said.endswith(b"+")
        self._submit()
        if not said:
            ended.set()

    def _accepted(self, connection: Connection, _: bytes) -> None:
        self._free.append(connection)
        self._submit()

    def _submit(self) -> None:
        while self._open and self._slots and self._free and self._allowed >= 1:
            self._allowed -= 1
            self._slots -= 1
            self._number += 1
            text = query(self._number).decode()
            body = f'{{"deployedAppRid":"{APP}","queryType":"echo","query":{text}}}'.encode()
            path = f"{CONTOUR}/deployed-apps/jobs"
            self._free.popleft().send(request(self._netloc, "POST", path, self._headers, body))


class Executor:
    """Takes jobs and posts their queries as results; writes a byte for each."""

    def __init__(self, base: str, token: str, slots: int) -> None:
        parts = urlsplit(base)
        self._netloc, self._path, self._slots = parts.netloc, parts.path, slots
        self._headers = f"Module-Auth-Token: {token}"
        headers = f"{self._headers}\r\nPrefer: wait=30"
        self._poll = request(self._netloc, "GET", f"{self._path}/job", headers)
        self._posting: set[Connection] = set()

    async def run(self) -> None:
        """Work until the process is ended."""
        for connection in await connect(self._netloc, self._go_on):
            connection.send(self._poll)
        await asyncio.Event().wait()

    def _go_on(self, connection: Connection, body: bytes) -> None:
        if body:
            job = json.loads(body)["computeModuleJobV1"]
            result = json.dumps(job["query"]).encode()
            path = f"{self._path}/results/{job['jobId']}"
            self._posting.add(connection)
            connection.send(request(self._netloc, "POST", path, self._headers, result))
            return
        if connection in self._posting:
            self._posting.discard(connection)
            os.write(self._slots, b".")
        connection.send(self._poll)


class Load:
    """The two processes; "+" lets jobs through, "-" ends that."""

    def __init__(self, submitter: subprocess.Popen[bytes]) -> None:
        self._submitter = submitter

    def say(self, what: str) -> None:
        """Tell the submitter."""
        assert self._submitter.stdin is not None
        self._submitter.stdin.write(what.encode())
        self._submitter.stdin.flush()


@contextlib.contextmanager
def load(notebook: Notebook, most_a_second: float = ANY_PACE) -> Iterator[Load]:
    """Start both for the runtime `outside`, with a pipe that keeps the number of unfinished jobs as it is."""
    reads, writes = os.pipe()
    os.write(writes, b"." * IN_FLIGHT)
    program = [sys.executable, __file__]
    submit = [*program, "submit", notebook.url, notebook.token, str(most_a_second), str(reads)]
    execute = [*program, "execute", notebook.outside, notebook.module_tokens[1], str(writes)]
    with (
        subprocess.Popen(submit, stdin=subprocess.PIPE, pass_fds=[reads]) as submitter,
        subprocess.Popen(execute, pass_fds=[writes]) as executor,
    ):
        try:
            yield Load(submitter)
        finally:
            submitter.kill()
            executor.kill()
            os.close(reads)
            os.close(writes)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["submit", url, token, most_a_second, slots]:
            asyncio.run(Submitter(url, token, float(most_a_second)).run(int(slots)))
        case ["execute", base, token, slots]:
            asyncio.run(Executor(base, token, int(slots)).run())
