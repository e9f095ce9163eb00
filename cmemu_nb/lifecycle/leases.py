"""The lease of a job: how long whoever took it may run it, when `job_timeout` is set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.lifecycle.records import NS_PER_S, JobStatus

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.lifecycle import Lifecycle

ENDS_LEASE = frozenset({"job_succeeded", "job_failed", "job_cleared", "job_given_back"})


class Leases:
    """Fails jobs that run for too long, also those that run already. One timer for each, on the emulator's loop."""

    def __init__(self, lifecycle: Lifecycle, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._lifecycle = lifecycle
        self._loop = loop
        self._seconds = seconds
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._unsubscribe: Callable[[], None] = lifecycle.events.subscribe(self._on_event)
        for job in lifecycle.jobs():
            if job.status == JobStatus.RUNNING:
                self._grant(job.job_id, seconds - (job.run_time(lifecycle.steady()) or 0) / NS_PER_S)

    def _on_event(self, event: Event) -> None:
        job_id = event.job_id or ""
        if event.kind == "job_started":
            self._grant(job_id, self._seconds)
        elif event.kind in ENDS_LEASE and job_id in self._timers:
            self._timers.pop(job_id).cancel()

    def _grant(self, job_id: str, seconds: float) -> None:
        self._timers[job_id] = self._loop.call_later(seconds, self._run_out, job_id)

    def _run_out(self, job_id: str) -> None:
        del self._timers[job_id]
        self._lifecycle.fail(job_id, f"the job's lease ran out: no result within {self._seconds:g} s (job_timeout)")

    def close(self) -> None:
        """Let every job run on."""
        self._unsubscribe()
        for timer in self._timers.values():
            timer.cancel()
