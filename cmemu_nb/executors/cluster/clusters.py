"""The Dask clusters that serve functions of an emulator: `emu.scale()` and the clusters' common life."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cmemu_nb.engine.parts import Part
from cmemu_nb.errors import InvalidRequest, LaunchFailed, SettingError
from cmemu_nb.executors.cells.functions import none_served
from cmemu_nb.executors.opened_runtime import opened_runtime
from cmemu_nb.lifecycle.records import NOTEBOOK
from cmemu_nb.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from distributed import Client

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.executors.cells.functions import Functions
    from cmemu_nb.executors.cluster.cluster import Cluster
    from cmemu_nb.executors.sdk.adapter import Definition
    from cmemu_nb.lifecycle.events import Event

CLUSTER = "cluster"
ANY = ("0.0.0.0", "::")


class Clusters(Part):
    """Every cluster that serves functions of an emulator."""

    def __init__(self, engine: Engine, functions: Functions) -> None:
        self.engine = engine
        self.functions = functions
        self.engine.parts.append(self)
        self._clusters: list[Cluster] = []
        self._unsubscribe: Callable[[], None] | None = None

    def scale(
        self,
        client: Client,
        replicas: int,
        functions: Sequence[Callable[..., Any] | str] | Callable[..., Any] | str | None,
        runtime_id: str | None,
        max_concurrent_tasks: int,
        *,
        local: bool,
    ) -> Cluster:
        """Serve functions by replicas on the workers of a cluster, as `Emulator.scale` describes it."""
        _check_client(client)
        from cmemu_nb.executors.cluster.cluster import Cluster, check_at_least_one  # noqa: PLC0415 - it needs Dask

        check_at_least_one(replicas=replicas, max_concurrent_tasks=max_concurrent_tasks)
        url = address_for(self.engine, client.nthreads())
        if functions is not None:
            runtime_id = self._serve_separately(functions, runtime_id or CLUSTER)
        runtime_id = runtime_id or NOTEBOOK
        if not self.functions.definitions(runtime_id):
            raise InvalidRequest(none_served(self.engine.name, f" on runtime {runtime_id!r}"))
        cluster = Cluster(self, client, runtime_id, url, max_concurrent_tasks, local=local)
        return self._begin(cluster, replicas)

    def _serve_separately(self, functions: Any, runtime_id: str) -> str:
        """Serve some functions on a runtime of their own, whose jobs are all run by replicas; return its id."""
        from cmemu_nb.executors.cluster.pickling import pickled  # noqa: PLC0415 - it needs cloudpickle

        chosen = [functions] if isinstance(functions, str) or callable(functions) else list(functions)
        if not chosen:
            raise InvalidRequest(
                "functions=[] names none. Name some, or leave it out for all functions of the notebook."
            )
        definitions = [self.functions.definition_of(each) for each in chosen]
        pickled(definitions)
        with opened_runtime(self.engine, runtime_id) as opened:
            self.functions.serve_defined(opened, definitions)
        return opened

    def _begin(self, cluster: Cluster, replicas: int) -> Cluster:
        """Start a cluster's replicas; the notebook then leaves the jobs to them, unless `local` says otherwise."""
        # Subscribed here and not earlier: every event costs a call, and most emulators have no cluster.
        self._unsubscribe = self._unsubscribe or self.engine.lifecycle.events.subscribe(self._on_event)
        self._clusters = [*self, cluster]
        try:
            self.engine.home.run(cluster.begin(replicas))
            self.engine.change(lambda _: self.share(cluster.runtime_id))
        except BaseException:
            cluster.stop()
            raise
        return cluster

    def share(self, runtime_id: str) -> None:
        """Have the notebook take a runtime's jobs too, unless a cluster is to take all of them."""
        if all(each.local for each in self.of(runtime_id)):
            self.functions.resume(runtime_id)
        else:
            self.functions.pause(runtime_id)

    def __iter__(self) -> Iterator[Cluster]:
        return iter([each for each in self._clusters if not each.stopped])

    def of(self, runtime_id: str) -> list[Cluster]:
        """Return the clusters that serve a runtime."""
        return [each for each in self if each.runtime_id == runtime_id]

    def check(self, runtime_id: str, definitions: Sequence[Definition]) -> None:
        """Refuse new versions of functions that can't be shipped to a cluster that serves them."""
        if any(runtime_id in (NOTEBOOK, each.runtime_id) for each in self):
            from cmemu_nb.executors.cluster.pickling import pickled  # noqa: PLC0415 - it needs cloudpickle

            pickled(definitions)

    def ship(self, runtime_id: str, definitions: Sequence[Definition]) -> None:
        """Ship new versions to the clusters that serve them, on this runtime or on one of their own."""
        for cluster in self.of(runtime_id):
            cluster.ship()
        if runtime_id != NOTEBOOK:
            return
        for separate in {each.runtime_id for each in self if each.runtime_id != NOTEBOOK}:
            names = {each.name for each in self.functions.definitions(separate)}
            if new := [each for each in definitions if each.name in names]:
                self.functions.serve_defined(separate, new)

    def _on_event(self, event: Event) -> None:
        for cluster in self.of(event.runtime_id or ""):
            if event.kind == "session_deleted":
                self.engine.home.loop.create_task(cluster.end("the runtime was deleted"))
            elif event.kind == "session_reset":
                cluster.abandon("", None)
            elif event.kind == "runtime_configured":
                self.engine.home.loop.create_task(cluster.configure())
            elif event.kind == "job_failed" and event.job_id is not None:
                job = self.engine.lifecycle.find_job(event.job_id)
                if job is not None and job.replica_id is not None:
                    cluster.abandon(event.job_id, job.replica_id)

    async def stopping(self, reason: str) -> None:
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
        raise InvalidRequest(
            "scale() needs a Client that is not asynchronous: Client(address), with no other argument."
        )
    if client.status != "running":
        raise LaunchFailed(f"The Dask client is {client.status}. Connect it again: Client(address).")


def address_for(engine: Engine, workers: Iterable[str]) -> str:
    """Return the address at which workers reach the platform routes; `SettingError` says what to set if they can't."""
    hosts = {urlsplit(worker).hostname or "" for worker in workers}
    others = sorted(host for host in hosts if host and not _is_here(host))
    port = urlsplit(engine.platform_url).port
    if not others:
        return engine.platform_url
    host = engine.settings.host
    if is_loopback(host):
        raise SettingError(
            f"Dask workers on {', '.join(others)} can't reach the emulator, which listens on this machine only. Start "
            "it for other machines: %cmemu start --host 0.0.0.0 --allow-remote --local-hostnames NAME, where NAME is "
            "this machine's name or address for them."
        )
    names = [] if host in ANY else [host]
    names += engine.settings.local_hostnames
    if not names:
        raise SettingError(
            f"Dask workers on {', '.join(others)} need a name or address of this machine to call. Start the emulator "
            "with local_hostnames=[NAME] (--local-hostnames NAME)."
        )
    return f"https://[{names[0]}]:{port}" if ":" in names[0] else f"https://{names[0]}:{port}"


def _is_here(host: str) -> bool:
    """Return whether an address belongs to this machine: then a socket can be bound to it."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return True
    with contextlib.suppress(OSError), socket.create_server((host, 0)):
        return True
    return False
