"""Scaling out: functions of the notebook as replicas on the workers of a Dask cluster."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import ipaddress
import socket
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from cmemu_nb.errors import InvalidRequest, LaunchFailed, SettingError
from cmemu_nb.lifecycle.records import NOTEBOOK
from cmemu_nb.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from distributed import Client

    from cmemu_nb.calls.handles import RuntimeHandle
    from cmemu_nb.emulator import Emulator
    from cmemu_nb.executors.cluster.cluster import Cluster
    from cmemu_nb.executors.sdk.adapter import Definition
    from cmemu_nb.lifecycle.events import Event

CLUSTER = "cluster"
ANY = ("0.0.0.0", "::")


class Scaling:
    """How an emulator's functions go to a cluster."""

    def _emulator(self) -> Emulator:
        return cast("Emulator", self)

    @functools.cached_property
    def clusters(self) -> Clusters:
        """The clusters that serve functions."""
        return Clusters(self._emulator())

    def scale(
        self,
        client: Client,
        replicas: int = 8,
        functions: Sequence[Callable[..., Any] | str] | Callable[..., Any] | str | None = None,
        runtime: RuntimeHandle | str | None = None,
        *,
        max_concurrent_tasks: int = 1,
        local: bool = False,
    ) -> Cluster:
        """Serve functions by replicas on the workers of a `dask.distributed` cluster, each with a token of its own.

        A replica is handed at most `max_concurrent_tasks` unfinished jobs at a time. `functions` are all that the
        runtime serves (`notebook` if left out); when some are given, by name or themselves, they are served on a
        runtime of their own, `cluster` if left out. A function's next version goes to all replicas. With `local=True`
        the notebook takes jobs as well. Returns at once; `wait_until_responsive()` waits. Raises `FunctionRefused` for
        functions that can't be shipped, `SettingError` when workers could not reach the emulator, `LaunchFailed` when
        the cluster can't run it, `InvalidRequest`.
        """
        emulator = self._emulator()
        _check_client(client)
        from cmemu_nb.executors.cluster.cluster import Cluster, check_at_least_one  # noqa: PLC0415 - without Dask nobody needs it

        check_at_least_one(replicas=replicas, max_concurrent_tasks=max_concurrent_tasks)
        url = address_for(emulator, client.nthreads())
        runtime_id = runtime if isinstance(runtime, str) else runtime.id if runtime else NOTEBOOK
        if functions is not None:
            runtime_id = self._serve_apart(functions, CLUSTER if runtime is None else runtime_id)
        if not emulator.functions.definitions(runtime_id):
            raise InvalidRequest(
                f"No functions are served on runtime {runtime_id!r}. Write @{emulator.name}.function above one."
            )
        cluster = Cluster(emulator, client, runtime_id, url, max_concurrent_tasks, local=local)
        return emulator.clusters.begin(cluster, replicas)

    def _serve_apart(self, functions: Any, runtime_id: str) -> str:
        """Serve some functions on a runtime of their own; replicas take all jobs of theirs."""
        from cmemu_nb.executors.cluster.pickling import pickled  # noqa: PLC0415 - who has no cluster needs none

        emulator = self._emulator()
        chosen = [functions] if isinstance(functions, str) or callable(functions) else list(functions)
        if not chosen:
            raise InvalidRequest("functions=[] names none. Name some, or leave it out for all of the notebook's.")
        definitions = [emulator.functions.definition_of(each) for each in chosen]
        pickled(definitions)
        with emulator.launchable_runtime(runtime_id):
            emulator.functions.serve_defined(runtime_id, definitions)
        return runtime_id


class Clusters:
    """Every cluster that serves functions of an emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._clusters: list[Cluster] = []
        self._unsubscribe: Callable[[], None] | None = None

    def begin(self, cluster: Cluster, replicas: int) -> Cluster:
        """Start a cluster's replicas, and let the notebook leave the jobs to them unless it is to go on."""
        # Every event is told to whoever subscribes, and most emulators have no cluster.
        self._unsubscribe = self._unsubscribe or self._emulator.lifecycle.events.subscribe(self._hear)
        self._clusters = [*self, cluster]
        try:
            self._emulator.home.run(cluster.begin(replicas))
            self._emulator.change(lambda _: self.share(cluster.runtime_id))
        except BaseException:
            cluster.stop()
            raise
        return cluster

    def share(self, runtime_id: str) -> None:
        """Let the notebook take a runtime's jobs, unless a cluster is to take them all."""
        functions = self._emulator.functions
        alone = any(not each.local for each in self.of(runtime_id))
        (functions.rest if alone else functions.go_on)(runtime_id)

    def __iter__(self) -> Iterator[Cluster]:
        return iter([each for each in self._clusters if not each.stopped])

    def of(self, runtime_id: str) -> list[Cluster]:
        """Return those that serve a runtime."""
        return [each for each in self if each.runtime_id == runtime_id]

    def check(self, runtime_id: str, definitions: Sequence[Definition]) -> None:
        """Refuse new versions of functions that can't be shipped where a cluster serves them."""
        if any(runtime_id in (NOTEBOOK, each.runtime_id) for each in self):
            from cmemu_nb.executors.cluster.pickling import pickled  # noqa: PLC0415 - who has no cluster needs none

            pickled(definitions)

    def ship(self, runtime_id: str, definitions: Sequence[Definition]) -> None:
        """Bring new versions to the clusters that serve them, on this runtime or on one of their own."""
        for cluster in self.of(runtime_id):
            cluster.ship()
        if runtime_id != NOTEBOOK:
            return
        for apart in {each.runtime_id for each in self if each.runtime_id != NOTEBOOK}:
            names = {each.name for each in self._emulator.functions.definitions(apart)}
            news = [each for each in definitions if each.name in names]
            if news:
                self._emulator.functions.serve_defined(apart, news)

    def _hear(self, event: Event) -> None:
        for cluster in self.of(event.runtime_id or ""):
            if event.kind == "session_deleted":
                self._emulator.home.loop.create_task(cluster.end("the runtime was deleted"))
            elif event.kind == "session_reset":
                cluster.give_up("", None)
            elif event.kind == "job_failed" and event.job_id is not None:
                job = self._emulator.lifecycle.find_job(event.job_id)
                if job is not None and job.replica_id is not None:
                    cluster.give_up(event.job_id, job.replica_id)

    async def end_all(self, reason: str) -> None:
        """End every replica."""
        async with contextlib.AsyncExitStack() as each_even_if_one_fails:
            if self._unsubscribe is not None:
                each_even_if_one_fails.callback(self._unsubscribe)
                self._unsubscribe = None
            for cluster in self._clusters:
                each_even_if_one_fails.push_async_callback(cluster.end, reason)


def _check_client(client: Client) -> None:
    if importlib.util.find_spec("distributed") is None:
        raise LaunchFailed("scale() needs Dask, which is not installed here. Type: pip install 'cmemu_nb[dask]'")
    if not hasattr(client, "nthreads") or not hasattr(client, "subscribe_topic"):
        raise InvalidRequest(f"scale() needs a dask.distributed.Client, not {client!r}.")
    if client.asynchronous:
        raise InvalidRequest("scale() needs a Client that is not asynchronous: Client(address) without more.")
    if client.status != "running":
        raise LaunchFailed(f"The Dask client is {client.status}. Connect it again: Client(address).")


def address_for(emulator: Emulator, workers: Iterable[str]) -> str:
    """Return where workers reach the platform routes; a `SettingError` says what to set when they can't."""
    hosts = {urlsplit(worker).hostname or "" for worker in workers}
    others = sorted(host for host in hosts if host and not _is_here(host))
    port = urlsplit(emulator.platform_url).port
    if not others:
        return emulator.platform_url
    host = emulator.settings.host
    if is_loopback(host):
        raise SettingError(
            f"Dask workers on {', '.join(others)} can't reach the emulator, which listens on this machine only. Start "
            "it for other machines: %cmemu start --host 0.0.0.0 --allow-remote --local-hostnames NAME, where NAME is "
            "this machine's name or address for them."
        )
    names = [] if host in ANY else [host]
    names += emulator.settings.local_hostnames
    if not names:
        raise SettingError(
            f"Dask workers on {', '.join(others)} need a name or address of this machine to call. Start the emulator "
            "with local_hostnames=[NAME] (--local-hostnames NAME)."
        )
    return f"https://[{names[0]}]:{port}" if ":" in names[0] else f"https://{names[0]}:{port}"


def _is_here(host: str) -> bool:
    """Tell whether an address is this machine's: then a socket can be bound to it."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return True
    with contextlib.suppress(OSError), socket.create_server((host, 0)):
        return True
    return False
