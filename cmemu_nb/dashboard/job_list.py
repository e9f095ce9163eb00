"""The jobs that match a filter, newest first, updated by the jobs that changed."""

from __future__ import annotations

import bisect
import json
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.wire.job_ids import ending_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.state import State

MAX_SEARCHED = 100_000


class JobFilter(msgspec.Struct, frozen=True):
    """A filter of jobs; "" matches any. `text` is searched for in ids, names, errors and the first 100 kB of bodies."""

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
        return not self.text or self._has_text(job)

    def _has_text(self, job: Job) -> bool:
        text, spellings = _spellings(self.text)
        names = (_casefold(job.query_type), _casefold(job.runtime_id), job.job_id, job.replica_id or "")
        if text.startswith("…") and job.job_id.endswith(ending_of(text)):  # a shortened id, copied from a table
            return True
        if any(text in each for each in names) or text in (job.error_message or "").casefold():
            return True
        bodies = (job.query[:MAX_SEARCHED].lower(), (job.result or b"")[:MAX_SEARCHED].lower())
        return any(each in body for each in spellings for body in bodies)


# Many jobs share few names.
_casefold = lru_cache(maxsize=1_000)(str.casefold)


@lru_cache(maxsize=8)
def _spellings(text: str) -> tuple[str, set[bytes]]:
    """Return a text in lower case, and its possible spellings in a body whose ASCII letters are in lower case.

    JSON may spell it with escapes.
    """
    cases = {text, text.lower(), text.upper(), text.casefold()}
    plain = {each.encode(errors="replace").lower() for each in cases}
    return text.casefold(), plain | {json.dumps(each)[1:-1].encode().lower() for each in cases}


class JobList:
    """The jobs that match a `JobFilter`. After the first search an update costs as much as the jobs that changed.

    With an empty filter nothing is searched: the state itself has the number of jobs and the newest ones.
    """

    def __init__(self, state: State, wanted: JobFilter) -> None:
        self.filter = wanted
        self._state = state
        self._all = wanted == JobFilter()
        jobs = [] if self._all else state.jobs()
        found = sorted((job for job in jobs if wanted.matches(job)), key=attrgetter("sequence"))
        # Plain values: a hundred thousand tuples would make the garbage collector slow, and it stops every thread.
        self._sequences = [job.sequence for job in found]
        self._job_ids = [job.job_id for job in found]
        self._places = dict(zip(self._job_ids, self._sequences, strict=True))

    def update(self, changed: Iterable[str]) -> None:
        """Add or remove the jobs that changed."""
        for job_id in () if self._all else changed:
            job = self._state.find_job(job_id)
            wanted = job is not None and self.filter.matches(job)
            if not wanted and job_id in self._places:
                self._remove(job_id)
            elif job is not None and wanted and job_id not in self._places:
                self._add(job)

    def _add(self, job: Job) -> None:
        place = bisect.bisect_left(self._sequences, job.sequence)
        self._sequences.insert(place, job.sequence)
        self._job_ids.insert(place, job.job_id)
        self._places[job.job_id] = job.sequence

    def _remove(self, job_id: str) -> None:
        place = bisect.bisect_left(self._sequences, self._places.pop(job_id))
        del self._sequences[place], self._job_ids[place]

    def newest(self, most: int) -> list[Job]:
        """Return the newest jobs, newest first."""
        if self._all:
            return self._state.newest_jobs(most)
        jobs = map(self._state.find_job, self._job_ids[: -most - 1 : -1])
        return [job for job in jobs if job is not None]

    def __len__(self) -> int:
        return self._state.count().total() if self._all else len(self._job_ids)
