"""What the tests talk to an emulator with: its routes over `requests`, and HTTP byte by byte."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import requests

from cmemu_nb.errors import WireError
from cmemu_nb.foundry.dataset_writes import upload
from cmemu_nb.lifecycle.datasets import Reader, TransactionType
from cmemu_nb.server.application import ROUTES, SURFACES
from cmemu_nb.server.openapi.document import document
from cmemu_nb.server.routing import Router

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    from cmemu_nb.lifecycle.lifecycle import Lifecycle

T = TypeVar("T")

RUNTIMES = "/_emulate/foundry/compute-modules/runtimes"
CONTOUR = "/contour-backend-multiplexer/api/module-group-multiplexer"
EXECUTE = f"{CONTOUR}/compute-modules/jobs/execute"
SUBMIT = f"{CONTOUR}/deployed-apps/jobs"
RESULT = f"{CONTOUR}/jobs/result/v2"
RID = "ri.foundry.main.deployed-app.my-app"
MODULE_HEADER = "Module-Auth-Token"
API_ERROR = ("errorCode", "errorName", "errorInstanceId", "errorDescription")
DEADLINE = 30.0
ROUTER = Router(ROUTES)
DESCRIBED = document(SURFACES, "")["paths"]


def prepared_dataset(lifecycle: Lifecycle, path: str) -> dict[str, str]:
    """Make a dataset with a file and a schema, and return what the parameters of a route's path mean of it.

    For a route that ends a transaction there is an open one.
    """
    before = lifecycle.find_dataset("prepared")
    if before is not None:
        lifecycle.delete_dataset(before.dataset.rid)
    rid = lifecycle.create_dataset("prepared").rid
    transaction = upload(lifecycle, lifecycle.dataset(rid), "a/b.csv", b"id\n1\n").rid
    fields = b'[{"type":"LONG","name":"id","nullable":true}]'
    lifecycle.set_dataset_schema(rid, transaction, "master", fields, Reader.CSV)
    if path.endswith(("/commit", "/abort")):
        transaction = lifecycle.open_transaction(rid, TransactionType.APPEND).rid
    return {"datasetRid": rid, "transactionRid": transaction, "branchName": "master", "filePath": "a%2Fb.csv"}


def eventually(condition: Callable[[], T], what: str, seconds: float = DEADLINE) -> T:
    """Return the first true value of a condition; fail when none comes in 30 seconds, or in so many."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"it never happened: {what}"
        time.sleep(0.002)
    return value


def free_port() -> int:
    """Return a free port below those that the system gives to connections, so that no connection takes it meanwhile."""
    while True:
        port = random.SystemRandom().randrange(10_000, 30_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def alive(pid: int) -> bool:
    """Return whether a process runs. It may end between the opening of the file and the reading, which needs it too."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def closed(answer: requests.Response) -> requests.Response:
    """Close the socket of an answer that was read; else it lives as long as the answer, whatever its session does."""
    raw: Any = answer.raw
    raw._pool.close()  # noqa: SLF001
    return answer


def framed(framing: str, *pieces: bytes) -> Any:
    """Return a body that `requests` sends "whole" (with its length) or "chunked"."""
    return iter(pieces) if framing == "chunked" else b"".join(pieces)


def error_code(answer: requests.Response) -> str:
    """Check that an answer is an error in the documented shape, and return its code."""
    assert answer.headers["Content-Type"] == "application/json"
    return code_of(answer.json())


def code_of(body: dict[str, Any]) -> str:
    """Check that a body is an error in one of the documented shapes, and return its code, or its name in the API's."""
    if "errorName" in body:
        assert set(body) == {*API_ERROR, "parameters"}
        assert all(isinstance(body[name], str) and body[name] for name in API_ERROR)
        return str(body["errorName"])
    assert set(body) == {"error", "error_description"}
    assert all(isinstance(text, str) and text for text in body.values())
    return str(body["error"])


def check_answer(answer: requests.Response) -> None:
    """Check what holds for every answer: errors have the documented shape, and openapi.json has the status."""
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        error_code(answer)
    try:
        route, _ = ROUTER.match(str(answer.request.method), answer.request.path_url.partition("?")[0])
    except WireError:
        return
    assert str(answer.status_code) in DESCRIBED[route.path][route.method.lower()]["responses"]


class Api:
    """An emulator's routes."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.bearer = {"Authorization": f"Bearer {token}"}

    def send(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Send one request on a connection of its own; `path` may be a whole URL."""
        with requests.Session() as session:
            session.trust_env = False
            url = path if path.startswith("http") else self.url + path
            answer = session.request(method, url, timeout=DEADLINE, **kwargs)
            closed(answer)
        check_answer(answer)
        return answer

    def open(self, runtime_id: str = "my-runtime", deployed_app_rid: str | None = None, **fields: Any) -> Runtime:
        """Open or reset a runtime's session."""
        body = {"runtimeId": runtime_id, "deployedAppRid": deployed_app_rid, **fields}
        answer = self.send("POST", RUNTIMES, json=body)
        assert answer.status_code == 200, answer.text
        return Runtime(self, answer.json())

    def contour(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Call a contour or tool route with the bearer token."""
        headers = {**self.bearer, **kwargs.pop("headers", {})}
        return self.send(method, path, headers=headers, **kwargs)

    def execute(self, query_type: str = "f", query: Any = None, rid: str = RID, **fields: Any) -> requests.Response:
        """Run a function and wait for its result."""
        body = {"deployedAppRid": rid, "queryType": query_type, "query": query, **fields}
        return self.contour("POST", EXECUTE, json=body)

    def submit(self, query_type: str = "f", query: Any = None, rid: str = RID, **fields: Any) -> str:
        """Submit a job and return its id."""
        body = {"deployedAppRid": rid, "queryType": query_type, "query": query, **fields}
        answer = self.contour("POST", SUBMIT, json=body)
        assert answer.status_code == 200, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    def status(self, job_id: str) -> Any:
        """Return what the contour status route says of a job."""
        return self.contour("GET", f"{CONTOUR}/jobs/{job_id}/status").json()

    def result(self, job_id: str, wait: int | None = None) -> requests.Response:
        """Fetch a job's result."""
        headers = {} if wait is None else {"Prefer": f"wait={wait}"}
        return self.contour("PUT", RESULT, json={"id": job_id}, headers=headers)


@dataclass(frozen=True)
class Runtime:
    """A runtime's side of the routes."""

    api: Api
    session: dict[str, str]

    @property
    def runtime_id(self) -> str:
        return self.session["runtimeId"]

    @property
    def headers(self) -> dict[str, str]:
        return {MODULE_HEADER: self.session["moduleAuthToken"]}

    @property
    def uri(self) -> str:
        return self.session["getJobUri"].removesuffix("/job")

    @property
    def path(self) -> str:
        return self.uri.removeprefix(self.api.url)

    def send(self, method: str, uri: str, **kwargs: Any) -> requests.Response:
        return self.api.send(method, uri, headers={**self.headers, **kwargs.pop("headers", {})}, **kwargs)

    def poll(self, wait: int | None = None, method: str = "GET") -> requests.Response:
        headers = {} if wait is None else {"Prefer": f"wait={wait}"}
        return self.send(method, self.session["getJobUri"], headers=headers)

    def take(self, wait: int | None = None) -> dict[str, Any]:
        """Poll, and return the job that must come."""
        answer = self.poll(wait)
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()["computeModuleJobV1"]
        return job

    def take_id(self) -> str:
        job_id: str = self.take()["jobId"]
        return job_id

    def submit(self, query_type: str = "f", query: Any = None) -> str:
        """Queue a `runtime-direct` job and return its id."""
        answer = self.send("POST", f"{self.uri}/jobs", json={"queryType": query_type, "query": query})
        assert answer.status_code == 200, answer.text
        job_id: str = answer.json()["jobId"]
        return job_id

    def post_result(self, job_id: str, body: Any, **headers: str) -> requests.Response:
        """Post a result: bytes, or an iterator of bytes for a chunked body."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send("POST", f"{self.session['postResultUri']}/{job_id}", data=body, headers=names)

    def post_schemas(self, body: Any) -> requests.Response:
        return self.send("POST", self.session["postSchemaUri"], json=body)

    def fail(self, job_id: str, reason: str) -> requests.Response:
        return self.send("POST", f"{self.uri}/jobs/{job_id}/fail", json={"reason": reason})

    def inspect(self, job_id: str) -> dict[str, Any]:
        answer = self.api.send("GET", f"{self.uri}/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        state: dict[str, Any] = answer.json()
        return state

    def job(self, job_id: str) -> dict[str, Any]:
        record: dict[str, Any] = self.inspect(job_id)["job"]
        return record

    def show(self) -> dict[str, Any]:
        """Return what the tool route says of the runtime and its schemas."""
        state: dict[str, Any] = self.send("GET", self.uri).json()
        return state


@dataclass(frozen=True)
class WireAnswer:
    """An answer as it came over the wire."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def error(self) -> str:
        """Check the documented error shape and return the code."""
        assert self.headers["Content-Type"] == "application/json"
        return code_of(json.loads(self.body))


class Wire:
    """One HTTP connection, byte by byte."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(DEADLINE)
        # So that a large answer that nobody reads is stuck in the server.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.socket.connect(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def reset(self) -> None:
        """Close so that the other side sees a reset connection."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        """Send a request with a `Host` header, and a `Content-Length` unless it is chunked."""
        fields = {"Host": f"127.0.0.1:{self.socket.getpeername()[1]}", **(headers or {})}
        if "Transfer-Encoding" not in fields:
            fields.setdefault("Content-Length", str(len(body)))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)

    def send_chunk(self, chunk: bytes) -> None:
        """Send a chunk of a chunked body; an empty one ends it."""
        self.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    def head(self) -> WireAnswer:
        """Read an answer's head."""
        line = self.file.readline().split()
        assert line, "the connection was closed without an answer"
        return WireAnswer(int(line[1]), http.client.parse_headers(self.file), b"")

    def answer(self) -> WireAnswer:
        """Read a whole answer."""
        head = self.head()
        if head.headers["Transfer-Encoding"] == "chunked":
            return WireAnswer(head.status, head.headers, b"".join(self.chunks()))
        body = self.file.read(int(head.headers["Content-Length"] or 0))
        return WireAnswer(head.status, head.headers, body)

    def chunks(self) -> Iterator[bytes]:
        """Read a chunked body, chunk by chunk."""
        while chunk := self.chunk():
            yield chunk

    def chunk(self) -> bytes:
        """Read one chunk; empty at the end of the body. A body that breaks off is a `ConnectionError`."""
        size = self.file.readline()
        if not size.endswith(b"\r\n"):
            raise ConnectionError("the answer broke off")
        chunk = self.file.read(int(size, 16))
        assert self.file.read(2) == b"\r\n"
        return chunk

    def closed_by_server(self) -> bool:
        """Wait until the server closes the connection; whatever comes before is read and dropped."""
        with contextlib.suppress(ConnectionResetError):
            while self.file.read(65536):
                pass
        return True
