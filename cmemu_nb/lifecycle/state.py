"""The state of an emulator at this moment, for reading from any thread."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from cmemu_nb.errors import InvalidRequest, JobEvicted, NotFound, known
from cmemu_nb.lifecycle.configuration import Configuration
from cmemu_nb.lifecycle.data_changes import DataChanges
from cmemu_nb.lifecycle.data_streams import stream_not_found, subscriber_not_found
from cmemu_nb.lifecycle.datasets import DataSize, dataset_not_found
from cmemu_nb.lifecycle.job_log import JobLog, Printed
from cmemu_nb.lifecycle.records import JobStatus
from cmemu_nb.lifecycle.session import outcomes
from cmemu_nb.phrases import closest, quoted
from cmemu_nb.wire.job_ids import is_job_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmemu_nb.lifecycle.data_streams import DataStream, StreamLog, Subscriber
    from cmemu_nb.lifecycle.datasets import Dataset, DatasetHistory
    from cmemu_nb.lifecycle.records import DeployedApp, FunctionSchema, Job, Runtime
    from cmemu_nb.lifecycle.scaling import Scale
    from cmemu_nb.lifecycle.session import Replica, ResultStream, Session

DEFAULT_BRANCH = "master"


class State:
    """The sessions, bindings, jobs and schemas of one emulator, for reading. Only `Lifecycle` changes them.

    Two things are found out when they are first read, and then kept: which results are a function's error, and the log
    of a job.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._configurations: dict[str, Configuration] = {}
        self._owners: dict[str, Session] = {}
        self._apps: dict[str, dict[str, DeployedApp]] = {}
        self._replicas: dict[bytes, Replica] = {}
        self._own_tokens: dict[bytes, Replica] = {}
        self._scratch_tokens: dict[bytes, Replica] = {}
        self._counts: Counter[JobStatus] = Counter()
        self._evicting: dict[str, Session] = {}
        self._noted: dict[str, Session] = {}
        self._serving: dict[str, dict[str, None]] = {}
        self._namespaces: dict[str, dict[str, None]] = {}
        self._datasets: dict[str, DatasetHistory] = {}
        self._datasets_by_name: dict[str, DatasetHistory] = {}
        self._data_size = DataSize()
        self._data_changes = DataChanges()
        self._data_streams: dict[str, dict[str, StreamLog]] = {}
        self._stream_names: dict[str, str] = {}
        self._subscribers: dict[str, Subscriber] = {}
        self._kept_bytes = 0
        self._printed = Printed()

    def runtime(self, runtime_id: str) -> Runtime:
        """Return a runtime, or a `NotFound` that lists the known ones."""
        return self._session(runtime_id).runtime

    def runtimes(self, after: str | None = None, most: int | None = None) -> list[Runtime]:
        """Return the runtimes in the order of their first sessions; at most `most` of them, those `after` a runtime."""
        names = list(self._sessions)
        if after is not None:
            self._session(after)
            names = names[names.index(after) + 1 :]
        found = (self._sessions.get(name) for name in names[:most])
        return [session.runtime for session in found if session is not None]

    def newest_runtimes(self, most: int) -> list[Runtime]:
        """Return the `most` runtimes that were opened last, newest first; the time does not depend on the others."""
        found = (self._sessions.get(name) for name in _last(self._sessions, most))
        return [session.runtime for session in found if session is not None]

    def count_runtimes(self) -> int:
        """Return how many runtimes there are."""
        return len(self._sessions)

    def has_runtime(self, runtime_id: str) -> bool:
        """Return whether there is a runtime of this id."""
        return runtime_id in self._sessions

    def configuration(self, runtime_id: str) -> Configuration:
        """Return what a runtime's module is configured with, whether there is such a runtime or not."""
        return self._configurations.get(runtime_id) or Configuration()

    def configuration_with(self, runtime_id: str, given: Mapping[str, Any]) -> Configuration:
        """Return what a runtime's module is configured with when some keys are `given` anew.

        Raises `InvalidRequest` for an unknown key, a value that is not valid, or an alias of an unknown resource.
        """
        return self.configuration(runtime_id).changed(given).resolved(self.resource)

    def resource(self, name: str, branch: str | None = None) -> dict[str, str | None]:
        """Return the RID and the branch of a dataset or data stream, as an alias has them, by its name.

        Raises `InvalidRequest`, which lists the known names, for an unknown one.
        """
        log, history = self.find_data_stream(name, branch), self.find_dataset(name)
        if log is not None:
            return {"rid": log.stream.rid, "branch": log.stream.branch}
        if history is not None:
            return {"rid": history.dataset.rid, "branch": history.branch(branch or DEFAULT_BRANCH).name}
        names = [*(each.name for each in self.datasets()), *dict.fromkeys(each.name for each in self.data_streams())]
        where = "" if branch is None else f" with a branch {quoted(branch)}"
        raise InvalidRequest(
            f"{quoted(name)} can't be bound to an alias: it is neither a RID, which begins with 'ri.', nor the name of "
            f"a dataset or stream{where}.{closest(name, names)} {known(names, 'datasets and streams')}"
        )

    def is_configured(self, runtime_id: str) -> bool:
        """Return whether a runtime's module was configured."""
        return runtime_id in self._configurations

    def job(self, job_id: str) -> Job:
        """Return a job; `JobEvicted` if it was evicted, `NotFound` if a reset cleared it or the id was never issued."""
        return self._owner(job_id)[1]

    def find_job(self, job_id: str) -> Job | None:
        """Return a job, or None."""
        session = self._owners.get(job_id)
        return session.jobs.get(job_id) if session else None

    def job_ids(self) -> list[str]:
        """Return the ids of all jobs."""
        return list(self._owners)

    def jobs(self, runtime_id: str | None = None) -> list[Job]:
        """Return the jobs of a runtime in the order of submission, or of all runtimes, runtime by runtime."""
        sessions = list(self._sessions.values()) if runtime_id is None else [self._session(runtime_id)]
        return [job for session in sessions for job in list(session.jobs.values())]

    def unfinished(self, of: str = "all") -> list[str]:
        """Return the ids of queued and running jobs: those of a function, the one with this job id, or "all"."""
        jobs = [job for job in self.jobs() if not job.finished]
        return [job.job_id for job in jobs if of in ("all", job.job_id, job.query_type)]

    def has_function(self, name: str) -> bool:
        """Return whether a schema was posted for a function, or a job of it submitted."""
        return name in self._serving or any(job.query_type == name for job in self.jobs())

    def function_names(self) -> list[str]:
        """Return the names of all functions that have a schema."""
        return list(self._serving)

    def runtimes_serving(self, function_name: str) -> list[str]:
        """Return the ids of the runtimes that have posted a schema of a function."""
        return list(self._serving.get(function_name, ()))

    def newest_jobs(self, most: int) -> list[Job]:
        """Return the `most` jobs that were submitted last, newest first; the time does not depend on the history."""
        newest = [job for job in map(self.find_job, _last(self._owners, most)) if job is not None]
        return sorted(newest, key=attrgetter("sequence"), reverse=True)

    def count(self, runtime_id: str | None = None) -> Counter[JobStatus]:
        """Return how many jobs of a runtime, or of all, have each status."""
        return (self._counts if runtime_id is None else self._session(runtime_id).counts).copy()

    def outcomes(self, runtime_id: str | None = None) -> Counter[str]:
        """Return how many jobs of a runtime, or of all, are in each of the `STATES`.

        A state that no job is in may be left out. The first call after a job has ended parses its result, if that may
        be a function's error.
        """
        if runtime_id is not None:
            return self._session(runtime_id).outcomes()
        counts = self.count()  # before the results are read: a job that ends meanwhile must not look like a success
        return +outcomes(counts, sum(session.count_function_errors() for session in list(self._noted.values())))

    def outcomes_by_runtime(self) -> dict[str, Counter[str]]:
        """Return the same for each runtime."""
        return {name: session.outcomes() for name, session in list(self._sessions.items())}

    def evicted(self) -> dict[str, int]:
        """Return how many finished jobs of each runtime's session were evicted to make room."""
        return {name: session.evicted for name, session in list(self._sessions.items())}

    def count_evicted(self, runtime_id: str | None = None) -> int:
        """Return how many finished jobs of a runtime's session, or of all, were evicted to make room."""
        if runtime_id is not None:
            return self._session(runtime_id).evicted
        return sum(session.evicted for session in list(self._evicting.values()))

    def replicas(self, runtime_id: str | None = None) -> list[Replica]:
        """Return the replicas of a runtime, or of all, that have tokens of their own."""
        if runtime_id is None:
            return list(self._own_tokens.values())
        return [replica for replica in list(self._session(runtime_id).replicas.values()) if replica.replica_id]

    def scale_of(self, runtime_id: str) -> Scale | None:
        """Return how many replicas the module of a runtime should have; None if it is not scaled."""
        return self._session(runtime_id).scale

    def job_of(self, runtime_id: str, job_id: str) -> Job:
        """Return a job of a runtime; `JobEvicted` if it was evicted, `NotFound` if unknown or another runtime's."""
        return self._job_of(runtime_id, job_id)[1]

    def schemas(self, runtime_id: str | None = None, most: int | None = None) -> list[FunctionSchema]:
        """Return at most `most` schemas of a runtime sorted by name, or of all runtimes, runtime by runtime."""
        sessions = list(self._sessions.values()) if runtime_id is None else [self._session(runtime_id)]
        in_order = (
            schema
            for session in sessions
            for schema in sorted(list(session.schemas.values()), key=lambda schema: schema.function_name)  # noqa: C414
        )
        return list(islice(in_order, most))

    def count_schemas(self, runtime_id: str | None = None) -> int:
        """Return how many schemas a runtime, or all of them, have posted."""
        sessions = list(self._sessions.values()) if runtime_id is None else [self._session(runtime_id)]
        return sum(len(session.schemas) for session in sessions)

    def find_schema(self, runtime_id: str, function_name: str) -> FunctionSchema | None:
        """Return one function's schema, or None."""
        return self._session(runtime_id).schemas.get(function_name)

    def log(self, job_id: str) -> JobLog:
        """Return the log of a job, from any thread; for a job that does not exist, a log that is kept nowhere."""
        session, job = self._owners.get(job_id), self.find_job(job_id)
        if session is None or job is None:
            return JobLog()
        log = session.logs.setdefault(job.job_id, JobLog(self._printed))
        if self._owners.get(job_id) is not session:  # the job was evicted meanwhile
            session.drop_log(job_id)
        return log

    def logs(self) -> dict[str, str]:
        """Return what the functions of jobs have printed so far, by job id, without jobs that printed nothing."""
        logs = {job_id: log for session in list(self._sessions.values()) for job_id, log in list(session.logs.items())}
        return {job_id: text for job_id, log in logs.items() if (text := log.text)}

    def deployed_apps(self) -> list[DeployedApp]:
        """Return every binding, an app's oldest first."""
        return [app for branches in list(self._apps.values()) for app in list(branches.values())]

    def apps_of(self, runtime_id: str) -> list[DeployedApp]:
        """Return the bindings of a runtime, the oldest first."""
        bound = [self.binding(rid, branch) for rid, branch in list(self._session(runtime_id).apps)]
        return [app for app in bound if app is not None]

    def app_rids(self, namespace: str | None = None) -> list[str]:
        """Return the RIDs of the bound apps of a namespace, or of all."""
        return list(self._apps if namespace is None else self._namespaces.get(namespace, ()))

    def is_bound(self, runtime_id: str) -> bool:
        """Return whether any app is bound to a runtime."""
        session = self._sessions.get(runtime_id)
        return session is not None and bool(session.apps)

    def running_jobs(self, runtime_id: str) -> list[Job]:
        """Return the running jobs of a runtime, newest first. Old running jobs take longer to find than new ones."""
        session = self._session(runtime_id)
        jobs = (job for job in reversed(list(session.jobs.values())) if job.status == JobStatus.RUNNING)
        return list(islice(jobs, session.counts[JobStatus.RUNNING]))

    def queued_before(self, job: Job) -> int:
        """Return how many jobs of its runtime are queued ahead of a queued job."""
        queue = list(self._session(job.runtime_id).queue)
        return queue.index(job.job_id) if job.job_id in queue else 0

    def queue_depth(self, runtime_id: str) -> int:
        """Return how many jobs of a runtime are queued."""
        return len(self._session(runtime_id).queue)

    def resolve_app(self, deployed_app_rid: str, branch: str | None = None) -> DeployedApp:
        """Return the binding that serves an app; without a branch that of `master`, else the newest [ours]."""
        branches = self._apps.get(deployed_app_rid, {})
        if branch is None and branches:
            branch = DEFAULT_BRANCH if DEFAULT_BRANCH in branches else next(reversed(branches))
        app = branches.get(branch or DEFAULT_BRANCH)
        if app is None:
            raise NotFound(f"No active compute-module runtime is bound to {quoted(deployed_app_rid)}.")
        return app

    def stream(self, job_id: str) -> ResultStream | None:
        """Return the stream by which a running job's result is arriving, or None."""
        session = self._owners.get(job_id)
        return session.streams.get(job_id) if session else None

    def binding(self, deployed_app_rid: str, branch: str) -> DeployedApp | None:
        """Return the binding of an app's branch, or None."""
        return self._apps.get(deployed_app_rid, {}).get(branch)

    def datasets(self) -> list[Dataset]:
        """Return the datasets in the order in which they were created."""
        return [history.dataset for history in list(self._datasets.values())]

    def dataset(self, rid: str) -> DatasetHistory:
        """Return the branches, transactions, files and schemas of a dataset, or an error that lists the known ones."""
        history = self._datasets.get(rid)
        if history is None:
            raise dataset_not_found(rid, (dataset.name for dataset in self.datasets()))
        return history

    def find_dataset(self, name: str) -> DatasetHistory | None:
        """Return the same for a dataset with a name or a RID; None if there is none."""
        return self._datasets.get(name) or self._datasets_by_name.get(name)

    @property
    def data_bytes(self) -> int:
        """How many bytes the datasets take, of which there may be `max_data_bytes`."""
        return self._data_size.size

    # Data streams

    def data_streams(self) -> list[DataStream]:
        """Return the stream on each branch of each data stream, in the order in which they were created."""
        return [log.stream for branches in list(self._data_streams.values()) for log in list(branches.values())]

    def data_stream(self, rid: str, branch: str = DEFAULT_BRANCH) -> StreamLog:
        """Return the stream on a branch, by the RID of its dataset, or an error that lists the known ones."""
        log = self._data_streams.get(rid, {}).get(branch)
        if log is None:
            raise stream_not_found(rid, branch, (stream.name for stream in self.data_streams()))
        return log

    def find_data_stream(self, name: str, branch: str | None = DEFAULT_BRANCH) -> StreamLog | None:
        """Return the stream on a branch, by its name or by the RID of its dataset; None if there is none.

        With None as the branch, return that of the branch that was created first.
        """
        branches = self._data_streams.get(self._stream_names.get(name, name), {})
        return next(iter(branches.values()), None) if branch is None else branches.get(branch)

    def subscriber(self, rid: str, branch: str, subscriber_id: str) -> Subscriber:
        """Return a subscriber of the stream on a branch, with its positions in the current view."""
        log, found = self.data_stream(rid, branch), self._subscribers.get(subscriber_id)
        if found is None or (found.rid, found.branch) != (rid, branch):
            names = [name for name, each in list(self._subscribers.items()) if (each.rid, each.branch) == (rid, branch)]
            raise subscriber_not_found(subscriber_id, names)
        if found.view_rid == log.stream.view_rid:
            return found
        return replace(found, view_rid=log.stream.view_rid, positions=(0,) * log.stream.options.partitions)

    def subscribers(self) -> list[Subscriber]:
        """Return the subscribers of all data streams in the order in which they were created."""
        return list(self._subscribers.values())

    # Inside

    def _session(self, runtime_id: str) -> Session:
        session = self._sessions.get(runtime_id)
        if session is None:
            names = list(self._sessions)
            raise NotFound(
                f"There is no runtime {quoted(runtime_id)}.{closest(runtime_id, names)} {known(names, 'runtimes')}"
            )
        return session

    def _owner(self, job_id: str) -> tuple[Session, Job]:
        session = self._owners.get(job_id)
        if session is None:
            for each in list(self._evicting.values()):
                _check_not_evicted(each, job_id)
            name = quoted(job_id)
            raise NotFound(f"There is no job {name}: the id was never issued, or a reset cleared the job.")
        return session, session.jobs[job_id]

    def _job_of(self, runtime_id: str, job_id: str) -> tuple[Session, Job]:
        session = self._session(runtime_id)
        job = session.jobs.get(job_id)
        if job is None:
            _check_not_evicted(session, job_id)
            name = quoted(job_id)
            raise NotFound(
                f"Runtime '{runtime_id}' has no job {name}: it belongs to another runtime, or a reset cleared it."
            )
        return session, job


def _check_not_evicted(session: Session, job_id: str) -> None:
    # The session issued the id, and only an eviction removes a job from its session.
    if session.evicted and is_job_of(job_id, session.runtime.module_auth_token):
        raise JobEvicted(
            f"Job '{job_id}' was evicted to make room for newer ones; its result is not kept any more. "
            "Fetch results sooner, or start with a larger keep_jobs or keep_bytes."
        )


def _last(by_id: dict[str, Session], most: int) -> list[str]:
    while True:
        try:
            return list(islice(reversed(by_id), min(most, len(by_id))))
        except RuntimeError:  # another thread has just added one
            continue
