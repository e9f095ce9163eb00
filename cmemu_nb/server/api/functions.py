"""The functions routes of Foundry's public API, which its official client SDK calls [foundry].

They submit the same kind of jobs as the contour routes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.errors import (
    ApiError,
    ExecutionFailed,
    InvalidRequest,
    JobEvicted,
    JobFailed,
    NotFound,
)
from cmemu_nb.lifecycle.records import JobSource
from cmemu_nb.phrases import quoted
from cmemu_nb.server.api.calls import CANCELED, RESOLUTIONS, api_error, check_version, of_execution, read_call, value_of
from cmemu_nb.server.api.jobs import call, run, submit
from cmemu_nb.server.api.queries import Query, find_by_rids, find_query, not_found, query_of, query_record
from cmemu_nb.server.api.streams import EVENTS, LINES, accepted_format
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import examples, schemas
from cmemu_nb.server.openapi.schemas import described, with_examples
from cmemu_nb.server.response import Response, json_response
from cmemu_nb.server.routes.contour import job_when_done, result_of
from cmemu_nb.server.routing import Route, query_options
from cmemu_nb.wire.json_input import Fields, decode
from cmemu_nb.wire.paths import EXECUTIONS, QUERIES

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.state import State
    from cmemu_nb.server.api.streams import StreamFormat
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.openapi.schemas import Schema
    from cmemu_nb.server.request import Request
    from cmemu_nb.server.response import Answer

MAX_POLL_SECONDS = 280
MAX_BATCH = 100
# The end of the ids of executions in an ontology.
IN_ONTOLOGY = ".ontology"

# Descriptions of functions


def get(context: Context, request: Request) -> Response:
    """Answer with the description of a function: its names, parameters and output type."""
    query = find_described(context.lifecycle, request.params["queryApiName"])
    _check_version_options(query, request)
    return json_response(200, query_record(query))


def find_described(state: State, api_name: str, branch: str | None = None) -> Query:
    """Return the function that an API name means. Raises the error of the API if it is unknown or has no schema."""
    query = find_query(state, api_name, branch)
    if query.schema is None:
        message = f"The runtime of '{query.api_name}' has posted no schemas yet, so the function can't be described."
        raise not_found(message, query.api_name)
    return query


async def get_by_rid(context: Context, request: Request) -> Response:
    """Answer with the description of the function that has a RID."""
    rid = query_options(request).get("rid")
    if rid is None:
        raise InvalidRequest("Getting a query by its RID: the query option 'rid' is missing.")
    query = (await find_by_rids(context.lifecycle, [rid])).get(rid)
    if query is None:
        message = f"No function has the RID {quoted(rid)}. client.functions.Query.get(name).rid is a function's RID."
        raise ApiError(404, "FunctionNotFound", message, functionRid=rid)
    _check_version_options(query, request)
    return json_response(200, query_record(query))


async def get_by_rid_batch(context: Context, request: Request) -> Response:
    """Answer with the descriptions of the requested functions. RIDs that no function has are left out."""
    what = "Getting queries by their RIDs"
    asked = requested(request.body, what)
    queries = await find_by_rids(context.lifecycle, [fields.required_text("rid") for fields in asked])
    found = []
    for fields in asked:
        query = queries.get(fields.required_text("rid"))
        try:
            if query is not None:
                check_version(query, fields.text("version"), None, prerelease=fields.flag("includePrerelease"))
                found.append(query_record(query))
        except ApiError:
            continue
    return json_response(200, {"data": found})


def requested(body: bytes, what: str) -> list[Fields]:
    """Return the elements of a batch, a JSON array. Raises `InvalidRequest` if there are none or too many."""
    wanted = decode(body, list[msgspec.Raw], what)
    if not 0 < len(wanted) <= MAX_BATCH:
        raise InvalidRequest(f"{what}: the request has {len(wanted)} RIDs. Send 1 to {MAX_BATCH}.")
    return [Fields(bytes(element), what) for element in wanted]


def _check_version_options(query: Query, request: Request) -> None:
    options = query_options(request)
    prerelease = options.get("includePrerelease")
    check_version(
        query,
        options.get("version"),
        options.get("latestVersionResolution"),
        prerelease=None if prerelease is None else prerelease == "true",
    )


# Calls of functions


async def execute(context: Context, request: Request) -> Response:
    """Call a function and answer with its value."""
    query, arguments = read_call(context, request)
    return json_response(200, {"value": msgspec.Raw(await call(context, request, query, arguments))})


async def streaming_execute(context: Context, request: Request) -> Answer:
    """Call a function and answer with its value while it arrives, in the format that the request accepts.

    For `Accept: application/octet-stream` each line is a JSON object (NDJSON); otherwise the answer consists of
    Server-Sent Events, whose data are the same objects.
    """
    return await _stream(context, request, accepted_format(request))


async def streaming_execute_events(context: Context, request: Request) -> Answer:
    """Do the same as `streamingExecute`, always as events. The SDK's `streaming_execute_events` calls this path."""
    return await _stream(context, request, EVENTS)


async def _stream(context: Context, request: Request, form: StreamFormat) -> Answer:
    query, arguments = read_call(context, request)
    answer = await run(context, request, query, arguments)
    return form.error(query, answer) if isinstance(answer, ExecutionFailed) else await form.answer(query, answer)


def execute_async(context: Context, request: Request) -> Response:
    """Call a function and answer at once with the id of the execution, for fetching its value."""
    query, arguments = read_call(context, request, "Async")
    job = submit(context, request, query, arguments, JobSource.CONTOUR_ASYNC)
    # Only the id can say how the value is encoded: a request for it names no ontology.
    execution_id = f"{job.job_id}{IN_ONTOLOGY}" if query.in_ontology else job.job_id
    return json_response(200, {"type": "submitted", "executionId": execution_id})


# Executions


def get_result(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Answer with the value of an execution, or that it is still running.

    The answer is held for up to `timeout` seconds, at most 280, until the execution has finished.
    """
    fields = Fields(request.body, "Getting a result")
    seconds = min(fields.count("timeout") or 0, MAX_POLL_SECONDS)
    job = _execution(context, request)
    if not (job.finished or seconds):
        return json_response(200, {"type": "running"})
    return _state_when_done(context, request, job, seconds)


async def _state_when_done(context: Context, request: Request, job: Job, seconds: int) -> Response:
    query = _executed(context, request, job)
    try:
        job = await job_when_done(context, job.job_id, seconds)
    except JobFailed as error:
        raise of_execution(api_error(query, error)) from None
    return await _state_of(context, request, job)


async def _state_of(context: Context, request: Request, job: Job) -> Response:
    if not job.finished:
        return json_response(200, {"type": "running"})
    query = _executed(context, request, job)  # its schema may have been posted during the wait
    try:
        value = await value_of(query, result_of(job).body, streamed=job.streamed)
    except (ExecutionFailed, JobFailed) as error:
        raise of_execution(api_error(query, error)) from None
    return json_response(200, {"type": "succeeded", "value": msgspec.Raw(value)})


def _executed(context: Context, request: Request, job: Job) -> Query:
    in_ontology = request.params["executionId"].endswith(IN_ONTOLOGY)
    return replace(query_of(context.lifecycle, job), in_ontology=in_ontology)


def cancel(context: Context, request: Request) -> Response:
    """Cancel an execution: its job fails, unless it has finished."""
    job = _execution(context, request)
    if not job.finished:
        context.lifecycle.fail(job.job_id, CANCELED)
    return json_response(200, {"id": job.job_id})


def _execution(context: Context, request: Request) -> Job:
    execution_id = request.params["executionId"]
    try:
        return context.lifecycle.job(execution_id.removesuffix(IN_ONTOLOGY))
    except (NotFound, JobEvicted) as error:
        raise ApiError(404, "ExecutionNotFound", str(error), executionId=execution_id) from None


# Routes

_PRERELEASE = "Refused together with `version`; otherwise it has no effect, because every function has one version"
_RESOLUTION = "How the latest version is chosen; refused together with `version`"
VERSION_OR_RANGE = "`0.0.0`, a range that includes it such as `^0.0.0`, or omitted"
_VERSION: Schema = {
    "version": {"type": ["string", "null"], "description": VERSION_OR_RANGE},
    "includePrerelease": {"type": ["boolean", "null"], "description": _PRERELEASE},
    "latestVersionResolution": {"enum": [*RESOLUTIONS, None], "description": _RESOLUTION},
}
_BODY: Schema = with_examples(
    {
        "type": "object",
        "required": ["parameters"],
        "properties": {
            "parameters": {"type": "object", "description": "The values of the function's inputs, by name"},
            "branch": schemas.BRANCH_OF_A_CALL,
            **_VERSION,
        },
    },
    examples.PARAMETERS,
)
_ONTOLOGY = described(
    schemas.MAYBE_TEXT, "The RID or name of an ontology; any is accepted, and with one, maps are entry sets"
)
_SCOPED_BODY = {**_BODY, "properties": {**_BODY["properties"], "ontology": _ONTOLOGY}}
_BATCH_BODY = with_examples(
    {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_BATCH,
        "items": {
            "type": "object",
            "required": ["rid"],
            "properties": {
                "rid": {"type": "string", "minLength": 1, "description": "The function's RID"},
                "version": _VERSION["version"],
                "includePrerelease": _VERSION["includePrerelease"],
            },
        },
    },
    examples.QUERY_RIDS,
)
_SECONDS: Schema = {"type": ["integer", "null"], "minimum": 0, "description": "The longest wait in seconds"}
_POLL_BODY = with_examples({"type": "object", "properties": {"timeout": _SECONDS}}, examples.POLL)
_RID = with_examples(described(schemas.TEXT, "The function's RID"), examples.QUERY_RID)
PREVIEW: Schema = {"preview": {"type": "boolean", "description": "Accepted, but the emulator does not require it"}}
_NO_TRANSACTION = "Refused: a compute module can't run in a transaction"
TRANSACTION: Schema = {"transactionId": described(schemas.TEXT, _NO_TRANSACTION)}
_RUN_OPTIONS: Schema = {**PREVIEW, **TRANSACTION}
_VERSION_OPTIONS: Schema = {
    **PREVIEW,
    "version": {"type": "string", "description": VERSION_OR_RANGE},
    "includePrerelease": described(schemas.FLAG, _PRERELEASE),
    "latestVersionResolution": described(schemas.one_of(RESOLUTIONS), _RESOLUTION),
}
CALL_ANSWERS = {
    400: "The call is invalid, or the function failed",
    404: "The function does not exist",
    429: "Too many jobs are queued",
    500: "The runtime's session was reset",
}
CALL_ERROR_NAMES = {
    400: "QueryRuntimeError",
    404: "QueryNotFound",
    429: "QueueFull",
    500: "QueryDeploymentNotAvailable",
}
_RESULT_NAMES = {400: "AsyncQueryRuntimeError", 404: "ExecutionNotFound", 500: "AsyncQueryDeploymentNotAvailable"}

routes = (
    Route(
        "GET",
        f"{QUERIES}/getByRid",
        get_by_rid,
        Auth.BEARER,
        {200: "The function", 404: "The function does not exist"},
        "Describe a function by its RID",
        answer=schemas.QUERY,
        error_names={404: "FunctionNotFound"},
        query={"rid": _RID, **_VERSION_OPTIONS},
    ),
    Route(
        "POST",
        f"{QUERIES}/getByRidBatch",
        get_by_rid_batch,
        Auth.BEARER,
        {200: "The requested functions that exist"},
        "Describe functions by their RIDs",
        body=_BATCH_BODY,
        answer=schemas.QUERIES,
        query=PREVIEW,
    ),
    Route(
        "GET",
        f"{QUERIES}/{{queryApiName}}",
        get,
        Auth.BEARER,
        {200: "The function", 404: "The function does not exist"},
        "Describe a function",
        answer=schemas.QUERY,
        error_names={404: CALL_ERROR_NAMES[404]},
        query=_VERSION_OPTIONS,
    ),
    Route(
        "POST",
        f"{QUERIES}/{{queryApiName}}/execute",
        execute,
        Auth.BEARER,
        {200: "The value", **CALL_ANSWERS},
        "Call a function and wait for its value",
        body=_BODY,
        answer=schemas.VALUE,
        error_names=CALL_ERROR_NAMES,
        query=_RUN_OPTIONS,
    ),
    Route(
        "POST",
        f"{QUERIES}/{{queryApiName}}/executeAsync",
        execute_async,
        Auth.BEARER,
        {200: "The id of the execution", **CALL_ANSWERS},
        "Call a function and fetch its value later",
        body=_SCOPED_BODY,
        answer=schemas.EXECUTION,
        error_names=CALL_ERROR_NAMES,
        query=_RUN_OPTIONS,
    ),
    *(
        Route(
            "POST",
            f"{QUERIES}/{{queryApiName}}/{name}",
            handler,
            Auth.BEARER,
            {200: "The value, while it arrives", **CALL_ANSWERS},
            "Call a function and receive its value while it arrives",
            body=_SCOPED_BODY,
            query=_RUN_OPTIONS,
            media=EVENTS.media,
            other_media=other,
            error_names=CALL_ERROR_NAMES,
        )
        for name, handler, other in (
            ("streamingExecute", streaming_execute, (LINES.media,)),
            ("streamingExecuteEvents", streaming_execute_events, ()),
        )
    ),
    Route(
        "POST",
        f"{EXECUTIONS}/{{executionId}}/getResult",
        get_result,
        Auth.BEARER,
        {
            200: "The value, or that the execution is still running",
            400: "The function failed",
            404: "The execution does not exist",
            500: CALL_ANSWERS[500],
        },
        "Fetch the value of an execution",
        body=_POLL_BODY,
        answer=schemas.EXECUTION_STATE,
        error_names=_RESULT_NAMES,
        query=PREVIEW,
    ),
    Route(
        "POST",
        f"{EXECUTIONS}/{{executionId}}/cancel",
        cancel,
        Auth.BEARER,
        {200: "The execution is canceled, or had already finished", 404: "The execution does not exist"},
        "Cancel an execution",
        answer=schemas.CANCELED,
        error_names={404: _RESULT_NAMES[404]},
        query=PREVIEW,
    ),
)
