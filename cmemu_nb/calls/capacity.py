"""The capacity of a runtime at one moment: its executors and replicas, and what running functions wait for."""

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
    """What takes the jobs of a runtime: the executor of functions in cells, replicas, or nothing.

    `polling` are those of the `replicas` that have polled for jobs and are ready; `polls` says whether a poll waits at
    this moment. Any thread may create it. Raises `NotFound` for a runtime that was deleted.
    """

    def __init__(self, executors: Executors, runtime_id: str) -> None:
        engine, executor = executors.engine, executors.functions.executor(runtime_id)
        state = engine.lifecycle
        self.engine = engine
        self.runtime = state.runtime(runtime_id)
        self.running = state.running_jobs(runtime_id)
        self.executor = executor if executor is not None and executor.takes_jobs else None
        # A replica of a cluster with zero tasks is about to be removed.
        self.replicas = [each for each in state.replicas(runtime_id) if each.max_concurrent_tasks]
        self.polling = [each for each in self.replicas if each.takes_jobs]
        self.polls = engine.application.context.long_polls.holds_poll(runtime_id)
        self.modules = executors.modules_of(runtime_id)
        clusters = executors.clusters_of(runtime_id)
        self.seats = [seat for cluster in clusters for seat in list(cluster.seats.values())]
        self._state = state

    @property
    def exists(self) -> bool:
        """Whether an executor in cells, or a replica that has polled, takes jobs."""
        return self.executor is not None or bool(self.polling)

    @property
    def exhausted(self) -> bool:
        """Whether all of them hold as many jobs as they may."""
        full = self.executor is None or len(self.executor.busy) >= self.executor.slots
        return self.exists and full and all(each.full for each in self.polling)

    @property
    def deadlocked(self) -> bool:
        """Whether every running function waits for a queued job, which can't start until one of the functions ends."""
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
    """Return the thread of this process that runs a job's function, or None."""
    executor = executors.functions.executor(job.runtime_id)
    return next((each for each in executor.busy if each.job_id == job.job_id), None) if executor else None


def awaited(state: Lifecycle, thread: JobThread) -> Iterator[Job]:
    """Return the unfinished jobs that the function on a thread waits for."""
    ids = chain.from_iterable(list(each.jobs) for each in list(thread.waits))
    return (job for job in map(state.find_job, ids) if job is not None and not job.finished)


def last_awaited(executors: Executors, thread: JobThread | None) -> Job | None:
    """Return the last job in the chain of jobs that wait for each other, from a function's thread on; None if none."""
    last, seen = None, set()
    while thread is not None and thread not in seen:
        seen.add(thread)
        job = next(awaited(executors.engine.lifecycle, thread), None)
        if job is None:
            break
        last, thread = job, thread_of(executors, job)
    return last
