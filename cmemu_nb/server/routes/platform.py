"""The platform routes: the official SDKs and other real compute-module clients call them, unmodified [foundry].

The module token alone identifies the runtime. These clients retry without a pause, so answers are delayed: an empty
poll is held for ten seconds, and a refusal for one. The first poll of a replica is answered at once, because the
TypeScript SDK posts its schemas only after it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cmemu_nb.errors import InjectedFault, JobEvicted, JobNotRunning, NotFound, PollRejected
from cmemu_nb.lifecycle.records import JobStatus
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.handlers import BufferedBody, Receiver, check_size
from cmemu_nb.server.openapi import schemas
from cmemu_nb.server.request import preferred_wait
from cmemu_nb.server.response import Response, json_response
from cmemu_nb.server.routes.runtime import SCHEMAS_BODY, StreamedResult, job_answer, post_schemas, store_result
from cmemu_nb.server.routing import Route
from cmemu_nb.wire.job_ids import is_job_of
from cmemu_nb.wire.paths import PLATFORM
from cmemu_nb.wire.results import error_of_stream, function_error

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from cmemu_nb.lifecycle.session import Replica
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request

POLL_SECONDS = 10
KEPT_OF_A_LATE_RESULT = 65_536
SHOWN_OF_A_LATE_RESULT = 2048
# How long the job of a stream that a launched module broke off waits for the reason: at most a second.
LOOK_SECONDS = 0.02
MAX_LOOKS = 50


def get_job(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Hand out the runtime's next job, unless the replica already has as many as it may. `HEAD` never takes a job.

    The first poll of a replica is answered at once. Later polls are held for ten seconds, or for the seconds of
    `Prefer: wait=N`.
    """
    if request.method == "HEAD" or request.client_disconnected():
        return Response(204)
    replica = _replica(request)
    seconds = 0 if context.lifecycle.count_poll(replica) else preferred_wait(request) or POLL_SECONDS
    job = context.lifecycle.take(replica.runtime_id, will_wait=seconds > 0, replica=replica)
    if job is None and seconds:
        return _wait_for_job(context, request, replica, seconds)
    return job_answer(context, request, job, 0)


async def _wait_for_job(context: Context, request: Request, replica: Replica, seconds: int) -> Response:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        # Session and queue are checked in the same step in which the wait begins: no event can be missed in between.
        if replica.revoked:
            context.long_polls.pass_on(replica.runtime_id)
        replica = context.lifecycle.authenticate_replica(replica.token)
        queued = context.lifecycle.queue_depth(replica.runtime_id)
        if replica.full:
            if queued:
                context.long_polls.pass_on(replica.runtime_id)
            woken = await context.long_polls.for_slot(replica.runtime_id, deadline - loop.time())
        elif queued:
            break
        else:
            woken = await context.long_polls.for_queued_job(replica.runtime_id, deadline - loop.time())
        if not woken:
            break
    replica = context.lifecycle.authenticate_replica(replica.token)
    if request.client_disconnected():
        context.long_polls.pass_on(replica.runtime_id)
        return Response(204)
    return job_answer(context, request, context.lifecycle.take(replica.runtime_id, replica=replica), seconds)


def _replica(request: Request) -> Replica:
    assert request.replica is not None  # noqa: S101 - Auth.REPLICA has set it
    return request.replica


def receive_result(context: Context, request: Request) -> Receiver:
    """Take a result while it arrives. A result for a job that has ended becomes an event and changes nothing."""
    if is_late(context, request):
        return LateResult(context, request)
    return PlatformResult(context, request) if request.chunked else BufferedBody(context, request, store)


def is_late(context: Context, request: Request) -> bool:
    """Return whether a result arrives after the end of its job, or after the beginning of another one."""
    runtime_id, job_id = request.params["runtimeId"], request.params["jobId"]
    try:
        job = context.lifecycle.job_of(runtime_id, job_id)
    except JobEvicted:
        return True
    except NotFound:
        # After a reset, a new session has the same token if it comes from a seed file: the id was issued with it.
        if is_job_of(job_id, context.lifecycle.runtime(runtime_id).module_auth_token):
            return True
        raise
    return job.finished or (job.status == JobStatus.RUNNING and context.lifecycle.stream(job.job_id) is not None)


def store(context: Context, request: Request) -> Response:
    """Store a whole result, unless its job has ended."""
    job = context.lifecycle.find_job(request.params["jobId"])
    if job is None or job.finished:
        return _note_late(context, request, request.body)
    return store_result(context, request)


class PlatformResult(StreamedResult):
    """A result in chunks. If its job ends while it arrives, the rest is ignored."""

    def receive(self, chunk: bytes) -> None:
        """Append a chunk."""
        if self._ended():
            return
        super().receive(chunk)

    def finish(self) -> Response:
        """Store the result: the job succeeded."""
        return _note_late(self._context, self._request, bytes(self._stream.body)) if self._ended() else super().finish()

    def break_off(self) -> None:
        """Fail the job. The reason, which a launched module logs after it has closed the connection, is awaited."""
        self._break_off(MAX_LOOKS if _replica(self._request).launched else 0)

    def _break_off(self, looks: int) -> None:
        reason = self._context.lifecycle.log(self._stream.job_id).stream_error if not self._ended() else ""
        if reason or looks == 0 or self._ended():
            self._context.lifecycle.break_stream(self._stream, reason)
        else:
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._break_off, looks - 1)

    def _ended(self) -> bool:
        return self._context.lifecycle.stream(self._stream.job_id) is not self._stream


class LateResult:
    """A result that arrives too late. Its beginning is kept for the event."""

    patient = True

    def __init__(self, context: Context, request: Request) -> None:
        self._context = context
        self._request = request
        self._beginning = b""
        self._size = 0

    def receive(self, chunk: bytes) -> None:
        """Keep the first bytes."""
        self._size += len(chunk)
        check_size(self._context, self._size)
        self._beginning = (self._beginning + chunk)[:KEPT_OF_A_LATE_RESULT]

    def finish(self) -> Response:
        """Add an event with the beginning of the result."""
        return _note_late(self._context, self._request, self._beginning)

    def break_off(self) -> None:
        """Do nothing: the result would have been ignored anyway."""


def _note_late(context: Context, request: Request, result: bytes) -> Response:
    """Log the result as an event and answer 204: a refusal would make the TypeScript SDK's process exit."""
    runtime_id, job_id = request.params["runtimeId"], request.params["jobId"]
    job = context.lifecycle.find_job(job_id)
    # The same result again is a retry of a client that did not receive the answer.
    if job is not None and job.status == JobStatus.SUCCEEDED and (job.result or b"")[:KEPT_OF_A_LATE_RESULT] == result:
        return Response(204)
    shown = context.lifecycle.events.masked(result.decode(errors="replace"))[:SHOWN_OF_A_LATE_RESULT]
    error = function_error(result)
    if job is not None and job.status == JobStatus.FAILED and error is not None:
        context.lifecycle.add_reason(job_id, error_of_stream(error)[:SHOWN_OF_A_LATE_RESULT], shown)
    else:
        context.lifecycle.note("late_result", runtime_id, job_id, shown)
        if error is not None and job is not None and job.status == JobStatus.RUNNING and _replica(request).launched:
            # The Python SDK's error about an item that it could not encode: its stream is being broken off.
            context.lifecycle.log(job_id).explain_stream(error_of_stream(error)[:SHOWN_OF_A_LATE_RESULT])
    return Response(204)


def restart(context: Context, request: Request) -> Response:
    """Fail the jobs that the replica was running before it restarted, and answer with their ids."""
    return json_response(200, context.lifecycle.restart_replica(_replica(request)))


routes = (
    Route(
        "GET",
        f"{PLATFORM}/job",
        get_job,
        Auth.REPLICA,
        {200: "A job, which is running now", 204: "No job was queued in time", 503: "An injected fault"},
        "Poll for the next job",
        answer=schemas.PLATFORM_ENVELOPE,
        waits=True,
        errors=(PollRejected,),
    ),
    Route(
        "POST",
        f"{PLATFORM}/results/{{jobId}}",
        None,
        Auth.REPLICA,
        {204: "The result is stored, or arrived too late", 409: "The job is not running", 500: "An injected fault"},
        "Post the result of a job",
        receiver=receive_result,
        errors=(JobNotRunning, InjectedFault),
    ),
    Route(
        "POST",
        f"{PLATFORM}/schemas",
        post_schemas,
        Auth.REPLICA,
        {204: "The schemas are stored", 500: "An injected fault"},
        "Post function schemas",
        body=SCHEMAS_BODY,
        errors=(InjectedFault,),
    ),
    Route(
        "POST",
        f"{PLATFORM}/restart",
        restart,
        Auth.REPLICA,
        {200: "The ids of the jobs that the replica was running", 500: "An injected fault"},
        "Report that the replica restarted",
        answer=schemas.JOB_IDS,
        errors=(InjectedFault,),
    ),
)
