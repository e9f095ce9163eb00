"""The line that says why a call still waits, shown after two seconds without progress."""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, Self

from cmemu_nb.calls.diagnosis import Diagnosis, diagnose
from cmemu_nb.calls.one_line import OneLine, is_wanted, one_line
from cmemu_nb.executors.cells.current_job import RUNNING
from cmemu_nb.lifecycle.records import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cmemu_nb.executors.cells.job_thread import JobThread
    from cmemu_nb.executors.executors import Executors
    from cmemu_nb.settings import Settings

PATIENCE_SECONDS = 2.0
UPDATE_SECONDS = 1.0
NOT_TAKEN = Diagnosis(
    "not_submitted",
    "The emulator has not accepted the call yet: an event callback, or a long computation, keeps its loop busy.",
)


def no_result(seconds: float) -> str:
    """Return the beginning of a line: how long there has been no result."""
    return f"No result for {int(seconds)} s."


def shows_progress(settings: Settings, progress: bool | None) -> bool:  # noqa: FBT001
    """Return whether a call shows its progress; None stands for the setting `progress`."""
    return is_wanted(progress=bool(settings.progress if progress is None else progress))


class WaitLine:
    """The line of one call, used in a `with` block around the wait.

    `jobs` are the ids of the unfinished jobs that the call waits for, in the order of their submission; `total` is how
    many jobs there are in all, for a map; `before` returns why no job is submitted yet. The caller's thread calls
    `tick()` repeatedly, which costs nothing until it is time to show something. `progress` False shows nothing (None
    stands for the setting `progress`), and nothing is shown if the environment variable `CI` is set.
    """

    def __init__(
        self,
        executors: Executors,
        jobs: Iterable[str] = (),
        *,
        progress: bool | None = None,
        total: int = 0,
        before: Callable[[], Diagnosis] = lambda: NOT_TAKEN,
    ) -> None:
        self.jobs = dict.fromkeys(jobs)
        self._executors = executors
        self._wanted = progress
        self._total = total
        self._before = before
        self._done = 0
        self._progress = False
        self._begun = self._due = 0.0
        self._line: OneLine | None = None
        self._caller: JobThread | None = None

    def __enter__(self) -> Self:
        self._begin()
        self._caller = RUNNING.get()
        if self._caller is not None:
            self._caller.waits.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._caller is not None:
            self._caller.waits.remove(self)
        self._clear()

    def add(self, job_id: str) -> None:
        """Add a job that was submitted."""
        self.jobs[job_id] = None

    def forget(self, job_id: str) -> None:
        """Remove a job that has ended; any thread may call this."""
        self.jobs.pop(job_id, None)
        self._done += 1
        self._progress = True

    def tick(self) -> None:
        """Show or replace the line, if it is time to do so."""
        now = time.monotonic()
        if self._progress:
            self._progress = False
            self._clear()
            self._begin()
        elif now >= self._due:
            self._due = now + UPDATE_SECONDS
            # An error of the line must not end the call.
            with contextlib.suppress(Exception):
                self._show(int(now - self._begun))

    def _begin(self) -> None:
        self._begun = time.monotonic()
        self._due = self._begun + PATIENCE_SECONDS

    def _show(self, seconds: int) -> None:
        if not shows_progress(self._executors.engine.settings, self._wanted):
            self._due = math.inf
            return
        job_id = next(iter(self.jobs), None)
        why = self._before() if job_id is None else diagnose(self._executors, job_id)
        if job_id is not None and self._has_just_ended(job_id):
            return
        self._line = self._line or one_line()
        self._line.show(why.kind, f"{self._beginning(seconds)} {why}")

    def _has_just_ended(self, job_id: str) -> bool:
        job = self._executors.engine.lifecycle.find_job(job_id)
        ended_at = job.completed_at if job is not None else None
        return ended_at is not None and time.time_ns() - ended_at < PATIENCE_SECONDS * NS_PER_S

    def _beginning(self, seconds: int) -> str:
        if self._total > 1:
            return f"{self._done:,} of {self._total:,} jobs are done, no further one for {seconds} s."
        return no_result(seconds)

    def _clear(self) -> None:
        if self._line is not None:
            with contextlib.suppress(Exception):
                self._line.clear()
