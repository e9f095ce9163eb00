"""The contour routes: applications call them to run functions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.errors import InvalidRequest, JobEvicted, JobFailed, JobNotReady, JobTimeout, NotFound, QueueFull
from cmemu_nb.lifecycle.records import Job, JobSource, JobStatus
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.job_status import status_of
from cmemu_nb.server.openapi import examples, schemas
from cmemu_nb.server.openapi.schemas import described
from cmemu_nb.server.request import applied, preferred_wait
from cmemu_nb.server.response import BYTES, Response, StreamResponse, json_response
from cmemu_nb.server.routing import Route
from cmemu_nb.wire.json_input import Fields
from cmemu_nb.wire.paths import CONTOUR

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable

    from cmemu_nb.lifecycle.session import ResultStream
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request
    from cmemu_nb.server.response import Answer

CLIENT_DISCONNECTED = "the client disconnected before a runtime took the job"
BY_CLIENT = "by a client of the contour routes"
MAX_PIECE_BYTES = 65_536
RESET = "the runtime session was reset"


def _submit(context: Context, request: Request, source: JobSource) -> Job:
    what = "Submitting a job"
    fields = Fields(request.body, what)
    rid = fields.required_text("deployedAppRid")
    query_type = fields.required_text("queryType")
    query = fields.raw("query", b"{}")
    request.body = b""  # so that a request that waits for the result holds one copy of a large query, not two
    branch = fields.text("deployedAppBranch")
    user = context.tokens.user(request)
    return context.submitted(request, context.lifecycle.submit_to_app(rid, branch, query_type, query, source, user))


async def execute(context: Context, request: Request) -> Answer:
    """Submit a job and answer with its result, exactly the bytes that the runtime posted.

    The first byte of the result must arrive within the setting `execute_timeout`, 30 seconds by default. If the client
    disconnects while the job is queued, the job fails.
    """
    if request.client_disconnected():
        raise JobFailed(CLIENT_DISCONNECTED)
    return await result_in_time(context, _submit(context, request, JobSource.CONTOUR_SYNC).job_id)


async def result_in_time(context: Context, job_id: str, *, limited: bool = True) -> Answer:
    """Answer with a job's result if its first byte arrives within `execute_timeout`, if the wait is `limited`.

    If the client disconnects, its queued job fails. Raises `JobFailed` and `JobTimeout`.
    """
    deadline = asyncio.get_running_loop().time() + context.execute_timeout if limited else None
    try:
        return await _result_as_it_comes(context, job_id, deadline)
    except asyncio.CancelledError:
        _withdraw(context, job_id)
        raise


async def _result_as_it_comes(context: Context, job_id: str, deadline: float | None) -> Answer:
    while True:
        job = _find_or_failed(context, job_id)
        if job.finished:
            answer = result_of(job)
            return StreamResponse(_whole(answer.body)) if job.streamed else answer
        stream = context.lifecycle.stream(job_id)
        if stream is not None and stream.body:
            return StreamResponse(_relay(context, stream))
        if not await _wait_for_change(context, job_id, deadline):
            raise JobTimeout(f"Timed out waiting for compute-module job '{job_id}'. {context.diagnose(job_id)}")


def _withdraw(context: Context, job_id: str) -> None:
    job = context.lifecycle.find_job(job_id)
    if job is not None and job.status == JobStatus.QUEUED:
        context.lifecycle.fail(job_id, CLIENT_DISCONNECTED)


async def _whole(body: bytes) -> AsyncGenerator[bytes]:
    """Yield the result of a stream that has ended, so that it is sent in chunks, as one that has not."""
    if body:
        yield body


async def _relay(context: Context, stream: ResultStream) -> AsyncGenerator[bytes]:
    sent = 0
    while True:
        if sent < stream.size:
            piece = bytes(stream.body[sent : sent + MAX_PIECE_BYTES])
            sent += len(piece)
            yield piece
            # Writing does not suspend while the client's system accepts data, so give way to other tasks here.
            await asyncio.sleep(0)
            continue
        if stream.complete:
            return
        job = _find_or_failed(context, stream.job_id)
        if job.status == JobStatus.FAILED:
            raise JobFailed(job.error_message or "")
        if job.finished:
            return
        await context.long_polls.for_change(stream.job_id, None)


def _find_or_failed(context: Context, job_id: str) -> Job:
    try:
        return context.lifecycle.job(job_id)
    except NotFound:
        raise JobFailed(RESET) from None


def result_of(job: Job) -> Response:
    """Answer with the result of a finished job. Raises `JobFailed` if it failed."""
    if job.status == JobStatus.FAILED:
        raise JobFailed(job.error_message or "")
    return Response(200, job.result or b"", BYTES)


async def _wait_for_change(context: Context, job_id: str, deadline: float | None) -> bool:
    if deadline is None:
        return await context.long_polls.for_change(job_id, None)
    seconds = deadline - asyncio.get_running_loop().time()
    return seconds > 0 and await context.long_polls.for_change(job_id, seconds)


def submit(context: Context, request: Request) -> Response:
    """Submit a job and answer at once with its id, and with a handle that can be used in place of the id."""
    if request.client_disconnected():
        raise JobFailed(CLIENT_DISCONNECTED)
    job = _submit(context, request, JobSource.CONTOUR_ASYNC)
    nothing = {"nodeId": None, "moduleId": None}
    handle = {"type": "v1", "jobId": job.job_id, **nothing, "persistJobResult": None}
    answer = {
        "id": job.job_id,
        **nothing,
        "jobHandle": msgspec.json.encode(handle).decode(),
        "persistJobResult": None,
        "status": status_of(context.lifecycle, job, context.contour),
    }
    return json_response(200, answer)


def status(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Answer with a job's status. With `Prefer: wait=N`, the answer is held until the job has finished."""
    return _status(context, request, request.params["jobId"])


def status_v2(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Answer with a job's status, in the same way as for its id in the path [foundry].

    The body of the request is the job as the answer to its submission has it, of which the id or the handle counts.
    """
    return _status(context, request, _job_id(request, "Getting a status"))


def _status(context: Context, request: Request, job_id: str) -> Response | Awaitable[Response]:
    words = context.contour
    job = context.lifecycle.job(job_id)
    return _when_done(context, request, job, lambda job: json_response(200, status_of(context.lifecycle, job, words)))


def cancel(context: Context, request: Request) -> Response:
    """Cancel a queued or running job, which fails with that reason; nothing changes if it has finished [foundry].

    Functions in a notebook's cells are interrupted where Python can do that.
    """
    return _cancel(context, request.params["jobId"])


def cancel_v2(context: Context, request: Request) -> Response:
    """Cancel a job, in the same way as by its id in the path [foundry].

    The body of the request is the job as the answer to its submission has it, of which the id or the handle counts.
    """
    return _cancel(context, _job_id(request, "Cancelling a job"))


def _cancel(context: Context, job_id: str) -> Response:
    context.lifecycle.cancel([context.lifecycle.job(job_id).job_id], BY_CLIENT)
    return Response(204)


def result(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Answer with a job's result, exactly the bytes that the runtime posted.

    The body of the request has the job's id, or the handle from the answer to its submission. With `Prefer: wait=N`,
    the answer is held until the job has finished.
    """
    return _when_done(context, request, context.lifecycle.job(_job_id(request, "Fetching a result")), _result_if_ready)


async def stream_result(context: Context, request: Request) -> Answer:
    """Answer with a job's result while it arrives, without a time limit.

    `HEAD` does not wait: it checks that an unfinished job exists, and has the head of a finished job's answer, which
    shows by its framing whether the result is a stream [ours].
    """
    job = context.lifecycle.job(request.params["jobId"])
    if request.method == "HEAD" and not job.finished:
        return Response(200, content_type=BYTES)
    return await _result_as_it_comes(context, job.job_id, None)


def _when_done(context: Context, request: Request, job: Job, answer: Any) -> Response | Awaitable[Response]:
    seconds = preferred_wait(request)
    if job.finished or not seconds:
        return answer(job)  # type: ignore[no-any-return]
    return _answer_when_done(context, job.job_id, seconds, answer)


async def _answer_when_done(context: Context, job_id: str, seconds: int, answer: Any) -> Response:
    response: Response = answer(await job_when_done(context, job_id, seconds))
    response.headers.update(applied(seconds))
    return response


async def job_when_done(context: Context, job_id: str, seconds: int) -> Job:
    """Return a job when it has finished or the time is over. Raises `JobFailed` if its session was reset."""
    deadline = asyncio.get_running_loop().time() + seconds
    job = _find_or_failed(context, job_id)
    while not job.finished and await _wait_for_change(context, job_id, deadline):
        job = _find_or_failed(context, job_id)
    return job


def _result_if_ready(job: Job) -> Response:
    if not job.finished:
        raise JobNotReady(f"Job '{job.job_id}' is still {job.status}. Send 'Prefer: wait=30' to wait for it.")
    return result_of(job)


def _job_id(request: Request, what: str) -> str:
    fields = Fields(request.body, what)
    job_id = fields.text("id")
    if job_id is not None:
        return job_id
    handle = fields.text("jobHandle")
    if handle is None:
        raise InvalidRequest(f"{what}: give the job's 'id', or the 'jobHandle' from the answer to its submission.")
    return Fields(handle.encode(), f"{what} (jobHandle)").required_text("jobId")


_JOB_BODY = {
    "examples": [examples.CALL],
    "type": "object",
    "required": ["deployedAppRid", "queryType"],
    "properties": {
        "deployedAppRid": {"type": "string", "minLength": 1, "description": "The RID of an app bound to a runtime"},
        "deployedAppBranch": schemas.BRANCH_OF_A_CALL,
        "queryType": {"type": "string", "minLength": 1, "description": "The function's name"},
        "query": {"description": "The function's input, any JSON value; `{}` if omitted"},
    },
}
_NAMED: dict[str, Any] = {
    "id": described(schemas.MAYBE_TEXT, "The job's id"),
    "jobHandle": described(schemas.MAYBE_TEXT, "The handle from the answer to its submission, in place of the id"),
}
_NAMED_BODY = {"examples": [examples.FETCH], "type": "object", "properties": _NAMED}
_JOB_AS_BODY = {
    "examples": [examples.FETCH, examples.SUBMITTED],
    "type": "object",
    "properties": {**_NAMED, "status": {"description": "The status in the answer to its submission; it has no effect"}},
}

routes = (
    Route(
        "POST",
        f"{CONTOUR}/compute-modules/jobs/execute",
        execute,
        Auth.BEARER,
        {
            200: "The bytes of the result, streamed if the runtime streams them",
            404: "No runtime is bound to the app",
            429: "Too many jobs are queued",
            500: "The job failed",
            504: "The time limit is exceeded; the job stays queued or running",
        },
        "Run a function and wait for its result",
        body=_JOB_BODY,
        errors=(NotFound, QueueFull, JobFailed, JobTimeout),
    ),
    Route(
        "POST",
        f"{CONTOUR}/deployed-apps/jobs",
        submit,
        Auth.BEARER,
        {200: "The job's id and handle", 404: "No runtime is bound to the app", 429: "Too many jobs are queued"},
        "Submit a job",
        body=_JOB_BODY,
        answer=schemas.SUBMITTED,
        errors=(NotFound, QueueFull),
    ),
    Route(
        "GET",
        f"{CONTOUR}/jobs/{{jobId}}/status",
        status,
        Auth.BEARER,
        {200: "The status of the job", 500: "A reset cleared the job while the answer was held"},
        "Get a job's status",
        answer=schemas.STATUS,
        waits=True,
        errors=(JobFailed,),
    ),
    Route(
        "GET",
        f"{CONTOUR}/jobs/{{jobId}}/result",
        stream_result,
        Auth.BEARER,
        {200: "The bytes of the result, streamed if the runtime streams them", 500: "The job failed"},
        "Wait for a job's result and receive it while it arrives",
        errors=(JobFailed,),
    ),
    Route(
        "PUT",
        f"{CONTOUR}/jobs/result/v2",
        result,
        Auth.BEARER,
        {
            200: "The bytes of the result",
            404: "The job does not exist",
            409: "The job has not finished",
            500: "The job failed",
        },
        "Fetch a job's result",
        body=_NAMED_BODY,
        waits=True,
        errors=(NotFound, JobNotReady, JobEvicted, JobFailed),
    ),
    Route(
        "PUT",
        f"{CONTOUR}/jobs/status/v2",
        status_v2,
        Auth.BEARER,
        {
            200: "The status of the job",
            404: "The job does not exist",
            500: "A reset cleared the job while the answer was held",
        },
        "Get the status of a job that the body names",
        body=_JOB_AS_BODY,
        answer=schemas.STATUS,
        waits=True,
        errors=(NotFound, JobEvicted, JobFailed),
    ),
    Route(
        "DELETE",
        f"{CONTOUR}/jobs/{{jobId}}",
        cancel,
        Auth.BEARER,
        {204: "The job is cancelled, or had already finished", 404: "The job does not exist"},
        "Cancel a job",
        errors=(NotFound, JobEvicted),
    ),
    Route(
        "DELETE",
        f"{CONTOUR}/jobs",
        cancel_v2,
        Auth.BEARER,
        {204: "The job is cancelled, or had already finished", 404: "The job does not exist"},
        "Cancel a job that the body names",
        body=_JOB_AS_BODY,
        errors=(NotFound, JobEvicted),
    ),
)
