"""How long a chunk of a result takes from its post to the client that reads the stream, against a bare request.

Both go into a server and out again: a chunk through the emulator, the request through Tornado. The first chunk goes
with the head of the post and begins the answer; each later one is posted when the one before was read.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.clients import KeepAlive
from bench.figures import Figure, report
from bench.programs import serve, serve_emulator
from bench.wire import CONTOUR, Executor

if TYPE_CHECKING:
    from bench.programs import Server

STREAMS, CHUNKS = 200, 10
WARM_UP = 20
RUNTIME = "/_emulate/foundry/compute-modules/runtimes/r0"
POLL = f"{RUNTIME}/job"
CHUNK = b"tick"
ON_THE_WIRE = b"4\r\ntick\r\n"


def connect(server: Server) -> http.client.HTTPConnection:
    """Return a connection that is kept."""
    return http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)


class Streams:
    """A client that reads streams and a worker that posts them, chunk by chunk."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reader, self._writer = connect(server), connect(server)
        self._worker = Executor(server)

    def run(self) -> list[float]:
        """Stream one result; returns the delays of its chunks in milliseconds."""
        body = f'{{"deployedAppRid": "{self._server.apps[0]}", "queryType": "f"}}'
        bearer = {"Authorization": f"Bearer {self._server.token}"}
        self._reader.request("POST", f"{CONTOUR}/compute-modules/jobs/execute", body, bearer)
        job_id = self._worker.take()
        self._writer.putrequest("POST", f"{RUNTIME}/results/{job_id}")
        self._writer.putheader("Module-Auth-Token", self._server.module_tokens[0])
        self._writer.putheader("Transfer-Encoding", "chunked")
        start = time.perf_counter()
        self._writer.endheaders(ON_THE_WIRE)
        answer = self._reader.getresponse()
        delays = [self._delay(answer, start)]
        for _ in range(CHUNKS - 1):
            start = time.perf_counter()
            self._writer.send(ON_THE_WIRE)
            delays.append(self._delay(answer, start))
        self._writer.send(b"0\r\n\r\n")
        assert self._writer.getresponse().read() == answer.read() == b""
        return delays

    def _delay(self, answer: http.client.HTTPResponse, start: float) -> float:
        assert answer.read(len(CHUNK)) == CHUNK
        return 1000 * (time.perf_counter() - start)


def requests(server: Server) -> list[float]:
    """Return how long bare requests take, in milliseconds."""
    client = KeepAlive(server.url)
    delays = []
    for _ in range(STREAMS):
        start = time.perf_counter()
        client.request("GET", POLL)
        delays.append(1000 * (time.perf_counter() - start))
    return delays


def main() -> None:
    """Measure and report."""
    with serve_emulator() as emulator, serve("ceiling", "handlers") as bare:
        streams = Streams(emulator)
        delays = [streams.run() for _ in range(WARM_UP + STREAMS)][WARM_UP:]
        base = statistics.median(requests(bare))
        say = partial(Figure, "streaming", unit="ms", against="a bare request", base=base)
        report(say("first chunk, from post to reader: p50", statistics.median(each[0] for each in delays)))
        later = statistics.quantiles((delay for each in delays for delay in each[1:]), n=100)
        report(say("later chunks: p50", later[49]))
        report(say("later chunks: p99", later[98]))


if __name__ == "__main__":
    main()
