"""Dask's view of the replicas: the versions on its workers, the ends of its tasks, and the loss of workers."""

from __future__ import annotations

import time
from concurrent.futures import Future, wait
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cmemu_nb.errors import LaunchFailed
from cmemu_nb.executors.cluster.worker import describe_error
from cmemu_nb.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client, SchedulerPlugin
    from distributed import Future as DaskFuture

PACKAGE = "cmemu_nb"
ANSWER_SECONDS = 15.0
CHECK_SECONDS = 0.1


def replica_name(number: int, worker: str) -> str:
    """Return a replica's id in the timeline and the logs: its number and its worker's address."""
    return f"{number}@{urlsplit(worker).netloc}"


def run_on_workers(
    client: Client, function: Callable[..., object], *arguments: object, **options: Any
) -> dict[str, Any]:
    """Return the answers of `client.run`; raise `OSError` once the client is closed, or after 15 s.

    `client.run` itself waits without a limit: it may never return when a worker ends while the scheduler calls it.
    """
    answer: Future[dict[str, Any]] = Future()

    async def run() -> None:
        try:
            answer.set_result(await client.run(function, *arguments, **options))
        except Exception as error:  # noqa: BLE001 - the cluster's errors are of many types
            answer.set_exception(error)

    if client.loop is not None:
        client.loop.add_callback(run)
    end = time.monotonic() + ANSWER_SECONDS
    while wait([answer], CHECK_SECONDS).not_done:
        if client.status in ("closing", "closed"):
            raise OSError("the Dask client was closed")
        if time.monotonic() > end:
            raise OSError(f"the workers did not answer within {ANSWER_SECONDS:g} s")
    return answer.result()


def check_versions(client: Client) -> None:
    """Raise `LaunchFailed` if a worker of a cluster has no cmemu_nb, or another version of it."""
    found: dict[str, Any] = run_on_workers(client, metadata.version, PACKAGE, on_error="return")
    for worker, version in found.items():
        missing = isinstance(version, metadata.PackageNotFoundError)
        # Any other error is that of a worker which has left the cluster meanwhile.
        if missing or (isinstance(version, str) and version != __version__):
            has = f"has no {PACKAGE}" if missing else f"has {PACKAGE} {version}"
            raise LaunchFailed(
                f"Dask worker {worker} {has}; the replicas need {__version__}, the version here. On the workers: "
                f"pip install '{PACKAGE}[dask]=={__version__}'."
            )


def describe_end(task: DaskFuture[None]) -> str:
    """Return why a replica's task ended."""
    if task.status == "finished":
        return "the notebook did not answer it in time"
    if task.status != "error":
        return f"its task was {task.status}"
    error = task.exception()
    return describe_error(error) if error is not None else "its task failed"


def make_worker_watch(topic: str) -> SchedulerPlugin:
    """Return a plugin for Dask's scheduler that reports lost workers to a topic.

    Its class is local to this function, so that it is pickled by value: the scheduler may have no cmemu_nb.
    """
    from distributed import SchedulerPlugin  # noqa: PLC0415 - Dask is an optional dependency

    class WorkerWatch(SchedulerPlugin):
        def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
            scheduler.log_event(topic, {"kind": "worker_lost", "worker": worker})
            self.add_worker(scheduler)

        def add_worker(self, scheduler: Any, *_: Any, **__: Any) -> None:
            # Tasks without a worker keep their restriction to one that may never come back, and wait for it: lift it.
            # https://github.com/dask/distributed/issues/7346
            for task in scheduler.unrunnable:
                if str(task.key).startswith(topic):
                    task.worker_restrictions = None

    return WorkerWatch()
