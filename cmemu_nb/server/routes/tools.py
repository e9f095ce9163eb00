"""The routes for tools and headless use [ours]: they inspect runtimes and jobs, and change them by hand."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from cmemu_nb.display.job_search import MIN_CHARACTERS, find_unfinished
from cmemu_nb.errors import InvalidRequest, JobAlreadyCompleted, JobEvicted, NotFound, NotPrivate, QueueFull
from cmemu_nb.lifecycle.configuration import KEYS, hide_secrets
from cmemu_nb.lifecycle.records import NS_PER_MS, STATES, FunctionSchema, JobStatus, column_of
from cmemu_nb.phrases import quoted
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.listing import listing
from cmemu_nb.server.openapi import examples, schemas
from cmemu_nb.server.openapi.schemas import described, with_examples
from cmemu_nb.server.response import JSON, Response, StreamResponse, json_response
from cmemu_nb.server.routes.runtime import RUNTIME
from cmemu_nb.server.routing import Route, query_options
from cmemu_nb.storage import session_file
from cmemu_nb.wire.json_input import Fields
from cmemu_nb.wire.paths import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Iterator

    from cmemu_nb.lifecycle.records import Job, Runtime
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request
    from cmemu_nb.server.response import Answer

PAGE = 100
MAX_PAGE = 10_000
EXPORT = "/_emulate/export"
HEALTH = "/_emulate/health"
JOBS = "/_emulate/jobs"
MAX_TASKS = 10_000


def list_runtimes(context: Context, request: Request) -> Response | Awaitable[Response]:
    """List the runtimes with their bindings and numbers of jobs, in the order of their first sessions.

    `?limit=` and `?after=<runtimeId>` select a page.
    """
    options = known_options(request, {"limit", "after"})
    limit = page_size(options.get("limit"))
    found = context.lifecycle.runtimes(options.get("after"), limit + 1)

    def make(runtime: Runtime) -> dict[str, Any] | None:
        try:
            return _runtime(context, context.lifecycle.runtime(runtime.runtime_id))
        except NotFound:  # the runtime was deleted while the page was made
            return None

    return listing({"more": len(found) > limit}, "runtimes", found[:limit], make)


def show_runtime(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Answer with one runtime and its schemas."""
    runtime_id = request.params["runtimeId"]
    runtime = _runtime(context, context.lifecycle.runtime(runtime_id))
    return listing({"runtime": runtime}, "schemas", context.lifecycle.schemas(runtime_id), FunctionSchema.wire)


def _runtime(context: Context, runtime: Runtime) -> dict[str, Any]:
    bound = [each.wire() for each in context.lifecycle.apps_of(runtime.runtime_id)]
    depth, counts = context.lifecycle.queue_depth(runtime.runtime_id), context.lifecycle.outcomes(runtime.runtime_id)
    return {
        **runtime.wire(hide_token=context.hide_tokens),
        "display_name": runtime.display_name,
        "mode": runtime.mode,
        "import_error": runtime.import_error or None,
        "queue_depth": depth,
        "job_counts": {column_of(state): counts[state] for state in STATES},
        "evicted_jobs": context.lifecycle.count_evicted(runtime.runtime_id),
        "deployed_apps": bound,
    }


def list_jobs(context: Context, request: Request) -> Response | Awaitable[Response]:
    """List a runtime's jobs, oldest first.

    `?status=` and `?id=` filter the jobs; `?limit=` and `?after=<jobId>` select a page. With `?newest=true` it is the
    last page instead of the first.
    """
    options = known_options(request, {"status", "id", "limit", "after", "newest"})
    limit, newest = page_size(options.get("limit")), flag("newest", options.get("newest"))
    jobs = context.lifecycle.jobs(request.params["runtimeId"])
    if "after" in options:
        last = context.lifecycle.job_of(request.params["runtimeId"], options["after"])
        jobs = jobs[bisect_right(jobs, last.sequence, key=attrgetter("sequence")) :]
    status = _job_status(options["status"]) if "status" in options else None
    ending = _ending(options["id"]) if "id" in options else ""
    in_order = reversed(jobs) if newest else iter(jobs)
    wanted = (job for job in in_order if status in (None, job.status) and job.job_id.endswith(ending))
    found = list(islice(wanted, limit + 1))
    page = found[:limit][::-1] if newest else found[:limit]
    return listing({"more": len(found) > limit}, "jobs", page, _job)


def _job(job: Job) -> dict[str, Any]:
    return {
        **job.wire(),
        "outcome": job.outcome,
        "queue_time": _milliseconds(job.queue_time()),
        "run_time": _milliseconds(job.run_time()),
    }


def _milliseconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / NS_PER_MS


def submit_direct(context: Context, request: Request) -> Response:
    """Queue a job for the runtime itself, whichever apps are bound to it."""
    fields = Fields(request.body, "Submitting a job")
    query_type = fields.required_text("queryType")
    query = fields.raw("query", b"{}")
    job = context.lifecycle.submit(request.params["runtimeId"], query_type, query, context.tokens.user(request))
    return json_response(200, {"jobId": context.submitted(request, job).job_id})


def add_replica(context: Context, request: Request) -> Response:
    """Add a replica to a runtime and answer with its environment variables, for a program that is started by hand.

    The environment names files with a token and certificates. They are on the emulator's machine. `configuration` has
    keys of a module's configuration, which take precedence over those of the runtime.
    """
    fields = Fields(request.body, "Adding a replica")
    given = fields.values("configuration")
    hide_secrets(given)
    given["max_concurrent_tasks"] = fields.number("maxConcurrentTasks", given.get("max_concurrent_tasks"), MAX_TASKS)
    environment = context.environment(request.params["runtimeId"], given)
    variables = {name: str(value) for name, value in environment.items()}  # the encoder does not take a Token
    return json_response(200, {"environment": variables, "folder": environment.folder})


async def export(context: Context, request: Request) -> Answer:
    """Answer with the whole session as one JSON document, in chunks. `HEAD` answers without exporting anything."""
    if request.method == "HEAD":
        return Response(200)
    taken = session_file.contents(context.lifecycle, request.base_url, time.time_ns(), context.lifecycle.steady())
    return StreamResponse(_in_turns(session_file.pieces(taken)), JSON)


async def _in_turns(pieces: Iterator[bytes]) -> AsyncGenerator[bytes]:
    for piece in pieces:
        yield piece
        # Writing to a client that reads fast never suspends, so give way to other tasks here.
        await asyncio.sleep(0)


def fail_job(context: Context, request: Request) -> Response:
    """Fail a queued or running job by hand. The reason becomes its error message."""
    reason = Fields(request.body, "Failing a job").required_text("reason")
    context.lifecycle.check_label("reason", reason)
    job = context.lifecycle.job_of(request.params["runtimeId"], request.params["jobId"])
    context.lifecycle.fail(job.job_id, reason)
    return Response(204)


def cancel_jobs(context: Context, request: Request) -> Response:
    """Cancel queued and running jobs: one job by its id, the jobs of a function by its name, or `all`.

    They fail with the error message "cancelled: " and the reason. Functions in a notebook's cells are interrupted where
    Python can do that. Finished jobs are not changed.
    """
    fields = Fields(request.body, "Cancelling jobs")
    reason = fields.text("reason") or "by a request"
    context.lifecycle.check_label("reason", reason)
    jobs = find_unfinished(context.lifecycle, fields.required_text("jobs"), time.time_ns())
    return json_response(200, {"cancelled": context.lifecycle.cancel(jobs, reason)})


def diagnose(context: Context, request: Request) -> Response:
    """Answer why a job has no result yet and what to do, in one sentence for people and as a `kind` for programs.

    There is also an answer for a finished job, and for a job that a reset of its session cleared. For a finished job
    without a value, the `explanation` says why, if the emulator knows more than the result says.
    """
    job_id = request.params["jobId"]
    why = context.diagnose(job_id)
    explanation = why.explanation or None
    answer = {"job_id": job_id, "kind": why.kind, "sentence": why.sentence, "explanation": explanation}
    return json_response(200, answer)


def delete_schema(context: Context, request: Request) -> Response:
    """Delete the schema of one function. The jobs of the function stay."""
    context.lifecycle.delete_schema(request.params["runtimeId"], request.params["functionName"])
    return Response(204)


def delete_runtime(context: Context, request: Request) -> Response:
    """End a runtime's session and delete the runtime with its jobs, schemas and bindings."""
    context.lifecycle.delete_session(request.params["runtimeId"])
    return Response(204)


def reset_all(context: Context, _: Request) -> Response:
    """Delete all runtimes with their jobs, schemas and bindings."""
    context.lifecycle.reset()
    return Response(204)


def health(context: Context, _: Request) -> Response:
    """Answer that the emulator is running, and with the id of this start."""
    return json_response(200, {"status": "ok", "id": context.identity})


def known_options(request: Request, names: set[str]) -> dict[str, str]:
    """Return the query options of a request. Raises `InvalidRequest` for one that is not among the names."""
    options = query_options(request)
    unknown = sorted(set(options) - names)
    if unknown:
        raise InvalidRequest(f"Unknown query option {quoted(unknown[0])}. Known options: {', '.join(sorted(names))}.")
    return options


def page_size(text: str | None) -> int:
    """Return the number of records that a page of a list may have."""
    if text is None:
        return PAGE
    digits = text.lstrip("0")
    in_range = digits.isascii() and digits.isdecimal() and len(digits) <= len(str(MAX_PAGE))
    if not (in_range and int(digits) <= MAX_PAGE):
        raise InvalidRequest(f"'limit' must be a whole number from 1 to {MAX_PAGE}.")
    return int(digits)


def flag(name: str, text: str | None) -> bool:
    """Return whether an option is set to true."""
    if text not in (None, "true", "false"):
        raise InvalidRequest(f"'{name}' must be true or false.")
    return text == "true"


def _ending(text: str) -> str:
    if len(text) < MIN_CHARACTERS:
        raise InvalidRequest(f"'id' must be a job's id, or at least the last {MIN_CHARACTERS} characters of one.")
    return text


def _job_status(text: str) -> JobStatus:
    try:
        return JobStatus(text)
    except ValueError:
        raise InvalidRequest(f"Unknown status '{text[:100]}'. Known statuses: {', '.join(JobStatus)}.") from None


_DONE = {204: "Done"}
PAGE_OPTION = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE}
_NAME = {"type": "string", "minLength": 1}
_DIRECT_BODY = with_examples(
    {
        "type": "object",
        "required": ["queryType"],
        "properties": {
            "queryType": described(_NAME, "The function's name"),
            "query": described({}, "The function's input, any JSON value; `{}` if omitted"),
        },
    },
    examples.DIRECT,
)
_REASON_BODY = with_examples(
    {
        "type": "object",
        "required": ["reason"],
        "properties": {"reason": described(_NAME, "Why the job fails; it becomes the error message")},
    },
    examples.REASON,
)
_CANCEL_BODY = with_examples(
    {
        "type": "object",
        "required": ["jobs"],
        "properties": {
            "jobs": described(_NAME, "A job's id or at least the last 4 characters of it, a function's name, or `all`"),
            "reason": described({"type": ["string", "null"]}, "Why the jobs are cancelled; `by a request` if omitted"),
        },
    },
    examples.CANCELLATION,
)
_TASKS = described(
    {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_TASKS},
    "The maximum number of jobs that the replica runs at the same time; 1 if it is configured nowhere",
)
_CONFIGURATION = described({"type": ["object", "null"]}, f"Keys of the module's configuration: {', '.join(KEYS)}")
_REPLICA_BODY = with_examples(
    {"type": "object", "properties": {"maxConcurrentTasks": _TASKS, "configuration": _CONFIGURATION}}, examples.REPLICA
)

routes = (
    Route(
        "GET",
        RUNTIMES,
        list_runtimes,
        Auth.BEARER,
        {
            200: "The runtimes, in the order of their first sessions, and whether there are more",
            404: "The runtime given as `after` does not exist",
        },
        "List the runtimes",
        answer=schemas.RUNTIMES,
        query={
            "limit": {**PAGE_OPTION, "description": "The maximum number of runtimes in the answer"},
            "after": described(schemas.TEXT, "The id of the last runtime of the previous page"),
        },
        errors=(NotFound,),
    ),
    Route("DELETE", RUNTIMES, reset_all, Auth.BEARER, _DONE, "Delete all runtimes, so that the emulator is as new"),
    Route(
        "GET",
        RUNTIME,
        show_runtime,
        Auth.EITHER,
        {200: "The runtime and its schemas"},
        "Show one runtime",
        answer=schemas.ONE_RUNTIME,
    ),
    Route("DELETE", RUNTIME, delete_runtime, Auth.EITHER, _DONE, "Delete a runtime"),
    Route(
        "GET",
        f"{RUNTIME}/jobs",
        list_jobs,
        Auth.EITHER,
        {
            200: "The jobs, oldest first, and whether there are more",
            404: "The runtime, or the job given as `after`, does not exist",
            410: "The job given as `after` was evicted to make room for newer jobs",
        },
        "List a runtime's jobs",
        answer=schemas.JOBS,
        query={
            "status": described(schemas.one_of(JobStatus), "Only jobs of this status"),
            "id": described({"type": "string", "minLength": MIN_CHARACTERS}, "Only jobs whose id is or ends with this"),
            "limit": {**PAGE_OPTION, "description": "The maximum number of jobs in the answer"},
            "after": described(schemas.TEXT, "The id of the last job of the previous page"),
            "newest": described({**schemas.FLAG, "default": False}, "Whether to list the newest jobs"),
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
        answer=schemas.QUEUED_DIRECTLY,
        errors=(QueueFull,),
    ),
    Route(
        "POST",
        f"{RUNTIME}/replicas",
        add_replica,
        Auth.BEARER,
        {200: "The environment variables of the replica, and the folder of its files"},
        "Add a replica for a module that is started by hand",
        body=_REPLICA_BODY,
        answer=schemas.ENVIRONMENT,
        errors=(NotPrivate,),
    ),
    Route(
        "GET",
        EXPORT,
        export,
        Auth.BEARER,
        {200: "The whole session, for `Emulator.from_export()`"},
        "Export the session",
        answer=schemas.EXPORTED,
    ),
    Route(
        "POST",
        f"{RUNTIME}/jobs/{{jobId}}/fail",
        fail_job,
        Auth.EITHER,
        {204: "The job has failed", 409: "The job had already finished"},
        "Fail a job by hand",
        body=_REASON_BODY,
        errors=(JobAlreadyCompleted,),
    ),
    Route(
        "POST",
        f"{JOBS}/cancel",
        cancel_jobs,
        Auth.BEARER,
        {
            200: "The number of cancelled jobs",
            404: "The job or function does not exist",
        },
        "Cancel jobs",
        body=_CANCEL_BODY,
        answer=schemas.CANCELLED,
        errors=(NotFound, JobEvicted),
    ),
    Route(
        "GET",
        f"{JOBS}/{{jobId}}/diagnosis",
        diagnose,
        Auth.BEARER,
        {
            200: "Why the job has no result yet",
            404: "The job does not exist",
        },
        "Explain why a job has no result yet",
        answer=schemas.DIAGNOSIS,
        errors=(NotFound, JobEvicted),
    ),
    Route(
        "DELETE",
        f"{RUNTIME}/schemas/{{functionName}}",
        delete_schema,
        Auth.EITHER,
        _DONE,
        "Delete a function's schema",
    ),
    Route(
        "GET",
        HEALTH,
        health,
        Auth.NONE,
        {200: "The emulator is running"},
        "Check that the emulator is running",
        answer=schemas.HEALTH,
    ),
)
