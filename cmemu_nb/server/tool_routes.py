"""The routes for tools and headless use [ours]: looking at everything, and acting on it by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmemu_nb.errors import InvalidRequest, JobAlreadyCompleted, JobEvicted, NotFound, QueueFull
from cmemu_nb.model import JobStatus
from cmemu_nb.server import answer_schemas, examples
from cmemu_nb.server.answer_schemas import said, shown
from cmemu_nb.server.http import Response, json_response
from cmemu_nb.server.routing import Auth, Route, query_options
from cmemu_nb.server.runtime_routes import RUNTIME, RUNTIMES
from cmemu_nb.wire_json import Fields

if TYPE_CHECKING:
    from cmemu_nb.model import Runtime
    from cmemu_nb.server.application import Application
    from cmemu_nb.server.request import Request

PAGE = 100
LARGEST_PAGE = 10_000


def list_runtimes(app: Application, _: Request) -> Response:
    """List every runtime with its bindings and how many jobs are queued."""
    return json_response(200, {"runtimes": [_runtime(app, runtime) for runtime in app.lifecycle.runtimes()]})


def show_runtime(app: Application, request: Request) -> Response:
    """Show one runtime with its schemas."""
    runtime_id = request.params["runtimeId"]
    schemas = [schema.wire() for schema in app.lifecycle.schemas(runtime_id)]
    return json_response(200, {"runtime": _runtime(app, app.lifecycle.runtime(runtime_id)), "schemas": schemas})


def _runtime(app: Application, runtime: Runtime) -> dict[str, Any]:
    bound = [each.wire() for each in app.lifecycle.deployed_apps() if each.runtime_id == runtime.runtime_id]
    depth = app.lifecycle.queue_depth(runtime.runtime_id)
    return {
        **runtime.wire(hide_token=app.hide_tokens),
        "display_name": runtime.display_name,
        "queue_depth": depth,
        "evicted_jobs": app.lifecycle.evicted().get(runtime.runtime_id, 0),
        "deployed_apps": bound,
    }


def list_jobs(app: Application, request: Request) -> Response:
    """List a runtime's jobs, oldest first: `?status=`, `?limit=` and `?after=<jobId>` filter and page."""
    options = _options(request, {"status", "limit", "after"})
    limit = _limit(options.get("limit"))
    jobs = app.lifecycle.jobs(request.params["runtimeId"])
    if "after" in options:
        last = app.lifecycle.job_of(request.params["runtimeId"], options["after"])
        jobs = [job for job in jobs if job.sequence > last.sequence]
    if "status" in options:
        wanted = _job_status(options["status"])
        jobs = [job for job in jobs if job.status == wanted]
    answer = {"jobs": [job.wire() for job in jobs[:limit]], "more": len(jobs) > limit}
    return json_response(200, answer)


def submit_direct(app: Application, request: Request) -> Response:
    """Queue a job for the runtime itself, whatever app is bound to it."""
    fields = Fields(request.body, "Submitting a job")
    query_type = fields.required_text("queryType")
    query = fields.raw("query", b"{}")
    job = app.lifecycle.submit(request.params["runtimeId"], query_type, query, app.user(request))
    return json_response(200, {"jobId": job.job_id})


def fail_job(app: Application, request: Request) -> Response:
    """Fail a queued or running job by hand; the reason becomes its error message."""
    reason = Fields(request.body, "Failing a job").required_text("reason")
    job = app.lifecycle.job_of(request.params["runtimeId"], request.params["jobId"])
    app.lifecycle.fail(job.job_id, reason)
    return Response(204)


def delete_schema(app: Application, request: Request) -> Response:
    """Forget one function's schema. Its jobs stay."""
    app.lifecycle.delete_schema(request.params["runtimeId"], request.params["functionName"])
    return Response(204)


def delete_runtime(app: Application, request: Request) -> Response:
    """End a runtime's session and forget the runtime with its jobs, schemas and bindings."""
    app.lifecycle.delete_session(request.params["runtimeId"])
    return Response(204)


def reset_all(app: Application, _: Request) -> Response:
    """Forget every runtime with all that belongs to it."""
    app.lifecycle.reset()
    return Response(204)


def health(_: Application, __: Request) -> Response:
    """Say that the emulator lives."""
    return json_response(200, {"status": "ok"})


def _options(request: Request, names: set[str]) -> dict[str, str]:
    options = query_options(request)
    unknown = sorted(set(options) - names)
    if unknown:
        raise InvalidRequest(f"Unknown query option '{unknown[0]}'. Known options: {', '.join(sorted(names))}.")
    return options


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    digits = text.lstrip("0")
    in_range = digits.isascii() and digits.isdecimal() and len(digits) <= len(str(LARGEST_PAGE))
    if not (in_range and int(digits) <= LARGEST_PAGE):
        raise InvalidRequest(f"'limit' must be a whole number from 1 to {LARGEST_PAGE}.")
    return int(digits)


def _job_status(text: str) -> JobStatus:
    try:
        return JobStatus(text)
    except ValueError:
        raise InvalidRequest(f"Unknown status '{text[:100]}'. Known statuses: {', '.join(JobStatus)}.") from None


_EMPTY = {204: "Done"}
_NAME = {"type": "string", "minLength": 1}
_DIRECT_BODY = shown(
    {
        "type": "object",
        "required": ["queryType"],
        "properties": {
            "queryType": said(_NAME, "The function's name"),
            "query": said({}, "The function's input, any JSON; `{}` if left out"),
        },
    },
    examples.DIRECT,
)
_REASON_BODY = shown(
    {"type": "object", "required": ["reason"], "properties": {"reason": said(_NAME, "Why it fails, in words")}},
    examples.REASON,
)

routes = (
    Route(
        "GET",
        RUNTIMES,
        list_runtimes,
        Auth.BEARER,
        {200: "Every runtime"},
        "List the runtimes",
        answer=answer_schemas.RUNTIMES,
    ),
    Route("DELETE", RUNTIMES, reset_all, Auth.BEARER, _EMPTY, "Forget every runtime: an emulator as new"),
    Route(
        "GET",
        RUNTIME,
        show_runtime,
        Auth.EITHER,
        {200: "The runtime and its schemas"},
        "Show one runtime",
        answer=answer_schemas.ONE_RUNTIME,
    ),
    Route("DELETE", RUNTIME, delete_runtime, Auth.EITHER, _EMPTY, "Delete a runtime"),
    Route(
        "GET",
        f"{RUNTIME}/jobs",
        list_jobs,
        Auth.EITHER,
        {
            200: "The jobs, oldest first, and whether there are more",
            404: "No such runtime, or no such job as `after`",
            410: "The job given as `after` was let go to make room",
        },
        "List a runtime's jobs",
        answer=answer_schemas.JOBS,
        query={
            "status": said(answer_schemas.one_of(JobStatus), "Only jobs of this status"),
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": LARGEST_PAGE,
                "default": PAGE,
                "description": "At most so many jobs",
            },
            "after": said(answer_schemas.TEXT, "The id of the last job of the page before"),
        },
        errors=(NotFound, JobEvicted),
    ),
    Route(
        "POST",
        f"{RUNTIME}/jobs",
        submit_direct,
        Auth.EITHER,
        {200: "The job's id", 429: "Too many jobs are queued"},
        "Submit a job to the runtime itself",
        body=_DIRECT_BODY,
        answer=answer_schemas.QUEUED_DIRECTLY,
        errors=(QueueFull,),
    ),
    Route(
        "POST",
        f"{RUNTIME}/jobs/{{jobId}}/fail",
        fail_job,
        Auth.EITHER,
        {204: "The job failed", 409: "The job is done already"},
        "Fail a job by hand",
        body=_REASON_BODY,
        errors=(JobAlreadyCompleted,),
    ),
    Route(
        "DELETE",
        f"{RUNTIME}/schemas/{{functionName}}",
        delete_schema,
        Auth.EITHER,
        _EMPTY,
        "Delete a function's schema",
    ),
    Route(
        "GET",
        "/_emulate/health",
        health,
        Auth.NONE,
        {200: "The emulator lives"},
        "Ask whether the emulator lives",
        answer=answer_schemas.HEALTH,
    ),
)
