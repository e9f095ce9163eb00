"""One runtime's session: what belongs to it and is discarded by a reset, such as replicas and result streams."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.lifecycle.records import JobStatus, Outcome
from cmemu_nb.lifecycle.scratch import Scratch
from cmemu_nb.phrases import plural
from cmemu_nb.tokens import scratch_token
from cmemu_nb.wire.results import function_error, may_be_error

if TYPE_CHECKING:
    from cmemu_nb.lifecycle.job_log import JobLog
    from cmemu_nb.lifecycle.records import FunctionSchema, Job, Runtime
    from cmemu_nb.lifecycle.scaling import Scale


class ThrownAway(msgspec.Struct, frozen=True):
    """How much a reset or a deletion of a session discarded."""

    jobs: int = 0
    schemas: int = 0
    deployed_apps: int = 0

    def __str__(self) -> str:
        parts = [
            plural(count, noun)
            for count, noun in ((self.jobs, "job"), (self.schemas, "schema"), (self.deployed_apps, "binding"))
            if count
        ]
        return ", ".join(parts) or "nothing"

    def __bool__(self) -> bool:
        return bool(self.jobs or self.schemas or self.deployed_apps)


class ResultStream:
    """A result that arrives in chunks: `body` is what has arrived so far, readable from any thread while it grows."""

    __slots__ = ("body", "complete", "job_id")

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        # One buffer, not a list of chunks: a chunk of one byte takes 40 bytes in a list.
        self.body = bytearray()
        self.complete = False

    @property
    def size(self) -> int:
        """How many bytes have arrived."""
        return len(self.body)


class Replica:
    """One running copy of a compute module, identified by its token, with the jobs that it holds.

    It may hold at most `max_concurrent_tasks` of them; that is None for the session's own token, which has no limit.
    `launched` says whether the replica ends with this process, `heard` whether it has sent any request, and `revoked`
    whether its token has become invalid; `polls` counts its polls since its start or last restart. `ready` says whether
    its readiness probe succeeds, None before it has succeeded once; it is True without such a probe. One on `standby`
    gets no jobs, and keeps the `schemas` that it posts, None if it has posted none, until it takes the place of others.
    """

    __slots__ = (
        *("heard", "held", "launched", "max_concurrent_tasks", "polls", "ready", "replica_id", "revoked"),
        *("runtime_id", "schemas", "standby", "token"),
    )

    def __init__(
        self,
        runtime_id: str,
        replica_id: str,
        token: str,
        max_concurrent_tasks: int | None,
        *,
        launched: bool = False,
        ready: bool | None = True,
        standby: bool = False,
    ) -> None:
        self.runtime_id = runtime_id
        self.replica_id = replica_id
        self.token = token
        self.max_concurrent_tasks = max_concurrent_tasks
        self.launched = launched
        self.standby = standby
        self.schemas: dict[str, bytes] | None = None
        self.held: dict[str, None] = {}
        self.heard = False
        self.polls = 0
        self.ready = ready
        self.revoked = False

    @property
    def scratch_token(self) -> str:
        """Its token for the scratch routes, by which it shares a cache and locks with the runtime's other executors."""
        return scratch_token(self.token)

    @property
    def takes_jobs(self) -> bool:
        """Whether it has polled, is ready, and is neither on standby nor being decommissioned."""
        return self.polls > 0 and bool(self.ready) and not self.standby and self.max_concurrent_tasks != 0

    @property
    def full(self) -> bool:
        """Whether it holds as many unfinished jobs as it may, which is none until it is ready, and on standby."""
        most = 0 if self.standby or not self.ready else self.max_concurrent_tasks
        return most is not None and len(self.held) >= most


class Session:
    """All that belongs to one runtime and is discarded by a reset.

    `counts` says how many jobs have each status, `evicted` how many were evicted. `unread` has the jobs whose results
    may be a function's error and have not been parsed yet, `function_errors` those whose results are one: results are
    parsed when their outcomes are first asked for, each once. `scratch` has what the replicas share. `scale` says how
    many replicas there should be, None if no module is scaled.
    """

    __slots__ = (
        *("apps", "counts", "evicted", "function_errors", "jobs", "logs", "queue", "replicas", "runtime", "scale"),
        *("schemas", "scratch", "streams", "unread"),
    )

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.jobs: dict[str, Job] = {}
        self.counts: Counter[JobStatus] = Counter()
        self.evicted = 0
        self.unread: dict[str, None] = {}
        self.function_errors: dict[str, None] = {}
        self.queue: OrderedDict[str, Job] = OrderedDict()
        self.schemas: dict[str, FunctionSchema] = {}
        self.apps: dict[tuple[str, str], None] = {}
        self.streams: dict[str, ResultStream] = {}
        self.logs: dict[str, JobLog] = {}
        self.replicas: dict[str, Replica] = {}
        self.scratch = Scratch()
        self.scale: Scale | None = None

    def note_result(self, job: Job) -> None:
        """Note a job that succeeded as unread if its result may be a function's error."""
        if may_be_error(job.result or b""):
            self.unread[job.job_id] = None

    def forget(self, job_id: str) -> None:
        """Drop a job that has ended."""
        del self.jobs[job_id]
        self.drop_log(job_id)
        self.unread.pop(job_id, None)
        self.function_errors.pop(job_id, None)

    def drop_log(self, job_id: str) -> None:
        """Drop what a job has printed."""
        log = self.logs.pop(job_id, None)
        if log is not None:
            log.close()

    def outcomes(self) -> Counter[str]:
        """Return how many jobs are in each of the `STATES`; from any thread."""
        counts = (
            self.counts.copy()
        )  # before the results are read: a job that ends meanwhile must not look like a success
        return outcomes(counts, self.count_function_errors())

    def count_function_errors(self) -> int:
        """Return how many jobs have results that are a function's error; from any thread."""
        for job_id in list(self.unread) if self.unread else ():
            job = self.jobs.get(job_id)
            if job is not None and function_error(job.result or b"") is not None:
                self.function_errors[job_id] = None
                if job_id not in self.jobs:  # another thread has dropped it meanwhile
                    self.function_errors.pop(job_id, None)
            self.unread.pop(job_id, None)
        return len(self.function_errors)

    def put_back(self, job: Job) -> None:
        """Put a job back at the head of the queue, but behind older jobs."""
        older = []
        for other in self.queue.values():
            if other.sequence > job.sequence:
                break
            older.append(other)
        for each in (job, *reversed(older)):
            self.queue[each.job_id] = each
            self.queue.move_to_end(each.job_id, last=False)


def outcomes(counts: Counter[JobStatus], function_errors: int) -> Counter[str]:
    """Return how many jobs are in each of the `STATES`, given how many have each status and are function errors."""
    errors = min(function_errors, counts[JobStatus.SUCCEEDED])
    return Counter(
        {
            JobStatus.QUEUED: counts[JobStatus.QUEUED],
            JobStatus.RUNNING: counts[JobStatus.RUNNING],
            Outcome.OK: counts[JobStatus.SUCCEEDED] - errors,
            Outcome.FUNCTION_ERROR: errors,
            Outcome.FAILED: counts[JobStatus.FAILED],
        }
    )
