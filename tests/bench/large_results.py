"""Bodies of 100 MB, in and out: the most memory that the server's process has meanwhile, over what it had before.

Each way is measured in a server of its own. A query goes in with the submission and out to the worker; a result goes
in with its post and out with the answer.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.clients import KeepAlive
from bench.figures import Figure, report
from bench.programs import serve_emulator
from bench.wire import CONTOUR, Executor, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.programs import Server

SIZE = 100_000_000
MB = 1_000_000
CHUNK = b"z" * 65_536
MOST = 1.5
RUNTIME = "/_emulate/foundry/compute-modules/runtimes/r0"


def application(server: Server) -> Wire:
    """Return a client of the contour routes."""
    return Wire(server.url, Authorization=f"Bearer {server.token}")


def submission(server: Server, query: str) -> bytes:
    """Return the body that submits a job."""
    return json.dumps({"deployedAppRid": server.apps[0], "queryType": "f", "query": query}).encode()


def post(server: Server, job_id: str) -> None:
    """Post a large result."""
    Executor(server).wire.request("POST", f"{RUNTIME}/results/{job_id}", b"y" * SIZE)


def posted_and_fetched(server: Server) -> None:
    """Post a result, then fetch it."""
    client = application(server)
    client.request("POST", f"{CONTOUR}/deployed-apps/jobs", submission(server, "small"))
    job_id = Executor(server).take()
    post(server, job_id)
    result = client.request("PUT", f"{CONTOUR}/jobs/result/v2", json.dumps({"id": job_id}).encode())
    assert len(result) == SIZE


def executed(server: Server) -> None:
    """Post a result for which a client waits."""
    with ThreadPoolExecutor(1) as pool:
        body = submission(server, "small")
        result = pool.submit(application(server).request, "POST", f"{CONTOUR}/compute-modules/jobs/execute", body)
        post(server, Executor(server).take())
        assert len(result.result()) == SIZE


def streamed(server: Server) -> None:
    """Post a result in chunks to a client that waits."""
    with ThreadPoolExecutor(1) as pool:
        client = KeepAlive(server.url, Authorization=f"Bearer {server.token}")
        result = pool.submit(
            client.request, "POST", f"{CONTOUR}/compute-modules/jobs/execute", submission(server, "small")
        )
        executor = KeepAlive(server.url, Module_Auth_Token=server.module_tokens[0])
        executor.post_chunks(f"{RUNTIME}/results/{Executor(server).take()}", (CHUNK for _ in range(SIZE // len(CHUNK))))
        assert len(result.result()) == SIZE // len(CHUNK) * len(CHUNK)


def queried(server: Server) -> None:
    """Submit a large query, and take it."""
    application(server).request("POST", f"{CONTOUR}/deployed-apps/jobs", submission(server, "q" * SIZE))
    Executor(server).take()


def queried_and_executed(server: Server) -> None:
    """Submit a large query, take it and post a large result, for a client that waits."""
    with ThreadPoolExecutor(1) as pool:
        body = submission(server, "q" * SIZE)
        result = pool.submit(application(server).request, "POST", f"{CONTOUR}/compute-modules/jobs/execute", body)
        post(server, Executor(server).take())
        assert len(result.result()) == SIZE


def memory(way: Callable[[Server], None]) -> float:
    """Return how many bytes more than before a server uses at most."""
    with serve_emulator() as server:
        server.ask("gc")
        before = server.ask("memory")
        server.ask("forget_peak")
        way(server)
        return server.ask("peak") - before


def main() -> None:
    """Measure and report."""
    say = partial(Figure, "large_results", unit="MB", against="the body", base=SIZE / MB)
    report(say("result posted, then fetched: memory", memory(posted_and_fetched) / MB, at_most=MOST))
    report(say("result posted to a sync execute: memory", memory(executed) / MB, at_most=MOST))
    report(say("result in chunks to a sync execute: memory", memory(streamed) / MB))
    report(say("query submitted, then taken: memory", memory(queried) / MB))
    both = partial(Figure, "large_results", unit="MB", against="both bodies", base=2 * SIZE / MB)
    report(both("query and result of a sync execute: memory", memory(queried_and_executed) / MB))


if __name__ == "__main__":
    main()
