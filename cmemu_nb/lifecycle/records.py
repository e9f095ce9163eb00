"""The records of the compute-module lifecycle, and how they look on the wire.

Records are immutable: a change puts a new record in the place of the old one. A record is therefore consistent in
every thread that holds it.

Times are Unix nanoseconds here, and milliseconds on the wire. They are read from the wall clock, which may be set;
durations are measured with a steady clock and kept beside them. JSON that came from outside (`query`, `schema_payload`)
is kept as the very text that was sent.
"""

from __future__ import annotations

import base64
import functools
import uuid
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from cmemu_nb.phrases import quoted
from cmemu_nb.tokens import Token
from cmemu_nb.wire.api_names import namespace_of
from cmemu_nb.wire.labels import size_of
from cmemu_nb.wire.paths import session_uris
from cmemu_nb.wire.results import function_error

# The runtime that serves the functions in cells, and its app.
NOTEBOOK = "notebook"
NOTEBOOK_APP = "ri.foundry.main.deployed-app.notebook"
# The codes of a diagnosis: why a job has no result yet.
DIAGNOSES = (
    *("workers_busy", "deadlock", "no_executor", "executor_silent", "replicas_starting", "replicas_ended"),
    *("queued", "running", "finished", "cleared", "not_running"),
)
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000
MAX_SHARED_CHARACTERS = 1000


class JobStatus(StrEnum):
    """The status of a job on the wire [page]."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class QueueInfo(StrEnum):
    """Why a job is queued, as the contour routes say it: these are of the names that Palantir types [foundry]."""

    NORMAL = "NORMAL_OPERATION"
    SCALING_UP = "SCALING_UP"
    SCALING_UP_FROM_ZERO = "SCALING_UP_FROM_0"
    AT_LIMIT = "RESOURCE_LIMITS_REACHED"


class ReplicaState(StrEnum):
    """The state of a replica on the deployed-app routes: these are of the names that Palantir types [foundry]."""

    STARTING = "STARTING"
    STARTED = "STARTED"
    RESPONSIVE = "RESPONSIVE"
    UNRESPONSIVE = "UNRESPONSIVE"
    DECOMMISSIONED = "DECOMMISSIONED"


# How the error message of a cancelled job begins.
CANCELLED = "cancelled: "
FINISHED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED})


class Outcome(StrEnum):
    """How a job ended, beside its status on the wire: a function that raises does not fail its job [foundry]."""

    OK = "ok"
    FUNCTION_ERROR = "function error"
    FAILED = "failed"


# The states of a job as people see them: its status until it has ended, then its outcome.
STATES: tuple[JobStatus | Outcome, ...] = (JobStatus.QUEUED, JobStatus.RUNNING, *Outcome)


def column_of(state: JobStatus | Outcome) -> str:
    """Return a state's name as a column of a frame and as a member of JSON: `function_error`, for instance."""
    return state.replace(" ", "_")


class Mode(StrEnum):
    """The execution mode of a launched module [foundry].

    In function mode it polls for jobs. In pipeline mode it takes no jobs: it does its work, with the build token, and
    ends with its exit code.
    """

    FUNCTION = "function"
    PIPELINE = "pipeline"


def polling(mode: str, *, connected: bool) -> str:
    """Return the word that says whether a runtime's module has polled, or is a pipeline, which need not."""
    if connected:
        return "connected"
    return "pipeline" if mode == Mode.PIPELINE else "never polled"


def takes_no_jobs(runtime_id: str) -> str:
    """Return the sentence that says why a pipeline runs no function."""
    return (
        f"the module {quoted(runtime_id)} was launched in pipeline mode, so it takes no jobs. Launch it in function "
        "mode, which is the default, to call its functions."
    )


def why_unknown(runtime_id: str, import_error: str) -> str:
    """Return the sentence, after a blank, about a module that lacks a function, if it raised while it was imported."""
    if not import_error:
        return ""
    return (
        f" The module {quoted(runtime_id)} raised an exception while it was imported, before it had defined the "
        f"function. The end of its traceback:\n{import_error}"
    )


class JobSource(StrEnum):
    """The interface through which a job was submitted."""

    CONTOUR_SYNC = "contour-sync"
    CONTOUR_ASYNC = "contour-async"
    RUNTIME_DIRECT = "runtime-direct"


class Runtime(msgspec.Struct, frozen=True, gc=False):
    """One session of a runtime: a running instance of a function executor [page].

    `mode` is the execution mode of the module that was launched for it last. `import_error` is the end of the traceback
    with which the import of this module ended, "" if it did not raise.
    """

    runtime_id: str
    module_auth_token: str
    created_at: int
    display_name: str | None = None
    connected: bool = False
    last_poll_at: int | None = None
    last_schema_post_at: int | None = None
    mode: Mode = Mode.FUNCTION
    import_error: str = ""

    @property
    def polling(self) -> str:
        """The word that says whether its module has polled, or is a pipeline, which need not."""
        return polling(self.mode, connected=self.connected)

    def wire(self, *, hide_token: bool = False) -> dict[str, Any]:
        """Return the record as the inspection route shows it [page], without the token if it is to be hidden [ours]."""
        token = {} if hide_token else {"module_auth_token": self.module_auth_token}
        return {
            "runtime_id": self.runtime_id,
            **token,
            "connected": self.connected,
            "last_poll_at": milliseconds(self.last_poll_at),
            "last_schema_post_at": milliseconds(self.last_schema_post_at),
            "created_at": milliseconds(self.created_at),
        }

    def session_answer(self, base_url: str, *, proxied: bool = False) -> dict[str, str]:
        """Return the answer to the opening of its session: the token and the three URIs [page]."""
        token = {"runtimeId": self.runtime_id, "moduleAuthToken": self.module_auth_token}
        return token | session_uris(self.runtime_id, base_url, proxied=proxied)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        token = Token(self.module_auth_token)
        return list({**msgspec.structs.asdict(self), "module_auth_token": token}.items())

    def __repr__(self) -> str:
        # Outputs, and tracebacks with local variables, show the record: they must not show the token.
        return f"Runtime({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


def app_label(deployed_app_rid: str, branch: str | None) -> str:
    """Return an app and its branch, as people read them."""
    return f"{deployed_app_rid} ({branch})"


class DeployedApp(msgspec.Struct, frozen=True, gc=False):
    """A deployed app's branch and the runtime that serves it."""

    deployed_app_rid: str
    branch: str
    runtime_id: str
    bound_at: int
    display_name: str | None = None

    @property
    def label(self) -> str:
        """The app and its branch, as people read them."""
        return app_label(self.deployed_app_rid, self.branch)

    @property
    def namespace(self) -> str:
        """The namespace of its functions in the public API, made from the last part of its RID."""
        return namespace_of(self.deployed_app_rid)

    def wire(self) -> dict[str, Any]:
        """Return the record as the tool routes show it [ours]."""
        return {
            "deployed_app_rid": self.deployed_app_rid,
            "branch": self.branch,
            "runtime_id": self.runtime_id,
            "display_name": self.display_name,
            "bound_at": milliseconds(self.bound_at),
        }


class FunctionSchema(msgspec.Struct, frozen=True, gc=False):
    """A runtime's description of one of its functions; `schema_payload` is JSON text."""

    runtime_id: str
    function_name: str
    schema_payload: bytes
    posted_at: int

    def wire(self) -> dict[str, Any]:
        """Return the record as the inspection route shows it [page]."""
        return {
            "runtime_id": self.runtime_id,
            "function_name": self.function_name,
            "schema_payload": msgspec.Raw(self.schema_payload),
            "posted_at": milliseconds(self.posted_at),
        }


class Job(msgspec.Struct, frozen=True, gc=False):
    """One call of a function; `query` is JSON text, `result` the bytes that were posted.

    `sequence` counts jobs in the order of their submission. `replica_id` is the replica that took the job through the
    platform routes. `ends_with_kernel` says whether its executor is a function in a cell or a launched replica.
    `user_id` is the user who submitted it, if a seed file says whose bearer token that was. `streamed` says whether its
    result was posted in chunks, as the SDKs post streams [foundry]; it is False in earlier records. `queue_clock` and
    `run_clock` are two stopwatches: while one runs, it is the time at which it was started, on the steady clock of
    `Lifecycle.steady()`, and afterwards how long it ran, in nanoseconds. They are None in records of earlier versions,
    and where an earlier process started them.
    """

    job_id: str
    sequence: int
    runtime_id: str
    query_type: str
    query: bytes
    source: JobSource
    queued_at: int
    deployed_app_rid: str | None = None
    deployed_app_branch: str | None = None
    status: JobStatus = JobStatus.QUEUED
    started_at: int | None = None
    completed_at: int | None = None
    result: bytes | None = None
    result_content_type: str | None = None
    error_message: str | None = None
    replica_id: str | None = None
    ends_with_kernel: bool = False
    user_id: str | None = None
    queue_clock: int | None = None
    run_clock: int | None = None
    streamed: bool = False

    @property
    def size(self) -> int:
        """How many bytes the function's name, the query, the result and the error message have together."""
        texts = size_of(self.query_type) + size_of(self.error_message)
        return texts + len(self.query) + len(self.result or b"")

    @property
    def finished(self) -> bool:
        """Whether the job succeeded or failed."""
        return self.status in FINISHED

    @property
    def cancelled(self) -> bool:
        """Whether the job failed because it was cancelled."""
        return self.status == JobStatus.FAILED and (self.error_message or "").startswith(CANCELLED)

    @property
    def outcome(self) -> Outcome | None:
        """How the job ended; None before that."""
        if self.status == JobStatus.FAILED:
            return Outcome.FAILED
        if self.status != JobStatus.SUCCEEDED:
            return None
        return Outcome.OK if function_error(self.result or b"") is None else Outcome.FUNCTION_ERROR

    def queue_time(self, now: int | None = None) -> int | None:
        """Return for how many nanoseconds the job was queued: until it was taken, or failed in the queue.

        For a job that is still queued this is the time up to `now` on the steady clock, or None without `now`. It is
        never negative.
        """
        if self.status == JobStatus.QUEUED:
            return _between(self.queued_at if self.queue_clock is None else self.queue_clock, now)
        left_queue = self.completed_at if self.started_at is None else self.started_at
        return _between(self.queued_at, left_queue) if self.queue_clock is None else self.queue_clock

    def run_time(self, now: int | None = None) -> int | None:
        """Return for how many nanoseconds the job ran: from its start until its result was stored, or it failed.

        For a job that is still running this is the time up to `now` on the steady clock, or None without `now`. None
        for a job that was never started.
        """
        if self.status == JobStatus.RUNNING:
            # The steady clock began with the wall clock's time.
            return _between(self.started_at if self.run_clock is None else self.run_clock, now)
        return _between(self.started_at, self.completed_at) if self.run_clock is None else self.run_clock

    def wire(self) -> dict[str, Any]:
        """Return the record as the inspection route shows it [page]; bytes that are no UTF-8 as base64 [ours]."""
        text, encoded = _text_or_base64(self.result)
        fields = {
            "job_id": self.job_id,
            "runtime_id": self.runtime_id,
            "deployed_app_rid": self.deployed_app_rid,
            "deployed_app_branch": self.deployed_app_branch,
            "query_type": self.query_type,
            "query": msgspec.Raw(self.query),
            "source": self.source,
            "status": self.status,
            "queued_at": milliseconds(self.queued_at),
            "started_at": milliseconds(self.started_at),
            "completed_at": milliseconds(self.completed_at),
            "result_content_type": self.result_content_type,
            "result_body_utf8": text,
            "error_message": self.error_message,
        }
        return fields if encoded is None else {**fields, "result_body_base64": encoded}


def app_named(name: str) -> str:
    """Return the RID of the deployed app that has the name of a runtime."""
    return f"ri.foundry.main.deployed-app.{name}"


def new_rid(kind: str) -> str:
    """Return the RID of a new resource, such as a `dataset` or a `transaction`."""
    return f"ri.foundry.main.{kind}.{uuid.uuid4()}"


def iso_time(nanoseconds: int) -> str:
    """Turn Unix nanoseconds into the text by which Foundry's public API writes a time, in UTC and microseconds."""
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=nanoseconds // NS_PER_US)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def one_text(text: str) -> str:
    """Return the same object for all equal texts.

    Every request, and every row of a journal, has its own copy of a function's name; a million jobs would keep as many.
    """
    return text if len(text) > MAX_SHARED_CHARACTERS else _shared_text(text)


@functools.lru_cache(1000, typed=True)
def _shared_text(text: str) -> str:
    return text


def _between(start: int | None, end: int | None) -> int | None:
    return None if start is None or end is None else max(0, end - start)


def milliseconds(nanoseconds: int | None) -> int | None:
    """Turn Unix nanoseconds into Unix milliseconds, the wire's unit."""
    return None if nanoseconds is None else nanoseconds // NS_PER_MS


def _text_or_base64(body: bytes | None) -> tuple[str | None, str | None]:
    if body is None:
        return None, None
    try:
        return body.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(body).decode()
