"""The jobs that match a filter, newest first, kept up to date by what changed."""

from __future__ import annotations

import bisect
import json
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.results import outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.model import Job
    from cmemu_nb.state import State

MOST_SEARCHED = 100_000


class JobFilter(msgspec.Struct, frozen=True):
    """What jobs are wanted; "" wants any. `text` is looked for in ids, names, errors and the first 100 kB of bodies."""

    runtime: str = ""
    function: str = ""
    status: str = ""
    outcome: str = ""
    text: str = ""

    def matches(self, job: Job) -> bool:
        """Tell whether a job is wanted."""
        if self.runtime not in ("", job.runtime_id) or self.function not in ("", job.query_type):
            return False
        if self.status not in ("", job.status) or self.outcome not in ("", outcome(job)):
            return False
        return not self.text or self._says(job)

    def _says(self, job: Job) -> bool:
        text = self.text.casefold()
        words = (job.job_id, job.query_type, job.runtime_id, job.error_message or "", job.replica_id or "")
        if any(text in each.casefold() for each in words):
            return True
        # JSON may have it in escapes.
        ways = {text.encode(errors="replace"), json.dumps(text)[1:-1].lower().encode()}
        bodies = (job.query[:MOST_SEARCHED].lower(), (job.result or b"")[:MOST_SEARCHED].lower())
        return any(way in body for way in ways for body in bodies)


class JobList:
    """The jobs of a `JobFilter`. After the first look it costs as much as has changed, whatever the history."""

    def __init__(self, state: State, wanted: JobFilter) -> None:
        self.filter = wanted
        self._state = state
        self._found: list[tuple[int, str]] = []
        self.look()

    def look(self) -> None:
        """Look at every job: after a reset, and at first."""
        self._found = sorted((job.sequence, job.job_id) for job in self._state.jobs() if self.filter.matches(job))

    def update(self, changed: Iterable[str]) -> None:
        """Look again at the jobs that changed."""
        for job_id in changed:
            job = self._state.find_job(job_id)
            if job is not None:
                self._put(job)

    def _put(self, job: Job) -> None:
        entry = (job.sequence, job.job_id)
        place = bisect.bisect_left(self._found, entry)
        there = place < len(self._found) and self._found[place] == entry
        if there and not self.filter.matches(job):
            del self._found[place]
        elif not there and self.filter.matches(job):
            self._found.insert(place, entry)

    def newest(self, most: int) -> list[Job]:
        """Return the newest jobs, newest first."""
        jobs = (self._state.find_job(job_id) for _, job_id in self._found[: -most - 1 : -1])
        return [job for job in jobs if job is not None]

    def __len__(self) -> int:
        return len(self._found)
