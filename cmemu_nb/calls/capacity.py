"""Who could take a runtime's jobs, and what the functions that run wait for, at one moment and from any thread."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from cmemu_nb.lifecycle.records import JobStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.executors.cells.job_thread import JobThread
    from cmemu_nb.executors.executors import Executors
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.lifecycle.records import Job


class Capacity:
    """Who takes the jobs of a runtime: the executor of functions in cells, replicas, or neither.

    `polling` are those of the `replicas` that have polled for jobs; `polls` says whether a poll is held at the moment.
    Raises `NotFound` for a runtime that was deleted.
    """

    def __init__(self, executors: Executors, runtime_id: str) -> None:
        engine, executor = executors.engine, executors.functions.executor(runtime_id)
        state = engine.lifecycle
        self.engine = engine
        self.runtime = state.runtime(runtime_id)
        self.running = state.running_jobs(runtime_id)
        self.executor = executor if executor is not None and executor.takes_jobs else None
        # A replica of a cluster that may hold no job is about to leave.
        self.replicas = [each for each in state.replicas(runtime_id) if each.max_concurrent_tasks]
        self.polling = [each for each in self.replicas if each.polls]
        self.polls = engine.application.context.waiting.holds_poll(runtime_id)
        self.modules = executors.modules.of(runtime_id)
        clusters = executors.clusters.of(runtime_id)
        self.seats = [seat for cluster in clusters for seat in list(cluster.seats.values())]
        self._state = state

    @property
    def exists(self) -> bool:
        """Whether anybody takes jobs who is known to be there."""
        return self.executor is not None or bool(self.polling)

    @property
    def exhausted(self) -> bool:
        """Whether all who take jobs have as many as they may."""
        full = self.executor is None or len(self.executor.busy) >= self.executor.slots
        return self.exists and full and all(each.full for each in self.polling)

    @property
    def deadlocked(self) -> bool:
        """Whether every function that runs waits for a job that is queued until one of them ends."""
        if self.executor is None or self.polling or not self.exhausted:
            return False
        stuck: set[str] = set()
        while more := {each.job_id for each in self.executor.busy if self._waits(each, stuck)} - stuck:
            stuck |= more
        return len(stuck) == len(self.executor.busy)

    def _waits(self, thread: JobThread, stuck: set[str]) -> bool:
        return any(
            job.job_id in stuck or (job.status == JobStatus.QUEUED and job.runtime_id == self.runtime.runtime_id)
            for job in awaited(self._state, thread)
        )


def thread_of(executors: Executors, job: Job) -> JobThread | None:
    """Return the thread of this process that runs a job's function, if one does."""
    executor = executors.functions.executor(job.runtime_id)
    return next((each for each in executor.busy if each.job_id == job.job_id), None) if executor else None


def awaited(state: Lifecycle, thread: JobThread) -> Iterator[Job]:
    """Return the unfinished jobs that a function waits for."""
    ids = chain.from_iterable(list(each.jobs) for each in list(thread.waits))
    return (job for job in map(state.find_job, ids) if job is not None and not job.finished)


def last_awaited(executors: Executors, thread: JobThread | None) -> Job | None:
    """Return the job that a function waits for in the end, as that one's function may wait for a further one."""
    last, seen = None, set()
    while thread is not None and thread not in seen:
        seen.add(thread)
        job = next(awaited(executors.engine.lifecycle, thread), None)
        if job is None:
            break
        last, thread = job, thread_of(executors, job)
    return last
