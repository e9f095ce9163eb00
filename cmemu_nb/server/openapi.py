"""The OpenAPI document, made from the same route table that serves."""

from __future__ import annotations

import http
import re
from typing import TYPE_CHECKING, Any

from cmemu_nb.server.answer_schemas import ANYTHING, DOCUMENT, RECORDS, TEXT, record
from cmemu_nb.server.api_errors import API
from cmemu_nb.server.http import BYTES, JSON, Response, json_response
from cmemu_nb.server.routing import MODULE_HEADER, Auth, Route

if TYPE_CHECKING:
    from cmemu_nb.server.application import Application
    from cmemu_nb.server.request import Request

_SECURITY: dict[Auth, list[dict[str, list[str]]]] = {
    Auth.NONE: [],
    Auth.MODULE: [{"moduleAuthToken": []}],
    Auth.REPLICA: [{"moduleAuthToken": []}],
    Auth.BEARER: [{"bearer": []}],
    Auth.CLIENT: [],
    Auth.EITHER: [{"moduleAuthToken": []}, {"bearer": []}],
}
_FIRST_ERROR = 400
_COMPONENTS = {
    "securitySchemes": {
        "moduleAuthToken": {"type": "apiKey", "in": "header", "name": MODULE_HEADER},
        "bearer": {"type": "http", "scheme": "bearer"},
    },
    "schemas": RECORDS,
}


def document(routes: tuple[Route, ...], version: str) -> dict[str, Any]:
    """Describe a route table as an OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "cmemu_nb: an emulator of the compute-module runtime lifecycle", "version": version},
        "paths": paths,
        "components": _COMPONENTS,
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route),
        "security": _SECURITY[route.auth],
    }
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {route.body_media: {"schema": route.body}}}
    elif route.receiver is not None:
        operation["requestBody"] = {"required": True, "content": {BYTES: {"schema": {}}}}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {**TEXT, "minLength": 1}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in route.query.items()]
    if route.waits:
        text = "`wait=N` holds the answer for at most N seconds (RFC 7240), N at most 60"
        parameters.append({"name": "Prefer", "in": "header", "schema": TEXT, "description": text})
    return parameters


def _responses(route: Route) -> dict[str, Any]:
    refusals = {
        400: "The request can't be understood",
        403: "A foreign Host or Origin",
        503: "The emulator is too busy, or can't write its journal",
    }
    if route.auth is not Auth.NONE:
        refusals[401] = "The token is missing or wrong"
    if "{" in route.path:
        refusals[404] = "No such runtime, job or function"
    if "{jobId}" in route.path:
        refusals[410] = "The job was let go to make room"
    if route.body is not None or route.receiver is not None:
        refusals[413] = "The body is larger than max_body_bytes"
    described = {**refusals, **route.answers}
    return {str(status): {"description": text, **_content(route, status)} for status, text in sorted(described.items())}


def _content(route: Route, status: int) -> dict[str, Any]:
    if status == http.HTTPStatus.NO_CONTENT:
        return {}
    if status >= _FIRST_ERROR:
        return {"content": {JSON: {"schema": record("ApiError" if route.path.startswith(API) else "Error")}}}
    return {
        "content": {route.answer_media: {"schema": ANYTHING}}
        if route.answer is None
        else {JSON: {"schema": route.answer}}
    }


def show(app: Application, _: Request) -> Response:
    """Answer the document of the routes that are served."""
    return json_response(200, document(app.routes, app.version))


routes = (
    Route(
        "GET",
        "/openapi.json",
        show,
        Auth.NONE,
        {200: "The OpenAPI document"},
        "Describe every route (OpenAPI 3.1)",
        answer=DOCUMENT,
    ),
)
