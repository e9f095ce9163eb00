"""When each job waited and ran, and the lane in which it ran, for the charts and the dashboard's timeline.

A lane is one slot of an executor: a replica that takes one job at a time has one lane, and one that takes four has
four. Jobs that were taken through the emulator's own routes have no replica; their lanes are called "worker N".
"""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from cmemu_nb.display.text import short_text
from cmemu_nb.lifecycle.records import JobStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.lifecycle.records import Job, Outcome

MAX_REPLICA_NAME = 21


class Span(NamedTuple):
    """A job and its times in Unix nanoseconds, complete and in order; `end` is its outcome, or else its status."""

    job: Job
    end: JobStatus | Outcome
    queued: int
    left_queue: int
    ended: int

    @property
    def ran(self) -> bool:
        """Whether an executor took the job."""
        return self.job.started_at is not None

    @property
    def taken(self) -> int:
        """The time at which an executor took the job, by the clock that also says when its slot was `freed`.

        `left_queue` of a job that runs is computed from a measured duration, and differs if the clocks were read at
        different moments: the job would seem to start before the one whose slot it took had ended.
        """
        return self.left_queue if self.job.started_at is None else self.job.started_at

    @property
    def freed(self) -> int:
        """The time from which on its slot was free.

        It is read from the clock that says when jobs were started. That of the measured durations may differ by
        milliseconds after some seconds, and the next job, which starts at once, would seem to need another slot.
        """
        return max(self.left_queue, min(self.ended, self.job.completed_at or self.ended))


def span_of(job: Job, now: int, steady: int) -> Span:
    """Return when a job waited and ran: its measured durations, placed around the time at which it was taken.

    `now` is the time up to which unfinished jobs last, and `steady` the same time on the steady clock.
    """
    waited, ran = job.queue_time(steady) or 0, job.run_time(steady) or 0
    if not job.finished:
        left_queue = now - ran
    elif job.started_at is None:
        left_queue = job.queued_at + waited
    else:
        left_queue = job.started_at
    return Span(job, job.outcome or job.status, left_queue - waited, left_queue, left_queue + ran)


class Lane(NamedTuple):
    """One slot of an executor; `replica_id` is "" for the workers of the emulator's own routes."""

    runtime_id: str
    replica_id: str
    number: int

    @property
    def label(self) -> str:
        """The lane's name: 'worker 2', '3f9a12bc', '3f9a12bc · 2'."""
        if not self.replica_id:
            return f"worker {self.number}"
        name = short_text(self.replica_id, MAX_REPLICA_NAME)
        return f"{name} · {self.number}" if self.number > 1 else name


class _Slots:
    """The lanes of one executor. Those that are free are found in logarithmic time, the lowest number first."""

    def __init__(self) -> None:
        self._ends: list[int] = []
        self._free: list[int] = []
        self._ending: list[tuple[int, int]] = []

    def take(self, at: int) -> int:
        """Return the lowest number that is free from `at` on."""
        while self._ending and self._ending[0][0] <= at:
            heappush(self._free, heappop(self._ending)[1])
        later = []  # a job that comes out of order must not overlap those that came before it
        while self._free and self._ends[self._free[0]] > at:
            later.append(heappop(self._free))
        number = heappop(self._free) if self._free else len(self._ends)
        if number == len(self._ends):
            self._ends.append(at)
        for each in later:
            heappush(self._free, each)
        return number + 1

    def release(self, number: int, at: int) -> None:
        """Free a number from `at` on."""
        self._ends[number - 1] = at
        heappush(self._ending, (at, number - 1))


class Lanes:
    """Places jobs in the first lane of their executor that is free. Jobs can be placed as they come, and stay there.

    `running` has the ids of the jobs that hold their lanes until they are placed as ended.
    """

    def __init__(self) -> None:
        self.running: set[str] = set()
        self._slots: dict[tuple[str, str], _Slots] = {}
        # Plain values: a hundred thousand tuples would make the garbage collector slow, and it stops every thread.
        self._placed: dict[str, Lane] = {}
        self._started: dict[str, int] = {}
        self._lanes: dict[Lane, Lane] = {}

    def place(self, spans: Iterable[Span]) -> dict[str, Lane]:
        """Place new jobs, and free the lanes of those that have ended; returns the lanes of these jobs by job id."""
        ran = sorted((span for span in spans if self._settle(span)), key=attrgetter("taken"))
        return {span.job.job_id: self._lane(span) for span in ran}

    def remove(self, job_id: str) -> None:
        """Forget a job that has ended."""
        self._placed.pop(job_id, None)
        self._started.pop(job_id, None)
        self.running.discard(job_id)

    def _settle(self, span: Span) -> bool:
        """Free the lane of a job that has ended or was given back; returns whether the job has or needs a lane."""
        lane = self._placed.get(span.job.job_id)
        if lane is None:
            return span.ran
        started_at = self._started[span.job.job_id]
        moved = started_at != span.job.started_at
        if span.job.job_id in self.running and (moved or span.end != JobStatus.RUNNING):
            # A job that was given back is not drawn there any more: another may have started in its slot since.
            self._slots[lane[:2]].release(lane.number, started_at if moved else span.freed)
            self.running.remove(span.job.job_id)
        if moved:
            self.remove(span.job.job_id)
        return span.ran

    def _lane(self, span: Span) -> Lane:
        job = span.job
        if job.job_id in self._placed:
            return self._placed[job.job_id]
        executor = (job.runtime_id, job.replica_id or "")
        slots = self._slots.setdefault(executor, _Slots())
        lane = Lane(*executor, slots.take(span.taken))
        if span.end == JobStatus.RUNNING:
            self.running.add(job.job_id)
        else:
            slots.release(lane.number, span.freed)
        self._started[job.job_id] = job.started_at or 0
        return self._placed.setdefault(job.job_id, self._lanes.setdefault(lane, lane))


def queue_depth(spans: Iterable[Span]) -> list[tuple[int, int]]:
    """Return how many jobs were queued, as steps: a time, and the number from then on, in order of time."""
    changes: Counter[int] = Counter()
    for span in spans:
        changes[span.queued] += 1
        if span.end != JobStatus.QUEUED:
            changes[span.left_queue] -= 1
    times = sorted(at for at, change in changes.items() if change)
    return list(zip(times, accumulate(changes[at] for at in times), strict=True))
