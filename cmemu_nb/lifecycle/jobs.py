"""What becomes of jobs: queued, taken, given back, finished, failed, let go; and results that arrive in chunks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cmemu_nb.errors import InvalidRequest, JobAlreadyCompleted, JobNotRunning, PayloadTooLarge, QueueFull, known
from cmemu_nb.lifecycle.events import MAX_DETAIL_BYTES, EventLog
from cmemu_nb.lifecycle.fifo import LongQueue
from cmemu_nb.lifecycle.records import DeployedApp, Job, JobSource, JobStatus, one_text
from cmemu_nb.lifecycle.session import Replica, ResultStream, Session, text
from cmemu_nb.lifecycle.state import State
from cmemu_nb.phrases import plural
from cmemu_nb.settings import DEFAULT_KEEP_BYTES
from cmemu_nb.wire.job_ids import new_job_id
from cmemu_nb.wire.labels import MAX_LABEL_BYTES, check_label, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BROKEN_OFF = "the result stream broke off after"


class Jobs(State):
    """The part of the state machine that is about jobs."""

    def __init__(
        self,
        *,
        clock: Callable[[], int] | None = None,
        monotonic: Callable[[], int] = time.monotonic_ns,
        keep_events: int = 10_000,
        keep_bytes: int = DEFAULT_KEEP_BYTES,
        max_queued: int = 100_000,
        max_runtimes: int = 10_000,
        max_label_bytes: int = MAX_LABEL_BYTES,
    ) -> None:
        super().__init__()
        self.events = EventLog(keep_events, keep_bytes)
        self._clock = clock or time.time_ns
        self._monotonic = monotonic
        self._steady_from = self._clock() - monotonic()
        self._submitted = 0
        self._max_queued = max_queued
        self._max_runtimes = max_runtimes
        self._max_label_bytes = max_label_bytes
        self._finished = LongQueue()

    def limit(
        self, *, keep_events: int, keep_bytes: int, max_queued: int, max_runtimes: int, max_label_bytes: int
    ) -> None:
        """Set how much the log of events holds, and how many jobs, runtimes and how long labels are taken from now."""
        self.events.keep(keep_events, keep_bytes)
        self._max_queued = max_queued
        self._max_runtimes = max_runtimes
        self._max_label_bytes = max_label_bytes

    def check_label(self, what: str, label: str | None) -> None:
        """Refuse a text that is longer than `max_label_bytes` with an `InvalidRequest`."""
        check_label(what, label, self._max_label_bytes)

    # Jobs

    def submit_to_app(
        self,
        deployed_app_rid: str,
        branch: str | None,
        query_type: str,
        query: bytes,
        source: JobSource,
        user_id: str | None = None,
    ) -> Job:
        """Queue a job for the runtime that serves a deployed app; `query` is JSON text, `user_id` who asks for it."""
        app = self.resolve_app(deployed_app_rid, branch)
        return self._enqueue(self._sessions[app.runtime_id], query_type, query, source, app, user_id)

    def submit(self, runtime_id: str, query_type: str, query: bytes, user_id: str | None = None) -> Job:
        """Queue a `runtime-direct` job for a runtime; `query` is JSON text, `user_id` who asks for it [ours]."""
        return self._enqueue(self._session(runtime_id), query_type, query, JobSource.RUNTIME_DIRECT, None, user_id)

    def _enqueue(
        self,
        session: Session,
        query_type: str,
        query: bytes,
        source: JobSource,
        app: DeployedApp | None,
        user_id: str | None,
    ) -> Job:
        if not text("query type", query_type).strip():
            raise InvalidRequest("Submitting a job: the query type is blank. Give the function's name.")
        self.check_label("query type", query_type)
        if len(session.queue) >= self._max_queued:
            raise QueueFull(
                f"Runtime '{session.runtime.runtime_id}' has {plural(len(session.queue), 'job')} queued already "
                "(max_queued). "
                "Submit again when it has taken some."
            )
        self._submitted += 1
        job = Job(
            new_job_id(session.runtime.module_auth_token),
            self._submitted,
            session.runtime.runtime_id,
            one_text(query_type),
            query,
            source,
            self.now(),
            app.deployed_app_rid if app else None,
            app.branch if app else None,
            user_id=user_id,
            queue_clock=self.steady(),
        )
        self.write_ahead(job)
        session.queue[job.job_id] = job
        self._owners[job.job_id] = session
        return self._change(session, job, "job_queued", query_type)

    def take(
        self,
        runtime_id: str,
        *,
        will_wait: bool = False,
        replica: Replica | None = None,
        ends_with_kernel: bool = False,
    ) -> Job | None:
        """Note a poll, and hand out the oldest queued job, now running; None when nothing is queued [page].

        A poll that will wait is not an empty one yet. A replica that holds all that it may gets None.
        `ends_with_kernel` says that who takes it lives in this process, as launched replicas do.
        """
        session = self._session(runtime_id)
        now, steady = self.now(), self.steady()
        first = not session.runtime.connected
        session.runtime = replace(session.runtime, connected=True, last_poll_at=now)
        if first:
            self._emit("runtime_connected", runtime_id)
        if not session.queue or (replica and replica.full):
            if not will_wait:
                self._emit("poll_empty", runtime_id)
            return None
        _, job = session.queue.popitem(last=False)
        running = replace(
            job,
            status=JobStatus.RUNNING,
            started_at=now,
            ends_with_kernel=ends_with_kernel,
            queue_clock=job.queue_time(steady),
            run_clock=steady,
        )
        if replica is not None:
            replica.held[job.job_id] = None
            running = replace(running, replica_id=replica.replica_id, ends_with_kernel=replica.launched)
        self._change(session, running, "job_started", job.query_type)
        if session.schemas and job.query_type not in session.schemas:
            self._emit("unknown_query_type", runtime_id, job.job_id, self._unknown(job, session))
        return running

    def give_back(self, job: Job) -> None:
        """Put a job that was taken but never arrived back at the head of its queue [ours]."""
        session = self._owners.get(job.job_id)
        if session is None or session.jobs[job.job_id] is not job or job.job_id in session.streams:
            return
        if job.status != JobStatus.RUNNING:
            return
        queued = replace(
            job,
            status=JobStatus.QUEUED,
            started_at=None,
            replica_id=None,
            ends_with_kernel=False,
            queue_clock=None if job.run_clock is None else job.run_clock - (job.queue_time() or 0),
            run_clock=None,
        )
        session.put_back(queued)
        self._change(session, queued, "job_given_back", "the runtime was gone before the job reached it")

    def finish(self, runtime_id: str, job_id: str, result: bytes, content_type: str | None = None) -> Job:
        """Store the result of a running job; the same result again changes nothing [page, ours]."""
        session, job = self._job_of(runtime_id, job_id)
        if job.status == JobStatus.SUCCEEDED and job.result == result:
            return job
        self._require_running(session, job)
        return self._succeed(session, self._done(job, result, content_type))

    def fail(self, job_id: str, reason: str) -> Job:
        """End a queued or running job as `failed`, with the reason [ours]."""
        session, job = self._owner(job_id)
        reason = shortened(text("reason", reason).strip(), MAX_DETAIL_BYTES) or "failed by hand"
        if job.finished:
            raise JobAlreadyCompleted(f"Job '{job_id}' can't be failed: it has {job.status} already.")
        session.queue.pop(job_id, None)
        session.streams.pop(job_id, None)
        failed = replace(self._ended(job), status=JobStatus.FAILED, error_message=reason)
        return self._change(session, failed, "job_failed", reason)

    def _ended(self, job: Job) -> Job:
        """Return a job with when it ended, and how long it was queued and ran."""
        now, steady = self.now(), self.steady()
        return replace(job, completed_at=now, queue_clock=job.queue_time(steady), run_clock=job.run_time(steady))

    def cancel(self, job_ids: Iterable[str], reason: str) -> int:
        """End as `failed` those of the jobs that are queued or running [ours]; returns how many they were.

        Their error messages say that they were cancelled, and the reason.
        """
        count = 0
        for job_id in list(job_ids):
            job = self.find_job(job_id)  # at its turn: a listener may end one when it hears of another
            if job is not None and not job.finished:
                self.fail(job_id, f"cancelled: {reason}")
                count += 1
        return count

    def add_reason(self, job_id: str, reason: str) -> None:
        """Add what came to be known of why a job failed."""
        session, job = self._owner(job_id)
        told = shortened(f"{job.error_message}: {reason}", MAX_DETAIL_BYTES)
        session.jobs[job_id] = replace(job, error_message=told)
        self._kept_bytes += session.jobs[job_id].size - job.size

    def _require_running(self, session: Session, job: Job) -> None:
        if job.status == JobStatus.QUEUED:
            raise JobNotRunning(f"Job '{job.job_id}' is still queued: poll for it before posting its result.")
        if job.finished:
            why = f" ({job.error_message})" if job.error_message else ""
            raise JobAlreadyCompleted(f"Job '{job.job_id}' has {job.status} already{why}; this result was not kept.")
        if job.job_id in session.streams:
            raise JobAlreadyCompleted(f"Job '{job.job_id}' is receiving another result; this one was not kept.")

    def _done(self, job: Job, result: bytes, content_type: str | None) -> Job:
        """Return a job with its result; one whose result can't be kept fails, and whoever sent it gets the reason."""
        done = replace(
            self._ended(job),
            status=JobStatus.SUCCEEDED,
            result=result,
            result_content_type=content_type and one_text(content_type),
        )
        try:
            self.write_ahead(done)
        except PayloadTooLarge as error:
            self.fail(job.job_id, str(error))
            raise
        return done

    def _succeed(self, session: Session, done: Job) -> Job:
        self._note_result(session, done)
        return self._change(session, done, "job_succeeded", plural(len(done.result or b""), "byte"))

    def _note_result(self, session: Session, job: Job) -> None:
        session.note_result(job)
        if session.unread:
            self._noted[job.runtime_id] = session

    # Results that arrive in chunks

    def open_stream(self, runtime_id: str, job_id: str) -> ResultStream:
        """Begin to receive the result of a running job in chunks."""
        session, job = self._job_of(runtime_id, job_id)
        self._require_running(session, job)
        stream = session.streams[job_id] = ResultStream(job_id)
        self._emit("result_started", runtime_id, job_id)
        return stream

    def add_chunk(self, stream: ResultStream, chunk: bytes) -> None:
        """Append a chunk; a `JobAlreadyCompleted` or `NotFound` says that the job ended meanwhile."""
        session = self._streaming(stream)
        stream.body += chunk
        self._emit("result_chunk", session.runtime.runtime_id, stream.job_id)

    def close_stream(self, stream: ResultStream, content_type: str | None = None) -> Job:
        """End the result: the job succeeded."""
        session = self._streaming(stream)
        done = self._done(session.jobs[stream.job_id], bytes(stream.body), content_type)
        del session.streams[stream.job_id]
        stream.complete = True
        return self._succeed(session, done)

    def break_stream(self, stream: ResultStream) -> None:
        """Fail the job of a stream that broke off; nothing if the job ended before."""
        session = self._owners.get(stream.job_id)
        if session and session.streams.get(stream.job_id) is stream:
            self.fail(stream.job_id, f"{BROKEN_OFF} {plural(stream.size, 'byte')}")

    def _streaming(self, stream: ResultStream) -> Session:
        session, job = self._owner(stream.job_id)
        if session.streams.get(stream.job_id) is not stream:
            raise JobAlreadyCompleted(f"Job '{stream.job_id}' has {job.status} already; this result was not kept.")
        return session

    # Eviction

    @property
    def may_go(self) -> int:
        """How many finished jobs there are to be let go, at most."""
        return len(self._finished)

    def keeps_more_than(self, jobs: int, size: int) -> bool:
        """Tell whether more jobs are kept, or more bytes of them, of what they have printed and of events."""
        return len(self._owners) > jobs or self._kept_bytes + self._printed.size + self.events.size > size

    def evict(self, keep_jobs: int, keep_bytes: int, most: int) -> int:
        """Let go of the jobs that finished first, at most `most`, while more are kept than that [ours].

        Queued and running jobs are never let go. Returns how many went.
        """
        count = 0
        for _ in range(min(most, self.may_go)):
            if not self.keeps_more_than(keep_jobs, keep_bytes):
                break
            count += self._let_go(self._finished.popleft())
        return count

    def _let_go(self, job_id: str) -> bool:
        session = self._owners.get(job_id)
        if session is None:  # it went with a reset
            return False
        job = session.jobs[job_id]
        session.evicted += 1
        self._evicting[job.runtime_id] = session
        # While it is still there: the journal looks up its number.
        self._emit("job_evicted", job.runtime_id, job_id)
        session.forget(job_id)
        del self._owners[job_id]
        session.counts[job.status] -= 1
        self._counts[job.status] -= 1
        self._kept_bytes -= job.size
        return True

    # After the end of a process

    def _restore_jobs(self, sessions: dict[str, Session], jobs: list[Job]) -> None:
        for job in jobs:
            session = sessions[job.runtime_id]
            session.jobs[job.job_id] = job
            session.counts[job.status] += 1
            self._counts[job.status] += 1
            self._owners[job.job_id] = session
            self._kept_bytes += job.size
            self._submitted = max(self._submitted, job.sequence)
            if job.status == JobStatus.SUCCEEDED:
                self._note_result(session, job)
            elif job.status == JobStatus.QUEUED:
                session.queue[job.job_id] = job
            elif job.status == JobStatus.RUNNING and job.replica_id in session.replicas:
                session.replicas[job.replica_id].held[job.job_id] = None
        finished = [job for job in jobs if job.finished]
        self._finished = LongQueue(job.job_id for job in sorted(finished, key=lambda job: job.completed_at or 0))

    # Inside

    def now(self) -> int:
        """Return the wall clock's time in Unix nanoseconds. Somebody may set it: it can be earlier than before."""
        return self._clock()

    def steady(self) -> int:
        """Return the time on a clock that nobody sets, in nanoseconds: durations are differences of it.

        It begins with the wall clock's time when the lifecycle is made, and goes on with the monotonic clock.
        """
        return self._steady_from + self._monotonic()

    def _emit(
        self, kind: str, runtime_id: str | None = None, job_id: str | None = None, detail: str | None = None
    ) -> None:
        self.events.emit(kind, self.now(), runtime_id, job_id, detail)

    def note(self, kind: str, runtime_id: str | None = None, job_id: str | None = None, detail: str = "") -> None:
        """Log what happened around the state machine, such as an internal fault."""
        self._emit(kind, runtime_id, job_id, detail)

    def _change(self, session: Session, job: Job, kind: str, detail: str) -> Job:
        before = session.jobs.get(job.job_id)
        if before is not None and before.replica_id in session.replicas and job.status != JobStatus.RUNNING:
            session.replicas[before.replica_id].held.pop(job.job_id, None)
        if before is not None:
            session.counts[before.status] -= 1
            self._counts[before.status] -= 1
            self._kept_bytes -= before.size
        session.counts[job.status] += 1
        self._counts[job.status] += 1
        self._kept_bytes += job.size
        session.jobs[job.job_id] = job
        if job.finished:
            self._finished.append(job.job_id)
        self._emit(kind, job.runtime_id, job.job_id, detail)
        return job

    def _forget_jobs(self, session: Session) -> None:
        for job in session.jobs.values():
            del self._owners[job.job_id]
            self._counts[job.status] -= 1
            self._kept_bytes -= job.size
        for job_id in list(session.logs):
            session.drop_log(job_id)
        for sessions in (self._evicting, self._noted):
            if sessions.get(session.runtime.runtime_id) is session:
                del sessions[session.runtime.runtime_id]
        if len(self._finished) > 2 * len(self._owners):
            self._finished = LongQueue(job_id for job_id in self._finished if job_id in self._owners)

    def _unknown(self, job: Job, session: Session) -> str:
        return f"'{job.query_type}' is in none of the posted schemas. {known(session.schemas, 'functions')}"
