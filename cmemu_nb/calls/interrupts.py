"""Interruptible calls: an interrupt of a call cancels the jobs that it has submitted."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from cmemu_nb.errors import InvalidRequest, JobEnded
from cmemu_nb.eventloop.ending import ending_here
from cmemu_nb.eventloop.shell import cell_is_running, running_cell, when_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from cmemu_nb.calls.handles import JobHandle
    from cmemu_nb.calls.wait_line import WaitLine
    from cmemu_nb.engine.engine import Engine

T = TypeVar("T")
LEAVE = "leave"
WAYS = ("cancel", LEAVE)
JOB_ENDED = "the job that called it was ended"
CANCELLED = "the unfinished jobs of this call are cancelled"


class Interruptible:
    """A call and the jobs that it has submitted: an interrupt cancels the unfinished ones, or leaves them.

    Create it in the thread of the caller. `line` says why the call waits; `interrupt` is 'cancel' or 'leave', None for
    the emulator's setting; anything else is an `InvalidRequest`. `jobs` are ids of jobs that belong to the call from
    the start.
    """

    def __init__(self, engine: Engine, line: WaitLine, interrupt: str | None = None, jobs: Iterable[str] = ()) -> None:
        if interrupt not in (None, *WAYS):
            raise InvalidRequest(f"interrupt must be 'cancel' or 'leave', not {interrupt!r}.")
        self._home = engine.home
        self._lifecycle = engine.lifecycle
        self._cancels = (interrupt or engine.settings.interrupt) != LEAVE
        self._ending = ending_here()
        self._caller = "cell" if cell_is_running() else "program"
        self._jobs = set(jobs)
        self._interrupted = ""
        self._line = line
        self._cell: object | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the call's coroutine on the emulator's loop, wait for it and return its result."""
        try:
            with self._line as line, self._ends_with_its_job():
                return self._home.run(coroutine, line.tick)
        except JobEnded:
            self._end(JOB_ENDED)
            raise
        except KeyboardInterrupt as interrupt:
            if self._cancels and self._jobs:
                interrupt.args = (CANCELLED,)
            self._end_by_interrupt()
            raise

    def watch_cell(self) -> None:
        """Make an interrupt of the running cell end the call, even if the cell does not wait for the call."""
        cell = running_cell()
        if cell not in (None, self._cell):
            self._cell = cell
            when_interrupted(self._end_by_interrupt)

    def _end_by_interrupt(self) -> None:
        self._end(f"the {self._caller} that called it was interrupted")

    @contextlib.contextmanager
    def _ends_with_its_job(self) -> Iterator[None]:
        """In a function in a cell: cancel the call's jobs when the function's own job ends."""
        if self._ending is None:
            yield
            return
        # This happens before the slot of the function's job is free: otherwise the jobs would run and call others.
        self._ending.calls.add(self._job_ended)
        try:
            yield
        finally:
            self._ending.calls.discard(self._job_ended)

    def _job_ended(self) -> None:
        if self._cancels:
            self._cancel(JOB_ENDED)

    async def arun(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Do as `run()` does, in async code; cancelling the waiting task counts as an interrupt."""
        try:
            with self._line as line, self._ends_with_its_job():
                return await self._home.arun(coroutine, line.tick)
        except asyncio.CancelledError:
            self._end(f"the {self._caller} that awaited it was interrupted or stopped waiting")
            raise

    def _end(self, reason: str) -> None:
        # This does not wait, so that a second interrupt ends the cell even if the emulator's loop is blocked.
        if self._cancels:
            with contextlib.suppress(RuntimeError):  # the emulator is stopped
                self._home.loop.call_soon_threadsafe(self._cancel, reason)

    # On the emulator's loop

    async def submit(self, submission: Callable[[], Coroutine[Any, Any, JobHandle]]) -> JobHandle:
        """Submit a job of the call. A cancellation does not stop the submission: the job's id would be unknown."""
        submitting = asyncio.ensure_future(submission())
        submitting.add_done_callback(self._submitted)
        return await asyncio.shield(submitting)

    def _submitted(self, submitting: asyncio.Task[JobHandle]) -> None:
        if submitting.cancelled() or submitting.exception() is not None:
            return
        self._jobs.add(submitting.result().id)
        self._line.add(submitting.result().id)
        if self._interrupted:
            self._cancel(self._interrupted)

    def forget(self, job_id: str) -> None:
        """Remove a job that has ended."""
        self._jobs.discard(job_id)
        self._line.forget(job_id)

    def _cancel(self, reason: str) -> None:
        self._interrupted = reason
        self._lifecycle.cancel(self._jobs, reason)
        self._jobs.clear()
