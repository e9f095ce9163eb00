"""The jobs that match a filter: running and queued ones first, then the newest, updated by the jobs that changed."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.dashboard.search import terms_of
from cmemu_nb.lifecycle.records import JobStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.state import State


class JobFilter(msgspec.Struct, frozen=True):
    """A filter of jobs; "" matches any. `text` is a search line, see `search.py`."""

    runtime: str = ""
    function: str = ""
    status: str = ""
    outcome: str = ""
    text: str = ""

    def matches(self, job: Job) -> bool:
        """Return whether a job matches the filter."""
        if self.runtime not in ("", job.runtime_id) or self.function not in ("", job.query_type):
            return False
        if self.status not in ("", job.status) or (self.outcome and self.outcome != job.outcome):
            return False
        return all(term.matches(job) for term in terms_of(self.text))


class _Ids:
    """The ids of some jobs in the order of their submission."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        # Plain values: a hundred thousand tuples would make the garbage collector slow, and it stops every thread.
        self._places = dict(sorted(((job.job_id, job.sequence) for job in jobs), key=lambda each: each[1]))
        self._sequences, self._job_ids = list(self._places.values()), list(self._places)

    def add(self, job: Job) -> None:
        if job.job_id not in self._places:
            place = bisect.bisect_left(self._sequences, job.sequence)
            self._sequences.insert(place, job.sequence)
            self._job_ids.insert(place, job.job_id)
            self._places[job.job_id] = job.sequence

    def remove(self, job_id: str) -> None:
        if job_id in self._places:
            place = bisect.bisect_left(self._sequences, self._places.pop(job_id))
            del self._sequences[place], self._job_ids[place]

    def newest(self, most: int) -> list[str]:
        return self._job_ids[: -most - 1 : -1]

    def __len__(self) -> int:
        return len(self._job_ids)


class JobList:
    """The jobs that match a `JobFilter`. After the first search an update costs as much as the jobs that changed.

    With an empty filter nothing is searched: the state itself has the number of jobs and the newest ones.
    """

    def __init__(self, state: State, wanted: JobFilter) -> None:
        self.filter = wanted
        self._state = state
        self._all = wanted == JobFilter()
        found = _unfinished(state) if self._all else [job for job in state.jobs() if wanted.matches(job)]
        self._running = _Ids(job for job in found if job.status == JobStatus.RUNNING)
        self._queued = _Ids(job for job in found if job.status == JobStatus.QUEUED)
        self._finished = _Ids(job for job in found if job.finished)

    def update(self, changed: Iterable[str]) -> None:
        """Add, move or remove the jobs that changed."""
        for job_id in changed:
            job = self._state.find_job(job_id)
            place = None if job is None or not self.filter.matches(job) else self._place_of(job)
            for each in (self._running, self._queued, self._finished):
                if each is not place:
                    each.remove(job_id)
            if job is not None and place is not None:
                place.add(job)

    def _place_of(self, job: Job) -> _Ids | None:
        if job.finished:
            return None if self._all else self._finished
        return self._running if job.status == JobStatus.RUNNING else self._queued

    def newest(self, most: int) -> list[Job]:
        """Return at most `most` jobs: running ones, queued ones and finished ones, of each the newest first.

        Where there are many of both, half of them are finished ones.
        """
        active = [*self._running.newest(most), *self._queued.newest(most)]
        finished = self._newest_finished(most)
        room = max(most // 2, most - len(finished))
        jobs = map(self._state.find_job, dict.fromkeys([*active[:room], *finished]))
        return [job for job in jobs if job is not None][:most]

    def _newest_finished(self, most: int) -> list[str]:
        if not self._all:
            return self._finished.newest(most)
        # A queue that is much longer than the list is not searched for finished jobs behind it.
        active = len(self._running) + len(self._queued)
        jobs = self._state.newest_jobs(most + min(active, 3 * most))
        return [job.job_id for job in jobs if job.finished][:most]

    def __len__(self) -> int:
        if self._all:
            return self._state.count().total()
        return len(self._running) + len(self._queued) + len(self._finished)


def _unfinished(state: State) -> list[Job]:
    """Return the queued and running jobs. They are mostly among the newest; older ones are searched only if needed."""
    most = 200
    while True:
        counts, jobs = state.count(), state.newest_jobs(most)
        found = [job for job in jobs if not job.finished]
        if len(found) >= counts[JobStatus.QUEUED] + counts[JobStatus.RUNNING] or len(jobs) < most:
            return found
        most *= 10
