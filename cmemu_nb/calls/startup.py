"""Waiting for the schemas of launched modules, when a function is called that no bound app has yet."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from cmemu_nb.calls.diagnosis import Diagnosis, diagnose_startup
from cmemu_nb.calls.interrupts import Interruptible
from cmemu_nb.calls.wait_line import WaitLine
from cmemu_nb.clients.contour import check_timeout
from cmemu_nb.errors import NotFound
from cmemu_nb.lifecycle.lifecycle import until
from cmemu_nb.lifecycle.records import NS_PER_S

if TYPE_CHECKING:
    from cmemu_nb.executors.executors import Executors
    from cmemu_nb.executors.modules.modules import LaunchedModule

MAX_SCHEMA_SECONDS = 30.0
# The official TypeScript SDK posts its schemas after its first poll [foundry].
AFTER_POLL_SECONDS = 2.0
LOOK_SECONDS = 0.25


class Starting:
    """The wait for launched modules that may still post the schema of a function that is called without an app.

    There is nothing to wait for if an app is given, if only one is bound, or if one is known to have the function.
    """

    def __init__(self, executors: Executors, query_type: str, rid: str | None, timeout: float | None) -> None:
        check_timeout(timeout)
        self._executors = executors
        self._query_type = query_type
        self._rid = rid
        self._seconds = MAX_SCHEMA_SECONDS if timeout is None else min(timeout, MAX_SCHEMA_SECONDS)

    def wait(self, *, progress: bool | None) -> None:
        """Wait until none is left, at most 30 s or `timeout`; then a `NotFound` says what it waited for."""
        if self._modules():
            self._call(progress=progress).run(self._until_posted())

    async def awaited(self, *, progress: bool | None) -> None:
        """Do as `wait()` does, in async code."""
        if self._modules():
            await self._call(progress=progress).arun(self._until_posted())

    def _call(self, *, progress: bool | None) -> Interruptible:
        return Interruptible(self._executors.engine, WaitLine(self._executors, progress=progress, before=self._why))

    def _modules(self) -> list[LaunchedModule]:
        state = self._executors.engine.lifecycle
        if self._rid is not None or not self._executors.launched or len(state.app_rids()) < 2:  # noqa: PLR2004
            return []
        if any(map(state.is_bound, state.runtimes_serving(self._query_type))):
            return []
        return [each for each in self._executors.modules if state.is_bound(each.runtime_id) and self._may_post(each)]

    def _may_post(self, module: LaunchedModule) -> bool:
        state = self._executors.engine.lifecycle
        if not module.running or state.schemas(module.runtime_id):
            return False
        if not any(replica.replica.polls for replica in module.replicas):
            return True
        since = time.time_ns() - AFTER_POLL_SECONDS * NS_PER_S
        newest = (event for event in reversed(state.events.recent()) if event.at >= since)
        return any(event.kind == "runtime_connected" and event.runtime_id == module.runtime_id for event in newest)

    async def _until_posted(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._seconds
        while self._modules():
            left = end - loop.time()
            if left <= 0:
                raise NotFound(
                    f"{self._why()} The call has waited for {self._seconds:g} s. Call again, or say which app to call: "
                    "deployed_app_rid=..."
                )
            await until(self._executors.engine.lifecycle, lambda: not self._modules(), min(left, LOOK_SECONDS))

    def _why(self) -> Diagnosis:
        modules = self._modules()
        return diagnose_startup(self._query_type, modules[0] if modules else None)
