"""The scaling of one launched module: it applies what `Scaler` decides. It is used on the emulator's loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.errors import CmemuError
from cmemu_nb.lifecycle.events import ENDS_RUN
from cmemu_nb.lifecycle.scaling import Scale, Scaler

if TYPE_CHECKING:
    import asyncio

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.executors.modules.modules import LaunchedModule
    from cmemu_nb.executors.modules.process import ReplicaProcess
    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.scaling import Decision, Scaling

MAX_SECONDS = 3600.0
"""How long a timer runs at most: any number of seconds may be given as a delay."""
RETRY_SECONDS = 10.0
"""How long after a replica could not be started it is tried again at the latest."""
CHANGES_LOAD = ENDS_RUN | {"job_queued", "job_started", "replica_ready"}


class AutoScaling:
    """Starts and decommissions replicas of a module whose first ones have been started, until `end()`.

    The module had `before` replicas; `why` says why it has others now.
    """

    def __init__(
        self,
        engine: Engine,
        module: LaunchedModule,
        scaling: Scaling,
        max_concurrent_tasks: int,
        before: int = 0,
        why: str = "it was launched",
    ) -> None:
        self._engine = engine
        self._module = module
        self._scaling = scaling
        self._scaler = Scaler(scaling, max_concurrent_tasks)
        self._starting = False
        self._observes_soon = False
        self._next: asyncio.Handle | None = None
        self._record(before, len(module.in_service), why)
        self._unsubscribe = engine.lifecycle.events.subscribe(self._on_event)
        self._observe_soon()

    def end(self) -> None:
        """Decide nothing more."""
        self._unsubscribe()
        if self._next is not None:
            self._next.cancel()

    def _on_event(self, event: Event) -> None:
        if event.runtime_id == self._module.runtime_id and (
            # A first poll causes no event of its own if there is no job for it.
            event.kind in CHANGES_LOAD or (self._starting and event.kind == "poll_empty")
        ):
            self._observe_soon()

    def _observe_soon(self) -> None:
        if not self._observes_soon:  # jobs may come by the thousand
            self._observes_soon = True
            self._observe_in(0)

    def _observe_in(self, seconds: float) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = self._engine.home.loop.call_later(min(seconds, MAX_SECONDS), self._observe)

    def _observe(self) -> None:
        self._observes_soon = False
        state, runtime_id = self._engine.lifecycle, self._module.runtime_id
        if not state.has_runtime(runtime_id):  # its deletion ends the module at once
            return
        replicas = self._module.in_service
        running = sum(len(each.replica.held) for each in replicas)
        self._starting = any(each.exit_code is None and not each.has_been_responsive for each in replicas)
        now = self._engine.home.loop.time() * self._scaling.speedup
        queued = state.queue_depth(runtime_id)
        decision = self._scaler.observe(now, running, queued, len(replicas), starting=self._starting)
        if decision is not None:
            self._observe_in(0 if self._apply(decision) else RETRY_SECONDS)
        elif self._scaler.due is not None:
            self._observe_in((self._scaler.due - now) / self._scaling.speedup)

    def _apply(self, decision: Decision) -> bool:
        """Start or decommission replicas; return whether that could be done."""
        self._record(decision.before, decision.after, decision.why(self._scaling.speedup))
        if decision.after < decision.before:
            self._module.decommission(min(self._module.in_service, key=_cost_of_removal), "it was scaled down")
            return True
        try:
            for _ in range(decision.after - decision.before):
                self._module.add_replica()
        except (CmemuError, OSError) as error:
            self._record(decision.after, len(self._module.in_service), f"a replica could not be started: {error}")
            return False
        return True

    def _record(self, before: int, after: int, why: str) -> None:
        scale = Scale(after, self._scaling.min, self._scaling.max)
        self._engine.lifecycle.set_scale(self._module.runtime_id, scale, f"from {before} to {after}: {why}")


def _cost_of_removal(process: ReplicaProcess) -> tuple[bool, int, int]:
    """Return what is least for the replica that is best removed: an ended one, one with few jobs, the newest."""
    return process.exit_code is None, len(process.replica.held), -process.number
