"""A client that costs next to nothing, so that a server's share of the machine is its own; and the cycle of a job."""

from __future__ import annotations

import json
import socket
from typing import Protocol
from urllib.parse import urlsplit

CONTOUR = "/contour-backend-multiplexer/api/module-group-multiplexer"
QUERY = {"text": "x" * 1000}
RESULT = b"y" * 1000
WAIT = {"Prefer": "wait=30"}


class Address(Protocol):
    """What the clients of a server need: its address and token, the apps of its runtimes and the runtimes' tokens."""

    url: str
    token: str
    apps: list[str]
    module_tokens: list[str]


class Wire:
    """One connection that is kept, with the headers that go with every request."""

    def __init__(self, url: str, **headers: str) -> None:
        host = urlsplit(url)
        self._socket = socket.create_connection((host.hostname, host.port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent = {"Host": host.netloc, **{name.replace("_", "-"): value for name, value in headers.items()}}
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        self._read = bytearray()

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        """Send a request and return the answer's body; anything but 2xx ends the benchmark."""
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        self._socket.sendall(f"{method} {path} HTTP/1.1\r\n{self._headers}{more}{length}\r\n".encode() + (body or b""))
        while (end := self._read.find(b"\r\n\r\n")) < 0:
            self._receive()
        head, rest = bytes(self._read[:end]).lower(), end + 4
        assert head.startswith(b"http/1.1 2"), bytes(self._read)
        size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
        while len(self._read) < rest + size:
            self._receive()
        answer = bytes(self._read[rest : rest + size])
        del self._read[: rest + size]
        return answer

    def _receive(self) -> None:
        piece = self._socket.recv(1 << 16)
        assert piece, "the server has closed the connection"
        self._read += piece

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class Application:
    """A client of the contour routes, which submits jobs and fetches their results."""

    def __init__(self, server: Address, app: int = 0) -> None:
        self.wire = Wire(server.url, Authorization=f"Bearer {server.token}")
        job = {"deployedAppRid": server.apps[app], "queryType": "f", "query": QUERY}
        self._job = json.dumps(job).encode()

    def submit(self) -> str:
        """Submit a job and return its id."""
        job_id: str = json.loads(self.wire.request("POST", f"{CONTOUR}/deployed-apps/jobs", self._job))["id"]
        return job_id

    def fetch(self, job_id: str, *, waits: bool = False) -> None:
        """Ask for a job's status, and fetch its result."""
        self.wire.request("GET", f"{CONTOUR}/jobs/{job_id}/status", headers=WAIT if waits else None)
        self.wire.request("PUT", f"{CONTOUR}/jobs/result/v2", json.dumps({"id": job_id}).encode())

    def execute(self) -> bytes:
        """Run the function through the sync route."""
        return self.wire.request("POST", f"{CONTOUR}/compute-modules/jobs/execute", self._job)


class Executor:
    """A client of the emulator routes, which takes jobs and posts their results."""

    def __init__(self, server: Address, app: int = 0) -> None:
        self.wire = Wire(server.url, Module_Auth_Token=server.module_tokens[app])
        self._base = f"/_emulate/foundry/compute-modules/runtimes/r{app}"

    def take(self, *, waits: bool = True) -> str:
        """Take one job and return its id; an empty one when there is none."""
        taken = self.wire.request("GET", f"{self._base}/job", headers=WAIT if waits else None)
        job_id: str = json.loads(taken)["computeModuleJobV1"]["jobId"] if taken else ""
        return job_id

    def work(self, *, waits: bool = False) -> None:
        """Take one job and post its result."""
        job_id = self.take(waits=waits)
        if job_id:
            self.wire.request("POST", f"{self._base}/results/{job_id}", RESULT)

    def poll(self) -> None:
        """Ask for a job where there is none."""
        assert self.wire.request("GET", f"{self._base}/job") == b""


def cycle(application: Application, executor: Executor) -> None:
    """Submit a job, take it, post its result, ask for its status, fetch the result: five requests."""
    job_id = application.submit()
    executor.work()
    application.fetch(job_id)
