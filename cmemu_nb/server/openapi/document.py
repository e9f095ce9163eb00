"""The OpenAPI document, generated from the same route tables that the server uses."""

from __future__ import annotations

import http
import inspect
import re
from typing import TYPE_CHECKING, Any

from cmemu_nb.errors import (
    ForbiddenHost,
    ForbiddenOrigin,
    InvalidBearerToken,
    InvalidClient,
    InvalidModuleAuthToken,
    InvalidRequest,
    InvalidScratchToken,
    JobEvicted,
    JournalBehind,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    TooBusy,
    TooManyRequests,
)
from cmemu_nb.server.api.errors import error_example
from cmemu_nb.server.api.streams import EVENTS
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.call_limits import is_limited
from cmemu_nb.server.openapi import examples
from cmemu_nb.server.openapi.schemas import ANYTHING, RECORDS, TEXT, record
from cmemu_nb.server.response import BYTES, JSON
from cmemu_nb.wire.paths import MAX_WAIT_SECONDS, MODULE_HEADER, PUBLIC_API

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.errors import WireError
    from cmemu_nb.server.routing import Route, Surface

ABOUT = """\
An emulator of the runtime lifecycle of Foundry's compute modules. A runtime opens a session, posts the schemas of its
functions, polls for jobs and posts their results; an application submits jobs and gets the results.

The body of every error is `{"error": "<code>", "error_description": "<message>"}`, and the message says what to do
next. A path that is not listed here is answered with 404 `not_found`, a method that a path does not have with 405
`method_not_allowed`, and a failure of the emulator itself with 500 `internal_error`. Routes under `/api/` and
`/stream-proxy/api/` answer with the errors of Foundry's public API instead: `errorName` is the code, and
`errorDescription` is the message. So do the contour and deployed-app routes with the setting `contour="foundry"`; the
code is `Contour:` and the error's name then.
`HEAD` works wherever `GET` does, and its answer has no body.

A mark names the source of a behaviour: [page] is Palantir's documentation, [foundry] is what the official SDKs do and
expect, and [ours] is a decision of this emulator."""
PATH_PARAMETERS = {
    "runtimeId": ("The id with which the runtime's session was opened", examples.RUNTIME_ID),
    "jobId": ("The job's id, from the answer to its submission or to a poll", examples.JOB_ID),
    "deployedAppRid": ("The RID of a deployed app that is bound to a runtime", examples.RID),
    "branch": ("The branch of the deployed app", "master"),
    "functionName": ("The function's name in its schema", examples.FUNCTION),
    "queryApiName": (
        "`com.<namespace>.computemodules.<Name>`, or the name alone if only one app has it",
        examples.API_NAME,
    ),
    "userId": ("The user's id, or their login", examples.USER["username"]),
    "ontology": ("The RID or the API name of the ontology; any is accepted", examples.ONTOLOGY_RID),
    "ontologyRid": ("The RID of the ontology; any is accepted", examples.ONTOLOGY_RID),
    "streamBranchName": ("The branch of the data stream", "master"),
    "subscriberSubscriberId": ("The id of a subscriber of the stream", examples.SUBSCRIBER["subscriberId"]),
    "viewRid": ("The RID of the current view of the stream", examples.VIEW_RID),
    "datasetRid": ("The RID of the dataset; a data stream is a dataset of the type stream", examples.DATASET_RID),
    "branchName": ("The name of the dataset's branch", "master"),
    "transactionRid": ("The RID of the transaction", examples.TRANSACTION_RID),
    "filePath": ("The path of the file in the dataset, percent-encoded with its slashes", "orders.csv"),
    "executionId": ("The execution's id, from the answer of `executeAsync`", examples.JOB_ID),
}
_TOKEN_ERRORS: dict[Auth, tuple[type[WireError], ...]] = {
    Auth.NONE: (),
    Auth.MODULE: (InvalidModuleAuthToken,),
    Auth.REPLICA: (InvalidModuleAuthToken,),
    Auth.BEARER: (InvalidBearerToken,),
    Auth.DATA: (InvalidBearerToken,),
    Auth.CLIENT: (InvalidClient,),
    Auth.SCRATCH: (InvalidScratchToken,),
    Auth.EITHER: (InvalidModuleAuthToken, InvalidBearerToken),
}
_SECURITY: dict[Auth, list[dict[str, list[str]]]] = {
    Auth.NONE: [],
    Auth.MODULE: [{"moduleAuthToken": []}],
    Auth.REPLICA: [{"moduleAuthToken": []}],
    Auth.BEARER: [{"bearer": []}],
    Auth.DATA: [{"bearer": []}],
    Auth.CLIENT: [{"basic": []}, {}],
    Auth.SCRATCH: [{"scratchToken": []}],
    Auth.EITHER: [{"moduleAuthToken": []}, {"bearer": []}],
}
_HEADERS = {
    "Allow": ("The methods that the path has", "GET, HEAD"),
    "Preference-Applied": ("The longest time for which the answer was held; absent without a wait", "wait=10"),
    "Retry-After": ("After how many seconds the client should try again", "1"),
    "WWW-Authenticate": ("That the route requires a bearer token", "Bearer"),
}
_FIRST_ERROR = 400


def document(surfaces: Iterable[Surface], version: str) -> dict[str, Any]:
    """Describe the routes of surfaces as an OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for surface in surfaces:
        for route in surface.routes:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(surface.name, route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cmemu_nb: an emulator of the compute-module runtime lifecycle",
            "summary": "The routes of this emulator",
            "description": ABOUT,
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": surface.name, "description": surface.description} for surface in surfaces],
        "paths": paths,
        "components": _components(),
    }


def _components() -> dict[str, Any]:
    module_token = "`moduleAuthToken` in the answer that opened the runtime's session"  # noqa: S105 - a description
    bearer = "The emulator's bearer token: its `.token` in the notebook; `cmemu serve --print-token` prints it"
    return {
        "securitySchemes": {
            "moduleAuthToken": {
                "type": "apiKey",
                "in": "header",
                "name": MODULE_HEADER,
                "description": module_token,
            },
            "scratchToken": {
                "type": "apiKey",
                "in": "header",
                "name": "Authorization",
                "description": "`SCRATCH_TOKEN` of a replica's environment, without `Bearer`",
            },
            "bearer": {"type": "http", "scheme": "bearer", "description": bearer},
            "basic": {
                "type": "http",
                "scheme": "basic",
                "description": "The id and secret of an OAuth client, instead of the fields of the form",
            },
        },
        "headers": {
            name: {"description": description, "schema": TEXT, "example": example}
            for name, (description, example) in _HEADERS.items()
        },
        "responses": {
            "MethodNotAllowed": {
                "description": "The path has other methods",
                "headers": {"Allow": _header("Allow")},
                "content": _error_content([MethodNotAllowed]),
            }
        },
        "schemas": RECORDS,
    }


def _operation(surface: str, route: Route) -> dict[str, Any]:
    work = route.handler or route.receiver
    operation: dict[str, Any] = {
        "tags": [surface],
        "operationId": f"{surface}_{getattr(work, '__name__', '')}",
        "summary": route.summary,
        "description": inspect.getdoc(work) or "",
        "parameters": _parameters(route),
        "responses": _responses(route),
        "security": _SECURITY[route.auth],
    }
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {route.body_media: _body(route.body)}}
    elif route.receiver is not None:
        operation["requestBody"] = {"required": True, "content": {BYTES: _unparsed(BYTES)}}
    return operation


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    """Describe a JSON body with its schema and its examples, which stand beside the schema."""
    given = schema.get("examples", [])
    media: dict[str, Any] = {"schema": _without_examples(schema)}
    if given:
        media["examples"] = {f"example-{number}": {"value": value} for number, value in enumerate(given, 1)}
    return media


def _without_examples(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "examples"}


def _first_example(schema: dict[str, Any]) -> dict[str, Any]:
    return {"example": schema["examples"][0]} if "examples" in schema else {}


def _unparsed(kind: str) -> dict[str, Any]:
    """Describe a body that has no schema: a result, Server-Sent Events, or text."""
    shown = {BYTES: examples.RESULT, EVENTS.media: examples.EVENTS}
    if kind not in shown:
        return {"schema": TEXT}
    return {"schema": ANYTHING, "examples": {"example-1": {"value": shown[kind]}}}


def _parameters(route: Route) -> list[dict[str, Any]]:
    parameters = [_path_parameter(name) for name in re.findall(r"{(\w+)}", route.path)]
    for name, schema in route.query.items():
        described = {"name": name, "in": "query", "description": schema.get("description", "")}
        parameters.append(described | {"schema": _without_examples(schema)} | _first_example(schema))
    if route.waits:
        waits = f"`wait=N` holds the answer for at most N seconds (RFC 7240); N is at most {MAX_WAIT_SECONDS}"
        parameters.append(
            {"name": "Prefer", "in": "header", "description": waits, "schema": TEXT, "example": "wait=10"}
        )
    return parameters


def _path_parameter(name: str) -> dict[str, Any]:
    described = {"name": name, "in": "path", "required": True, "schema": {**TEXT, "minLength": 1}}
    if name in PATH_PARAMETERS:
        described["description"], described["example"] = PATH_PARAMETERS[name]
    return described


def _errors(route: Route) -> dict[int, list[type[WireError]]]:
    """Return every error with which a route may answer, by status."""
    kinds: list[type[WireError]] = [InvalidRequest, ForbiddenHost, ForbiddenOrigin, JournalBehind, TooBusy]
    kinds += _TOKEN_ERRORS[route.auth]
    if "{" in route.path and not route.path.startswith(PUBLIC_API):
        kinds.append(NotFound)
    if is_limited(route):
        kinds.append(TooManyRequests)
    if "{jobId}" in route.path:
        kinds.append(JobEvicted)
    if route.body is not None or route.receiver is not None:
        kinds.append(PayloadTooLarge)
    found: dict[int, list[type[WireError]]] = {}
    for kind in dict.fromkeys([*route.errors, *kinds]):
        found.setdefault(kind.status, []).append(kind)
    return found


def _responses(route: Route) -> dict[str, Any]:
    errors = _errors(route)
    described = {}
    for status in sorted({*errors, *route.answers}):
        kinds = errors.get(status, [])
        description = route.answers.get(status) or " Or: ".join(dict.fromkeys(map(_sentence, kinds)))
        headers = {name: _header(name) for name in _header_names(route, status, kinds)}
        answer = {"description": description, **({"headers": headers} if headers else {})}
        described[str(status)] = answer | _content(route, status, kinds)
    return described


def _header_names(route: Route, status: int, kinds: list[type[WireError]]) -> list[str]:
    names = []
    if route.waits and status < _FIRST_ERROR:
        names.append("Preference-Applied")
    if any(kind.retry_after is not None for kind in kinds):
        names.append("Retry-After")
    if InvalidBearerToken in kinds:
        names.append("WWW-Authenticate")
    return names


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}


def _content(route: Route, status: int, kinds: list[type[WireError]]) -> dict[str, Any]:
    if status == http.HTTPStatus.NO_CONTENT:
        return {}
    if status >= _FIRST_ERROR:
        return {
            "content": _api_error_content(route, status) if route.path.startswith(PUBLIC_API) else _error_content(kinds)
        }
    if route.answer is not None:
        return {"content": {JSON: _body(route.answer)}}
    return {"content": {media: _unparsed(media) for media in (route.media, *route.other_media)}}


def _error_content(kinds: list[type[WireError]]) -> dict[str, Any]:
    codes = {kind.code: {"summary": _sentence(kind), "value": _error_example(kind)} for kind in kinds}
    schema = record("Error") | {"properties": {"error": {"enum": list(codes)}}}
    return {JSON: {"schema": schema, "examples": codes}}


def _api_error_content(route: Route, status: int) -> dict[str, Any]:
    own = [(route.error_names[status], route.answers[status])] if status in route.error_names else []
    if status == http.HTTPStatus.FORBIDDEN and route.denied:
        own.append((route.denied, "The token belongs to a module whose aliases do not name the resource"))
    named = [*own, *((kind.__name__, _sentence(kind)) for kind in _errors(route).get(status, []))]
    examples = {name: {"summary": text, "value": error_example(status, name, text)} for name, text in named}
    return {JSON: {"schema": record("ApiError"), "examples": examples}}


def _error_example(kind: type[WireError]) -> dict[str, str]:
    has_message = kind in (InvalidBearerToken, InvalidClient, InvalidModuleAuthToken, InvalidScratchToken)
    return {"error": kind.code, "error_description": str(kind()) if has_message else _sentence(kind)}


def _sentence(kind: type[WireError]) -> str:
    return (inspect.getdoc(kind) or "").partition("\n\n")[0]
