"""The emulator routes: what a runtime calls, from its session to its results [page]."""

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


def open_session(context: Context, request: Request) -> Response:
    """Register a runtime, or reset the session of one that exists.

    A reset clears its jobs and schemas, replaces its bindings and makes a new token; the old one is worth nothing
    any more. An app that is bound already moves to this runtime.
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
    """Hand out the runtime's next job, first in, first out. `HEAD` never takes one.

    The job is running from then on, until its result is posted. A job whose answer does not reach the client goes back
    to its queue. With `Prefer: wait=N` the answer is held until a job comes.
    """
    if request.method == "HEAD":
        return Response(204)
    if request.client_gone():
        return Response(204)
    seconds = preferred_wait(request)
    here = _lives_here(request)
    job = context.lifecycle.take(request.params["runtimeId"], will_wait=seconds > 0, ends_with_kernel=here)
    if job is None and seconds:
        return _wait_for_job(context, request, seconds)
    return job_answer(context, job, seconds)


async def _wait_for_job(context: Context, request: Request, seconds: int) -> Response:
    runtime_id = request.params["runtimeId"]
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    # Session and queue are looked at in the step in which the wait begins: what happens in between wakes nobody.
    context.tokens.authorize_runtime(request)
    while not context.lifecycle.queue_depth(runtime_id):
        if not await context.waiting.for_queued_job(runtime_id, deadline - loop.time()):
            break
        context.tokens.authorize_runtime(request)
    if request.client_gone():
        context.waiting.pass_on(runtime_id)
        return Response(204)
    job = context.lifecycle.take(runtime_id, ends_with_kernel=_lives_here(request))
    return job_answer(context, job, seconds)


def _lives_here(request: Request) -> bool:
    agent: str | None = request.headers.get("User-Agent")
    return agent == IN_THIS_KERNEL


def job_answer(context: Context, job: Job | None, waited: int, user_id: str | None = None) -> Response:
    """Answer a poll: a job that does not arrive goes back to its queue."""
    if job is None:
        return Response(204, headers=applied(waited))
    body = envelope(job, user_id)
    return Response(200, body, headers=applied(waited), undelivered=lambda: context.lifecycle.give_back(job))


def envelope(job: Job, user_id: str | None = None) -> bytes:
    """Return a job as a runtime gets it [page], with who asked for it if that is to be told [foundry].

    The query is the very text that was submitted.
    """
    fields = {"jobId": job.job_id, "queryType": job.query_type}
    head = json_response(200, fields if user_id is None else {**fields, "userId": user_id}).body
    parts = (b'{"type":"computeModuleJobV1","computeModuleJobV1":', head[:-1], b',"query":', job.query, b"}}")
    return b"".join(parts)


def post_schemas(context: Context, request: Request) -> Response:
    """Add or update the runtime's function schemas.

    One bad entry refuses them all. A function whose schema was never posted is called all the same.
    """
    runtime_id, entries = request.params["runtimeId"], parse_schemas(request.body)
    sizes = {each.function_name: len(each.schema_payload) for each in context.lifecycle.schemas(runtime_id)}
    size, limit = sum((sizes | {name: len(payload) for name, payload in entries}).values()), context.max_schema_bytes
    if size > limit:
        raise PayloadTooLarge(
            f"The schemas of runtime '{runtime_id}' would be {size} bytes, which is more than {limit}. They were not "
            "stored: post smaller ones, or start with a larger max_schema_bytes."
        )
    context.lifecycle.post_schemas(runtime_id, entries)
    return Response(204)


def receive_result(context: Context, request: Request) -> Receiver:
    """Take a result as it arrives: chunked bodies are streams, others count when they are complete.

    The bytes are kept and handed on as they are. The same result may be posted again; a stream that breaks off fails
    its job.
    """
    job = context.lifecycle.job_of(request.params["runtimeId"], request.params["jobId"])
    # A finished job takes no stream, but the same result may come again.
    streamed = request.chunked and job.status != JobStatus.SUCCEEDED
    if not streamed:
        return BufferedBody(context, request, store_result)
    check_chunked(request)
    return StreamedResult(context, request)


def store_result(context: Context, request: Request) -> Response:
    """Store a result that came as a whole."""
    params = request.params
    context.lifecycle.finish(params["runtimeId"], params["jobId"], request.body, _content_type(context, request))
    return Response(204)


def _content_type(context: Context, request: Request) -> str | None:
    content_type = request.content_type()
    context.lifecycle.check_label("content type", content_type)
    return content_type


class StreamedResult:
    """A result in chunks, passed on to waiting clients while it arrives."""

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
        """Fail the job: part of its result may be out already."""
        self._context.lifecycle.break_stream(self._stream)


def inspect_job(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Show a job with its result, its runtime and the runtime's schemas."""
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
        "branch": {"type": ["string", "null"], "description": "Branch of the deployed app, `master` if left out"},
        "displayName": {"type": ["string", "null"], "description": "Human-readable name"},
    },
}

SCHEMAS_BODY = {
    "type": ["array", "object"],
    "description": "An array, a container, a named object or a map of schemas",
    "examples": examples.SCHEMAS,
}

routes = (
    Route(
        "POST",
        RUNTIMES,
        open_session,
        Auth.NONE,
        {
            200: "The session is open: its token and its URIs",
            409: "The notebook's session is protected",
            429: "There are `max_runtimes` runtimes already",
        },
        "Open a runtime session, or reset the one that exists",
        body=_SESSION_BODY,
        answer=schemas.SESSION,
        errors=(NotebookProtected, TooManyRuntimes),
    ),
    Route(
        "GET",
        f"{RUNTIME}/job",
        get_job,
        Auth.MODULE,
        {200: "A job, now running", 204: "No job is queued", 503: "An injected fault"},
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
            409: "The job is not running, or has another result already",
            500: "An injected fault",
        },
        "Post the result of a job: any bytes, chunked bodies as streams",
        receiver=receive_result,
        errors=(JobNotRunning, JobAlreadyCompleted, InjectedFault),
    ),
    Route(
        "GET",
        f"{RUNTIME}/jobs/{{jobId}}",
        inspect_job,
        Auth.NONE,
        {200: "The runtime, the job and the runtime's schemas"},
        "Inspect a job, its runtime and the schemas",
        answer=schemas.INSPECTION,
    ),
)
