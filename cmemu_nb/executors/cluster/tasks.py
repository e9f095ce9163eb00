"""What Dask is asked of a cluster, and what it says of its tasks and workers."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cmemu_nb.errors import LaunchFailed
from cmemu_nb.executors.cluster.worker import told
from cmemu_nb.version import __version__

if TYPE_CHECKING:
    from distributed import Client, SchedulerPlugin
    from distributed import Future as DaskFuture

PACKAGE = "cmemu_nb"


def replica_name(number: int, worker: str) -> str:
    """Return how the timeline and the logs call a replica: its number and its worker's address."""
    return f"{number}@{urlsplit(worker).netloc}"


def check_versions(client: Client) -> None:
    """Refuse a cluster on which some worker has no cmemu_nb, or another one."""
    found: dict[str, Any] = client.run(metadata.version, PACKAGE, on_error="return")
    for worker, version in found.items():
        missing = isinstance(version, metadata.PackageNotFoundError)
        if missing or (isinstance(version, str) and version != __version__):  # else it is gone
            has = f"has no {PACKAGE}" if missing else f"has {PACKAGE} {version}"
            raise LaunchFailed(
                f"Dask worker {worker} {has}; the replicas need {__version__}, as here. On the workers: "
                f"pip install '{PACKAGE}[dask]=={__version__}'."
            )


def said(done: DaskFuture[None]) -> str:
    """Say why a replica's task ended."""
    if done.status == "finished":
        return "it ended, because the notebook did not answer it in time"
    if done.status != "error":
        return f"its task was {done.status}"
    error = done.exception()
    return told(error) if error is not None else "its task failed"


def watch(topic: str) -> SchedulerPlugin:
    """Return what tells, from the scheduler, that a worker is gone. A class of its own, so that it goes there whole."""
    from distributed import SchedulerPlugin  # noqa: PLC0415 - not everybody has it

    class Watch(SchedulerPlugin):
        def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
            scheduler.log_event(topic, {"what": "lost", "worker": worker})
            self.add_worker(scheduler)

        def add_worker(self, scheduler: Any, *_: Any, **__: Any) -> None:
            # Dask would have those that no worker was there for wait for the worker that was to have them at first.
            for task in scheduler.unrunnable:
                if str(task.key).startswith(topic):
                    task.worker_restrictions = None

    return Watch()
