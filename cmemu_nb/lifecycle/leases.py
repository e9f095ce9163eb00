"""The lease of a running job: how long its executor may take, when `job_timeout` is set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.lifecycle.events import ENDS_RUN
from cmemu_nb.lifecycle.records import NS_PER_S, JobStatus

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.lifecycle import Lifecycle


class Leases:
    """Fails jobs that run for too long, by one timer each on the emulator's loop; also those that run already."""

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
        elif event.kind in ENDS_RUN and job_id in self._timers:
            self._timers.pop(job_id).cancel()

    def _grant(self, job_id: str, seconds: float) -> None:
        self._timers[job_id] = self._loop.call_later(seconds, self._expire, job_id)

    def _expire(self, job_id: str) -> None:
        del self._timers[job_id]
        self._lifecycle.fail(job_id, f"the job's lease ran out: no result within {self._seconds:g} s (job_timeout)")

    def close(self) -> None:
        """Stop the timers: jobs may run for any time."""
        self._unsubscribe()
        for timer in self._timers.values():
            timer.cancel()
