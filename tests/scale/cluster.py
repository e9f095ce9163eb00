"""A real Dask cluster for tests, and functions that tell where they ran."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client


PROGRAM = Path(__file__).parent.parent / "programs" / "local_cluster.py"


@contextlib.contextmanager
def local_cluster(workers: int, host: str = "127.0.0.1") -> Iterator[Client]:
    from distributed import Client  # noqa: PLC0415 - only this module's

    command = [sys.executable, str(PROGRAM), str(workers), host]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        with Client(process.stdout.readline().strip(), set_as_default=False) as client:
            if workers:
                client.wait_for_workers(workers)
            yield client
        process.stdin.close()
        assert process.wait(30) == 0


def nobody_serves(client: Client) -> bool:
    return not any(client.run(_replicas_here).values())


def _replicas_here() -> int:
    from cmemu_nb.executors.cluster import worker  # noqa: PLC0415 - on the worker

    return len(worker._replicas)  # noqa: SLF001


def pids(client: Client) -> dict[str, int]:
    found: dict[str, int] = client.run(os.getpid)
    return found


def where(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG001 - as the SDK wants it
    return os.getpid()


def count(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG001
    for number in range(event["n"]):
        yield {"number": number, "pid": os.getpid()}


def runs(job: Any) -> bool:
    return bool(job.status == "running")


def done(jobs: list[Any]) -> int:
    return sum(job.done() for job in jobs)
