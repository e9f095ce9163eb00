"""The state machine of the runtime lifecycle: sessions, bindings, queues, jobs, results, schemas.

Plain Python: no sockets, no asyncio, no clock of its own. Every change emits one event. Every
operation takes the same time whatever the history; opening or deleting a session is linear in
what it throws away. One thread at a time may call the methods that change something; the records
never change, so looking is safe from any thread.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cmemu_nb.errors import (
    InvalidModuleAuthToken,
    InvalidRequest,
    JobAlreadyCompleted,
    JobNotRunning,
    NotFound,
    known,
)
from cmemu_nb.events import EventLog
from cmemu_nb.model import DeployedApp, FunctionSchema, Job, JobSource, JobStatus, Runtime
from cmemu_nb.session import Replica, ResultStream, Session, ThrownAway, text, trimmed
from cmemu_nb.state import DEFAULT_BRANCH, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TOKEN_PREFIX = "foundry_module_auth_"  # noqa: S105 - a prefix, no secret [page]
JOB_PREFIX = "foundry_job_"
LONGEST_ID = 1000


class Lifecycle(State):
    """Every runtime session, deployed-app binding, schema and job of one emulator.

    `clock` gives Unix nanoseconds; `keep_events` is how many events the log holds.
    """

    def __init__(self, *, clock: Callable[[], int] = time.time_ns, keep_events: int = 10_000) -> None:
        super().__init__()
        self.events = EventLog(keep_events)
        self._clock = clock
        self._latest = 0
        self._submitted = 0

    # Sessions

    def open_session(
        self,
        runtime_id: str,
        deployed_app_rid: str | None = None,
        branch: str | None = None,
        display_name: str | None = None,
    ) -> tuple[Runtime, ThrownAway | None]:
        """Open a runtime's session, or reset it: no jobs, schemas and bindings, and a new token [page].

        Returns the runtime and what a reset threw away, or None for a runtime that is new.
        A binding of the same app and branch moves here from whichever runtime holds it [ours].
        Fields are trimmed, a blank optional one counts as absent. Raises `InvalidRequest` for an id that is
        blank, or would vanish from URIs.
        """
        runtime_id = trimmed("runtime id", runtime_id) or ""
        if runtime_id in ("", ".", ".."):
            raise InvalidRequest(f"Opening a runtime session: {runtime_id!r} can't be a runtime id. Choose a name.")
        if len(runtime_id) > LONGEST_ID:
            raise InvalidRequest(
                f"Opening a runtime session: the runtime id has {len(runtime_id)} characters, which no URI can hold. "
                f"Choose one of at most {LONGEST_ID}."
            )
        deployed_app_rid = trimmed("deployed app RID", deployed_app_rid)
        branch = trimmed("branch", branch)
        old = self._sessions.get(runtime_id)
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        runtime = Runtime(runtime_id, token, self.now(), trimmed("display name", display_name))
        session = self._sessions[runtime_id] = Session(runtime)
        self._add_replica(session, Replica(runtime_id, "", token, None))
        if old is None:
            self._emit("session_opened", runtime_id)
        thrown_away = self._throw_away(old, "session_reset") if old else None
        # A listener may have ended the session when it was told of it.
        if deployed_app_rid is not None and self._sessions.get(runtime_id) is session:
            self._bind(runtime, deployed_app_rid, branch or DEFAULT_BRANCH)
        return runtime, thrown_away

    def reset_session(self, runtime_id: str) -> tuple[Runtime, ThrownAway | None]:
        """Reset a runtime's session and keep its binding and display name [ours]."""
        session = self._session(runtime_id)
        rid, branch = next(iter(session.apps), (None, None))
        return self.open_session(runtime_id, rid, branch, session.runtime.display_name)

    def delete_session(self, runtime_id: str) -> ThrownAway:
        """End a runtime's session and forget the runtime [ours]."""
        session = self._session(runtime_id)
        del self._sessions[runtime_id]
        return self._throw_away(session, "session_deleted")

    def reset(self) -> None:
        """Delete every session: an emulator as new [ours]."""
        for runtime_id in list(self._sessions):
            self.delete_session(runtime_id)

    def authenticate(self, runtime_id: str, token: str | None) -> Runtime:
        """Return the runtime if the token is its session's; an unknown runtime is told before a wrong token."""
        runtime = self._session(runtime_id).runtime
        given = (token or "").encode(errors="surrogatepass")
        if not hmac.compare_digest(given, runtime.module_auth_token.encode()):
            raise InvalidModuleAuthToken
        return runtime

    def _throw_away(self, session: Session, kind: str) -> ThrownAway:
        thrown_away = ThrownAway(len(session.jobs), len(session.schemas), len(session.apps))
        for job_id in session.jobs:
            del self._owners[job_id]
        for rid, branch in session.apps:
            self._unbind(rid, branch)
        for replica in session.replicas.values():
            self._revoke(replica)
            replica.held.clear()
        self._emit(kind, session.runtime.runtime_id, detail=f"threw away {thrown_away}")
        for job in session.jobs.values():
            if not job.finished:
                self._emit("job_cleared", job.runtime_id, job.job_id, kind.replace("_", " "))
        return thrown_away

    # Replicas

    def add_replica(self, runtime_id: str, max_concurrent_tasks: int = 1) -> Replica:
        """Make a token for one more copy of a runtime's module, valid as long as the session [ours].

        It is handed at most so many unfinished jobs at a time, because real clients poll ahead [foundry].
        """
        session = self._session(runtime_id)
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        return self._add_replica(session, Replica(runtime_id, secrets.token_hex(4), token, max_concurrent_tasks))

    def _add_replica(self, session: Session, replica: Replica) -> Replica:
        session.replicas[replica.replica_id] = replica
        self._replicas[_hashed(replica.token)] = replica
        return replica

    def remove_replica(self, replica: Replica, reason: str) -> list[str]:
        """Revoke a replica's token and fail the jobs that it holds; returns their ids."""
        failed = self.fail_held(replica, reason)
        if not replica.revoked:
            self._revoke(replica)
            del self._session(replica.runtime_id).replicas[replica.replica_id]
        return failed

    def _revoke(self, replica: Replica) -> None:
        replica.revoked = True
        del self._replicas[_hashed(replica.token)]

    def fail_held(self, replica: Replica, reason: str) -> list[str]:
        """Fail the jobs that a replica holds, because it can't finish them any more; returns their ids [foundry]."""
        held = list(replica.held)
        for job_id in held:
            self.fail(job_id, reason)
        return held

    def authenticate_replica(self, token: str | None) -> Replica:
        """Find a replica by its token alone; an unknown one is an `InvalidModuleAuthToken`."""
        replica = self._replicas.get(_hashed(token or ""))
        if replica is None:
            raise InvalidModuleAuthToken
        return replica

    # Deployed apps

    def _bind(self, runtime: Runtime, rid: str, branch: str) -> None:
        taken_from = None
        held = self._apps.get(rid, {}).get(branch)
        if held:
            taken_from = held.runtime_id
            self._sessions[held.runtime_id].apps.discard((rid, branch))
            self._unbind(rid, branch)
        app = DeployedApp(rid, branch, runtime.runtime_id, self.now(), runtime.display_name)
        self._apps.setdefault(rid, {})[branch] = app
        self._sessions[runtime.runtime_id].apps.add((rid, branch))
        moved = f", taken from runtime {taken_from!r}" if taken_from else ""
        self._emit("app_bound", runtime.runtime_id, detail=f"{rid} on branch {branch!r}{moved}")

    def _unbind(self, rid: str, branch: str) -> None:
        branches = self._apps[rid]
        del branches[branch]
        if not branches:
            del self._apps[rid]

    # Jobs

    def submit_to_app(
        self, deployed_app_rid: str, branch: str | None, query_type: str, query: bytes, source: JobSource
    ) -> Job:
        """Queue a job for the runtime that serves a deployed app; `query` is JSON text."""
        app = self.resolve_app(deployed_app_rid, branch)
        return self._enqueue(self._sessions[app.runtime_id], query_type, query, source, app)

    def submit(self, runtime_id: str, query_type: str, query: bytes) -> Job:
        """Queue a `runtime-direct` job for a runtime; `query` is JSON text [ours]."""
        return self._enqueue(self._session(runtime_id), query_type, query, JobSource.RUNTIME_DIRECT, None)

    def _enqueue(
        self, session: Session, query_type: str, query: bytes, source: JobSource, app: DeployedApp | None
    ) -> Job:
        if not text("query type", query_type).strip():
            raise InvalidRequest("Submitting a job: the query type is blank. Give the function's name.")
        self._submitted += 1
        job = Job(
            JOB_PREFIX + secrets.token_hex(16),
            self._submitted,
            session.runtime.runtime_id,
            query_type,
            query,
            source,
            self.now(),
            app.deployed_app_rid if app else None,
            app.branch if app else None,
        )
        session.queue[job.job_id] = job
        self._owners[job.job_id] = session
        return self._change(session, job, "job_queued", query_type)

    def take(self, runtime_id: str, *, will_wait: bool = False, replica: Replica | None = None) -> Job | None:
        """Note a poll, and hand out the oldest queued job, now running; None when nothing is queued [page].

        A poll that will wait is not an empty one yet. A replica that holds all that it may gets None.
        """
        session = self._session(runtime_id)
        now = self.now()
        first = not session.runtime.connected
        session.runtime = replace(session.runtime, connected=True, last_poll_at=now)
        if first:
            self._emit("runtime_connected", runtime_id)
        if not session.queue or (replica and replica.full):
            if not will_wait:
                self._emit("poll_empty", runtime_id)
            return None
        _, job = session.queue.popitem(last=False)
        running = replace(job, status=JobStatus.RUNNING, started_at=now)
        if replica is not None:
            replica.held[job.job_id] = None
            running = replace(running, replica_id=replica.replica_id)
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
        queued = replace(job, status=JobStatus.QUEUED, started_at=None, replica_id=None)
        session.put_back(queued)
        self._change(session, queued, "job_given_back", "the runtime was gone before the job reached it")

    def finish(self, runtime_id: str, job_id: str, result: bytes, content_type: str | None = None) -> Job:
        """Store the result of a running job; the same result again changes nothing [page, ours]."""
        session, job = self._job_of(runtime_id, job_id)
        if job.status == JobStatus.SUCCEEDED and job.result == result:
            return job
        self._require_running(session, job)
        return self._succeed(session, job, result, content_type)

    def fail(self, job_id: str, reason: str) -> Job:
        """End a queued or running job as `failed`, with the reason [ours]."""
        session, job = self._owner(job_id)
        reason = text("reason", reason).strip() or "failed by hand"
        if job.finished:
            raise JobAlreadyCompleted(f"Job '{job_id}' can't be failed: it is {job.status} already.")
        session.queue.pop(job_id, None)
        session.streams.pop(job_id, None)
        failed = replace(job, status=JobStatus.FAILED, completed_at=self.now(), error_message=reason)
        return self._change(session, failed, "job_failed", reason)

    def add_reason(self, job_id: str, reason: str) -> None:
        """Add what came to be known of why a job failed."""
        session, job = self._owner(job_id)
        session.jobs[job_id] = replace(job, error_message=f"{job.error_message}: {reason}")

    def _require_running(self, session: Session, job: Job) -> None:
        if job.status == JobStatus.QUEUED:
            raise JobNotRunning(f"Job '{job.job_id}' is still queued: poll for it before posting its result.")
        if job.finished:
            why = f" ({job.error_message})" if job.error_message else ""
            raise JobAlreadyCompleted(f"Job '{job.job_id}' is {job.status} already{why}; this result was not kept.")
        if job.job_id in session.streams:
            raise JobAlreadyCompleted(f"Job '{job.job_id}' is receiving another result; this one was not kept.")

    def _succeed(self, session: Session, job: Job, result: bytes, content_type: str | None) -> Job:
        done = replace(
            job,
            status=JobStatus.SUCCEEDED,
            completed_at=self.now(),
            result=result,
            result_content_type=content_type,
        )
        return self._change(session, done, "job_succeeded", f"{len(result)} bytes")

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
        stream.chunks.append(chunk)
        stream.size += len(chunk)
        self._emit("result_chunk", session.runtime.runtime_id, stream.job_id)

    def close_stream(self, stream: ResultStream, content_type: str | None = None) -> Job:
        """End the result: the job succeeded."""
        session = self._streaming(stream)
        del session.streams[stream.job_id]
        return self._succeed(session, session.jobs[stream.job_id], b"".join(stream.chunks), content_type)

    def break_stream(self, stream: ResultStream) -> None:
        """Fail the job of a stream that broke off; nothing if the job ended before."""
        session = self._owners.get(stream.job_id)
        if session and session.streams.get(stream.job_id) is stream:
            self.fail(stream.job_id, f"the result stream broke off after {stream.size} bytes")

    def _streaming(self, stream: ResultStream) -> Session:
        session, job = self._owner(stream.job_id)
        if session.streams.get(stream.job_id) is not stream:
            raise JobAlreadyCompleted(f"Job '{stream.job_id}' is {job.status} already; this result was not kept.")
        return session

    # Schemas

    def post_schemas(self, runtime_id: str, schemas: Iterable[tuple[str, bytes]]) -> None:
        """Add or update the runtime's schemas, each a function's name and its payload as JSON text [page]."""
        session = self._session(runtime_id)
        now = self.now()
        session.runtime = replace(session.runtime, last_schema_post_at=now)
        names = []
        for name, payload in schemas:
            session.schemas[name] = FunctionSchema(runtime_id, name, payload, now)
            names.append(name)
        self._emit("schemas_posted", runtime_id, detail=", ".join(map(repr, names)) or "none")

    def delete_schema(self, runtime_id: str, function_name: str) -> None:
        """Forget one function's schema [ours]."""
        session = self._session(runtime_id)
        if session.schemas.pop(function_name, None) is None:
            raise NotFound(
                f"Runtime '{runtime_id}' has no schema of function '{function_name}'. "
                + known(session.schemas, "functions")
            )
        self._emit("schema_deleted", runtime_id, detail=repr(function_name))

    # Inside

    def now(self) -> int:
        """Return the time in Unix nanoseconds, never earlier than before. To be called on the emulator's loop."""
        # Wall clocks step back; what happened later must not look earlier.
        self._latest = max(self._latest, self._clock())
        return self._latest

    def _emit(
        self, kind: str, runtime_id: str | None = None, job_id: str | None = None, detail: str | None = None
    ) -> None:
        self.events.emit(kind, self.now(), runtime_id, job_id, detail)

    def note(self, kind: str, runtime_id: str | None = None, job_id: str | None = None, detail: str = "") -> None:
        """Log what happened around the state machine, such as an internal fault."""
        self._emit(kind, runtime_id, job_id, detail)

    def _change(self, session: Session, job: Job, kind: str, detail: str) -> Job:
        before = session.jobs.get(job.job_id)
        if before is not None and before.replica_id is not None and job.status != JobStatus.RUNNING:
            session.replicas[before.replica_id].held.pop(job.job_id, None)
        if before is not None:
            session.counts[before.status] -= 1
        session.counts[job.status] += 1
        session.jobs[job.job_id] = job
        self._emit(kind, job.runtime_id, job.job_id, detail)
        return job

    def _unknown(self, job: Job, session: Session) -> str:
        return f"'{job.query_type}' is in none of the posted schemas. {known(session.schemas, 'functions')}"


def _hashed(token: str) -> bytes:
    # Looked up by its hash, a token can't be guessed letter by letter from the time that it takes.
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
