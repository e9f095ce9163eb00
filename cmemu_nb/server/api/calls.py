"""Calls of functions through the public API: reading the request, and making the answer or the error [foundry]."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cmemu_nb.errors import MAX_NAMES, ApiError, ExecutionFailed, JobTimeout, ResultError, quoted_names
from cmemu_nb.phrases import quoted
from cmemu_nb.server.api.data_types import data_type
from cmemu_nb.server.api.queries import Query, find_query
from cmemu_nb.server.api.values import from_module, to_module
from cmemu_nb.server.api.versions import VERSION, includes_version
from cmemu_nb.server.call_limits import TIME_LIMIT
from cmemu_nb.server.own_thread import in_own_thread
from cmemu_nb.server.routes.contour import RESET
from cmemu_nb.server.routing import query_options
from cmemu_nb.wire.function_schemas import get_in, type_name
from cmemu_nb.wire.item_reader import NUMBERS, split_items
from cmemu_nb.wire.json_input import Fields
from cmemu_nb.wire.json_values import read_json
from cmemu_nb.wire.query_check import problem_of_input
from cmemu_nb.wire.results import BARE_NUMBERS, constant_in, error_text, function_error, item_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cmemu_nb.errors import WireError
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request

MAX_REPEATED_BYTES = 10_000
MAX_BYTES_ON_THE_LOOP = 65_536
T = TypeVar("T")
RESOLUTIONS = ("PUBLISH_TIME", "SEMANTIC_VERSION")
CANCELED = "the client canceled the execution"
NO_CONSTANTS = (
    "The result contains {}, which JSON has no value for, so most clients can't read it. Return None or text instead; "
    "a call from the notebook gives the value."
)
# Where the traceback begins in the text of an error, in Python and in Java.
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):|^\tat ", re.MULTILINE)


def read_call(context: Context, request: Request, kind: str = "") -> tuple[Query, bytes]:
    """Return the function that a request of the functions routes calls, and the query for its module.

    With an `ontology` in the request the function is a query of that ontology. Raises the errors of the API for an
    invalid request; the names of some of them begin with `kind`.
    """
    fields = Fields(request.body, "Executing a query")
    for name in ("branch", "version", "ontology"):
        context.lifecycle.check_label(name, fields.text(name))
    given = fields.required_object("parameters")
    query = find_query(context.lifecycle, request.params["queryApiName"], fields.text("branch"))
    query = replace(query, in_ontology=fields.text("ontology") is not None)
    prerelease = fields.flag("includePrerelease")
    check_version(query, fields.text("version"), fields.text("latestVersionResolution"), prerelease=prerelease)
    refuse_transaction(query, query_options(request), kind)
    return query, arguments_of(query, given)


def check_version(query: Query, version: str | None, resolution: str | None, *, prerelease: bool | None) -> None:
    """Refuse a version or a range that no function has, and one together with options that choose a version."""
    if resolution not in (None, *RESOLUTIONS):
        raise _bad_resolution(
            f"latestVersionResolution is {quoted(str(resolution))}. It must be {' or '.join(RESOLUTIONS)}."
        )
    if version is not None and (resolution is not None or prerelease is not None):
        raise _bad_resolution("The request has a version and also an option to choose one. Leave one of them out.")
    if version is not None and not includes_version(version):
        message = (
            f"{query.api_name} has no version {quoted(version)}. Compute modules register every function as version "
            f"{VERSION}. Leave the version out, or give a range that includes it, such as '^{VERSION}'."
        )
        raise ApiError(404, "QueryVersionNotFound", message, apiName=query.api_name, version=version)


def _bad_resolution(message: str) -> ApiError:
    return ApiError(400, "InvalidVersionResolutionParameters", message, message=message)


def refuse_transaction(query: Query, options: Mapping[str, str], kind: str = "") -> None:
    """Refuse a call in a transaction."""
    if "transactionId" in options:
        message = "A compute module can't run in a transaction. Leave the transaction id out."
        raise ApiError(400, f"{kind}FunctionNotSupportedWithTransaction", message, **query.ids, message=message)


def arguments_of(query: Query, given: dict[str, msgspec.Raw]) -> bytes:
    """Return the parameters as the module takes them; they stay unchanged if the function's inputs are not known."""
    inputs = query.inputs
    if inputs:
        _check_names(query, given)
        given = {name: msgspec.Raw(_argument(query, name, bytes(text))) for name, text in given.items()}
        # A null for a parameter that may not be null counts as omitted.
        given = {name: text for name, text in given.items() if bytes(text) != b"null" or _nullable(inputs[name][0])}
    return msgspec.json.encode(given)


def _nullable(kind: Any) -> bool:
    return type_name(kind) == "optionalType"


def _check_names(query: Query, given: dict[str, msgspec.Raw]) -> None:
    inputs = query.inputs
    unknown = [name for name in given if name not in inputs]
    if unknown:
        message = f"{query.api_name} has no parameter {quoted_names(unknown)}. It has {quoted_names(inputs)}."
        raise ApiError(
            400, "UnknownParameter", message, unknownParameters=unknown[:MAX_NAMES], expectedParameters=list(inputs)
        )
    there = {name for name, text in given.items() if bytes(text).strip() != b"null"}
    needed = [name for name, (kind, required) in inputs.items() if required and not _nullable(kind)]
    missing = [name for name in needed if name not in there]
    if missing:
        message = f"{query.api_name} was called without {quoted_names(missing)}. Give a value for each."
        raise ApiError(400, "MissingParameter", message, parameters=missing)


def _argument(query: Query, name: str, given: bytes) -> bytes:
    kind = query.inputs[name][0]
    text = to_module(kind, given, in_ontology=query.in_ontology).strip()
    if text == b"null":
        return text
    try:
        problem = problem_of_input(query.schema, name, kind, read_json(text))
    except (ValueError, RecursionError):
        return text
    if problem is None:
        return text
    value = {"parameterValue": msgspec.Raw(given)} if len(given) <= MAX_REPEATED_BYTES else {}
    message = f"{query.api_name} can't take this: {problem}."
    described = data_type(kind, in_ontology=query.in_ontology)
    raise ApiError(400, "InvalidQueryParameterValue", message, parameterDataType=described, parameterId=name, **value)


# Values and errors


async def value_of(query: Query, result: bytes, *, streamed: bool = False) -> bytes:
    """Return a result's value as JSON text; the items of a stream become an array.

    A large result is read in a thread, so that the event loop serves other requests meanwhile. Raises the error that
    the SDK should raise for a function that raised an exception, or whose result is not JSON.
    """
    return await _off_the_loop(len(result), partial(_value_of, streamed=streamed), query, result)


async def _off_the_loop(size: int, read: Callable[[Query, T], bytes], query: Query, given: T) -> bytes:
    if size <= MAX_BYTES_ON_THE_LOOP:
        return read(query, given)
    return await in_own_thread("cmemu-large-value", partial(read, query, given))


def _value_of(query: Query, result: bytes, *, streamed: bool) -> bytes:
    posted = function_error(result)
    if posted is not None:
        raise raised(query, error_text(posted))
    listed = type_name(query.output) in ("list", "set")
    try:
        items = split_items(result)
        if not streamed and len(items) == 1 and not (listed and items[0][:1] != b"["):
            return from_module(query.output, _checked(items[0]), in_ontology=query.in_ontology)
        if not (streamed or items or listed):
            return b"null"
        _refuse_bare_numbers(items)
        return _batch_of(query, items)
    except ResultError as error:
        raise no_value(query, error) from None


def _refuse_bare_numbers(items: list[bytes]) -> None:
    # A bare number after another item was already refused when the result was split.
    if items and items[0][:1] in NUMBERS:
        raise ResultError(BARE_NUMBERS)


async def batch_of(query: Query, items: list[bytes]) -> bytes:
    """Return the items of a stream, each a JSON text, as one JSON array. Raises `ResultError` if one is not JSON."""
    return await _off_the_loop(sum(map(len, items)), _batch_of, query, items)


def _batch_of(query: Query, items: list[bytes]) -> bytes:
    kind = get_in(query.output, type_name(query.output), "elementsType")
    values = (from_module(kind, _checked(text), in_ontology=query.in_ontology) for text in items)
    return b"[" + b",".join(values) + b"]"


def _checked(text: bytes) -> bytes:
    """Return a text after checking that it is JSON, if possible without building its value; `ResultError` if not."""
    try:
        text.decode()
        msgspec.json.decode(text, type=msgspec.Raw)
    except (ValueError, RecursionError):  # msgspec refuses more than JSON does, Python less
        item_value(text)
        if constant := constant_in(text):
            raise ResultError(NO_CONSTANTS.format(constant)) from None
    return text


def no_value(query: Query, error: ResultError) -> ExecutionFailed:
    """Return the API's error for a result that can't be read as a value."""
    described = data_type(query.output, in_ontology=query.in_ontology)
    return ExecutionFailed(400, "InvalidQueryOutputValue", str(error), outputDataType=described, **query.ids)


def raised(query: Query, text: str) -> ExecutionFailed:
    """Return the API's error for a function that raised an exception, or whose job failed.

    `text` is the error's message, with the traceback if there is one.
    """
    found = _TRACEBACK.search(text)
    stack = {"stacktrace": text[found.start() :]} if found else {}
    message = (text[: found.start()] if found else text).rstrip(": \n") or text
    description = f"{query.api_name} failed: {message}"
    return ExecutionFailed(400, "QueryRuntimeError", description, **query.ids, message=message, **stack, parameters={})


def api_error(query: Query, error: WireError) -> ExecutionFailed:
    """Return the API's error for a job that failed or did not finish in time."""
    message = str(error)
    if isinstance(error, ExecutionFailed):
        return error
    if isinstance(error, JobTimeout):
        description = f"{message} The limit is the setting execute_timeout; Query.execute_async has no such limit."
        return ExecutionFailed(400, "QueryTimeExceededLimit", description, **query.ids)
    if message.startswith(TIME_LIMIT):
        return ExecutionFailed(400, "QueryTimeExceededLimit", f"{query.api_name}: {message}", **query.ids)
    if message == RESET:
        return ExecutionFailed(500, "QueryDeploymentNotAvailable", f"{query.api_name}: {RESET}.", **query.ids)
    if message == CANCELED:
        return ExecutionFailed(400, "QueryCanceled", f"{query.api_name}: {CANCELED}.", **query.ids)
    return raised(query, message)


def of_execution(error: ExecutionFailed) -> ExecutionFailed:
    """Return the error with its name for an asynchronous execution."""
    return ExecutionFailed(error.status, f"Async{error.code}", str(error), **error.parameters)
