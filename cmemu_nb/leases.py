"""The lease of a job: how long whoever took it may run it, when `job_timeout` is set."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmemu_nb.events import Event
    from cmemu_nb.lifecycle import Lifecycle

ENDS_LEASE = frozenset({"job_succeeded", "job_failed", "job_cleared", "job_given_back"})


class Leases:
    """Fails jobs that run for too long. One timer for each running job, on the emulator's loop."""

    def __init__(self, lifecycle: Lifecycle, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._lifecycle = lifecycle
        self._loop = loop
        self._seconds = seconds
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._unsubscribe: Callable[[], None] = lifecycle.events.subscribe(self._hear)

    def _hear(self, event: Event) -> None:
        job_id = event.job_id or ""
        if event.kind == "job_started":
            self._timers[job_id] = self._loop.call_later(self._seconds, self._run_out, job_id)
        elif event.kind in ENDS_LEASE and job_id in self._timers:
            self._timers.pop(job_id).cancel()

    def _run_out(self, job_id: str) -> None:
        self._lifecycle.fail(job_id, f"the job's lease ran out: no result within {self._seconds:g} s (job_timeout)")

    def close(self) -> None:
        """Let every job run on."""
        self._unsubscribe()
        for timer in self._timers.values():
            timer.cancel()
