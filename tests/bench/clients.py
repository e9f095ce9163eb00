"""What the benchmarks share: keep-alive clients, and figures of many durations."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CONTOUR = "/contour-backend-multiplexer/api/module-group-multiplexer"


class KeepAlive:
    """One connection that is kept, and the headers that go with every request."""

    def __init__(self, url: str, **headers: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a request and return the answer's body; anything but 2xx ends the benchmark."""
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        data = answer.read()
        assert answer.status < 300, (answer.status, data)
        return data

    def post_chunks(self, path: str, chunks: Iterable[bytes]) -> None:
        """Post a body in chunks; anything but 2xx ends the benchmark."""
        headers = {**self._headers, "Transfer-Encoding": "chunked"}
        self._connection.request("POST", path, chunks, headers, encode_chunked=True)
        answer = self._connection.getresponse()
        assert answer.status < 300, (answer.status, answer.read())

    def execute(self, app: str, query_type: str = "echo", query: Any = 1) -> bytes:
        """Run a function through the sync contour route."""
        body = json.dumps({"deployedAppRid": app, "queryType": query_type, "query": query}).encode()
        return self.request("POST", f"{CONTOUR}/compute-modules/jobs/execute", body)


@dataclass
class Figures:
    """Percentiles of durations, in milliseconds."""

    p50: float
    p95: float
    p99: float

    def __str__(self) -> str:
        return f"p50 {self.p50:6.2f} ms   p95 {self.p95:6.2f} ms   p99 {self.p99:6.2f} ms"


def measure(work: Callable[[], object], count: int, *, warm_up: int = 50) -> Figures:
    """Do something many times, one after the other."""
    for _ in range(warm_up):
        work()
    durations = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        durations.append((time.perf_counter() - start) * 1000)
    cuts = statistics.quantiles(durations, n=100)
    return Figures(cuts[49], cuts[94], cuts[98])
