"""The runtime routes: a runtime calls them, from the opening of its session to its results [page]."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from cmemu_nb.errors import (
    InjectedFault,
    JobAlreadyCompleted,
    JobNotRunning,
    NotebookProtected,
    PayloadTooLarge,
    PollRejected,
    TooManyRuntimes,
)
from cmemu_nb.lifecycle.records import FunctionSchema, JobStatus
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.handlers import BufferedBody, Receiver, check_chunked, check_size
from cmemu_nb.server.listing import listing
from cmemu_nb.server.openapi import examples, schemas
from cmemu_nb.server.request import applied, preferred_wait
from cmemu_nb.server.response import Response, json_response
from cmemu_nb.server.routing import Route
from cmemu_nb.wire.json_input import Fields
from cmemu_nb.wire.paths import IN_THIS_KERNEL, RUNTIMES
from cmemu_nb.wire.schema_parser import parse_schemas

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request

RUNTIME = f"{RUNTIMES}/{{runtimeId}}"
START_OF_ENVELOPE, END_OF_ENVELOPE = b'{"type":"computeModuleJobV1","computeModuleJobV1":', b"}"


def open_session(context: Context, request: Request) -> Response:
    """Register a runtime, or reset the session of an existing one.

    A reset clears the jobs and schemas of the runtime, replaces its bindings and makes a new token; the old token is
    no longer valid. An app that is bound to another runtime is bound to this one instead.
    """
    fields = Fields(request.body, "Opening a runtime session")
    runtime_id = fields.required_text("runtimeId")
    context.tokens.check_may_open(runtime_id, request)
    runtime, _ = context.lifecycle.open_session(
        runtime_id,
        fields.text("deployedAppRid"),
        fields.text("branch"),
        fields.text("displayName"),
    )
    return json_response(200, runtime.session_answer(request.base_url, proxied=bool(request.prefix)))


def get_job(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Hand out the runtime's next job, first in, first out. `HEAD` never takes a job.

    From then on the job is running, until its result is posted. A job goes back to its queue if the answer does not
    reach the client. With `Prefer: wait=N`, the answer is held until a job is queued.
    """
    if request.method == "HEAD":
        return Response(204)
    if request.client_disconnected():
        return Response(204)
    seconds = preferred_wait(request)
    ends_with_kernel = _is_in_this_kernel(request)
    job = context.lifecycle.take(request.params["runtimeId"], will_wait=seconds > 0, ends_with_kernel=ends_with_kernel)
    if job is None and seconds:
        return _wait_for_job(context, request, seconds)
    return job_answer(context, request, job, seconds)


async def _wait_for_job(context: Context, request: Request, seconds: int) -> Response:
    runtime_id = request.params["runtimeId"]
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    # Session and queue are checked in the same step in which the wait begins: no event can be missed in between.
    context.tokens.authorize_runtime(request)
    while not context.lifecycle.queue_depth(runtime_id):
        if not await context.long_polls.for_queued_job(runtime_id, deadline - loop.time()):
            break
        context.tokens.authorize_runtime(request)
    if request.client_disconnected():
        context.long_polls.pass_on(runtime_id)
        return Response(204)
    job = context.lifecycle.take(runtime_id, ends_with_kernel=_is_in_this_kernel(request))
    return job_answer(context, request, job, seconds)


def _is_in_this_kernel(request: Request) -> bool:
    agent: str | None = request.headers.get("User-Agent")
    return agent == IN_THIS_KERNEL


def job_answer(context: Context, request: Request, job: Job | None, waited: int) -> Response:
    """Answer a poll. A job goes back to its queue if the answer does not reach the client."""
    if job is None:
        return Response(204, headers=applied(waited))
    body = envelope(context, request, job)
    return Response(200, body, headers=applied(waited), undelivered=lambda: context.lifecycle.give_back(job))


def envelope(context: Context, request: Request, job: Job) -> bytes:
    """Return a job as the executor that polls receives it. The query is exactly the text that was submitted.

    The envelope of the runtime routes is the published one [page]. Replicas, and the executor of functions in cells,
    also get the `userId` of the user who submitted the job, and that user's token, if they are known [foundry].
    """
    fields = {"jobId": job.job_id, "queryType": job.query_type}
    if request.replica is not None or _is_in_this_kernel(request):
        fields |= {"userId": job.user_id} if job.user_id is not None else {}
        fields |= context.caller_tokens.members(job)
    head = json_response(200, fields).body
    return b"".join((START_OF_ENVELOPE, head[:-1], b',"query":', job.query, b"}", END_OF_ENVELOPE))


def post_schemas(context: Context, request: Request) -> Response:
    """Add or update the runtime's function schemas.

    If one entry is invalid, none is stored. A function can be called even if its schema was never posted.
    """
    runtime_id, entries = request.params["runtimeId"], parse_schemas(request.body)
    sizes = {each.function_name: len(each.schema_payload) for each in context.lifecycle.schemas(runtime_id)}
    size, limit = sum((sizes | {name: len(payload) for name, payload in entries}).values()), context.max_schema_bytes
    if size > limit:
        raise PayloadTooLarge(
            f"The schemas of runtime '{runtime_id}' would be {size} bytes, which is more than {limit}. They were not "
            "stored. Post smaller ones, or start with a larger max_schema_bytes."
        )
    if request.replica is not None and request.replica.standby:
        context.lifecycle.hold_schemas(request.replica, entries)
    else:
        context.lifecycle.post_schemas(runtime_id, entries)
    return Response(204)


def receive_result(context: Context, request: Request) -> Receiver:
    """Take a result. A chunked body is a streamed result; any other body is stored when it is complete.

    The bytes are kept and passed on unchanged. The same result may be posted again. If a stream breaks off, its job
    fails.
    """
    job = context.lifecycle.job_of(request.params["runtimeId"], request.params["jobId"])
    # A finished job accepts no stream, but the same result may be posted again.
    streamed = request.chunked and job.status != JobStatus.SUCCEEDED
    if not streamed:
        return BufferedBody(context, request, store_result)
    check_chunked(request)
    return StreamedResult(context, request)


def store_result(context: Context, request: Request) -> Response:
    """Store a result whose body was not streamed."""
    params = request.params
    context.lifecycle.finish(params["runtimeId"], params["jobId"], request.body, _content_type(context, request))
    return Response(204)


def _content_type(context: Context, request: Request) -> str | None:
    content_type = request.content_type()
    context.lifecycle.check_label("content type", content_type)
    return content_type


class StreamedResult:
    """Receives a result in chunks and passes it on to waiting clients while it arrives."""

    patient = True

    def __init__(self, context: Context, request: Request) -> None:
        self._context = context
        self._request = request
        self._content_type = _content_type(context, request)
        self._stream = context.lifecycle.open_stream(request.params["runtimeId"], request.params["jobId"])

    def receive(self, chunk: bytes) -> None:
        """Append a chunk."""
        check_size(self._context, self._stream.size + len(chunk))
        self._context.lifecycle.add_chunk(self._stream, chunk)

    def finish(self) -> Response:
        """Store the result: the job succeeded."""
        try:
            self._context.lifecycle.close_stream(self._stream, self._content_type)
        except Exception:
            self.break_off()
            raise
        return Response(204)

    def break_off(self) -> None:
        """Fail the job: part of its result may have been sent to a client."""
        self._context.lifecycle.break_stream(self._stream)


def inspect_job(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Answer with a job and its result, its runtime, and the schemas of the runtime."""
    runtime_id = request.params["runtimeId"]
    answer: dict[str, Any] = {
        "runtime": context.lifecycle.runtime(runtime_id).wire(hide_token=context.hide_tokens),
        "job": context.lifecycle.job_of(runtime_id, request.params["jobId"]).wire(),
    }
    return listing(answer, "schemas", context.lifecycle.schemas(runtime_id), FunctionSchema.wire)


_SESSION_BODY = {
    "examples": [examples.OPEN],
    "type": "object",
    "required": ["runtimeId"],
    "properties": {
        "runtimeId": {"type": "string", "description": "Unique identifier of the runtime", "minLength": 1},
        "deployedAppRid": {"type": ["string", "null"], "description": "Deployed app to bind to this runtime"},
        "branch": {"type": ["string", "null"], "description": "Branch of the deployed app; `master` if omitted"},
        "displayName": {"type": ["string", "null"], "description": "Human-readable name"},
    },
}

SCHEMAS_BODY = {
    "type": ["array", "object"],
    "description": "An array of schemas, an object that contains one, a single schema, or schemas by function name",
    "examples": examples.SCHEMAS,
}

routes = (
    Route(
        "POST",
        RUNTIMES,
        open_session,
        Auth.NONE,
        {
            200: "The session is open; the answer has its token and URIs",
            409: "The notebook's session is protected",
            429: "The emulator already has `max_runtimes` runtimes",
        },
        "Open a runtime session, or reset an existing one",
        body=_SESSION_BODY,
        answer=schemas.SESSION,
        errors=(NotebookProtected, TooManyRuntimes),
    ),
    Route(
        "GET",
        f"{RUNTIME}/job",
        get_job,
        Auth.MODULE,
        {200: "A job, which is running now", 204: "No job is queued", 503: "An injected fault"},
        "Poll for the next job",
        answer=schemas.ENVELOPE,
        waits=True,
        errors=(PollRejected,),
    ),
    Route(
        "POST",
        f"{RUNTIME}/schemas",
        post_schemas,
        Auth.MODULE,
        {204: "The schemas are stored", 500: "An injected fault"},
        "Post function schemas",
        body=SCHEMAS_BODY,
        errors=(InjectedFault,),
    ),
    Route(
        "POST",
        f"{RUNTIME}/results/{{jobId}}",
        None,
        Auth.MODULE,
        {
            204: "The result is stored",
            409: "The job is not running, or already has another result",
            500: "An injected fault",
        },
        "Post the result of a job: any bytes; a chunked body is a stream",
        receiver=receive_result,
        errors=(JobNotRunning, JobAlreadyCompleted, InjectedFault),
    ),
    Route(
        "GET",
        f"{RUNTIME}/jobs/{{jobId}}",
        inspect_job,
        Auth.NONE,
        {200: "The runtime, the job and the runtime's schemas"},
        "Inspect a job, its runtime and the runtime's schemas",
        answer=schemas.INSPECTION,
    ),
)
