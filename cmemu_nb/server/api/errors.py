"""Errors in the format of Foundry's public API, so that its client SDK raises its own exceptions [foundry]."""

from __future__ import annotations

import http
import uuid
from typing import Any

from cmemu_nb.errors import ApiError, JournalBehind, NotFound, WireError
from cmemu_nb.server.response import JSON, Response, error_response, json_response

_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHORIZED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "CONFLICT",
    413: "REQUEST_ENTITY_TOO_LARGE",
    500: "INTERNAL",
}


def api_error_response(error: WireError) -> Response:
    """Return the answer for an error of a route under `/api/`.

    The answer for an unknown route has no body, because the SDK raises `ApiNotFoundError` for that. The SDK retries a
    request that was answered with 503, unless a header forbids it.
    """
    if isinstance(error, NotFound):
        return Response(http.HTTPStatus.NOT_FOUND, b"", JSON)
    headers = error_response(error).headers
    if isinstance(error, JournalBehind):
        headers["QoS-Retry-Hint"] = "do-not-retry"
    return json_response(error.status, error_fields(error), headers=headers)


def error_fields(error: WireError) -> dict[str, Any]:
    """Return the body of an error. The name of an error that the API does not define is the name of its class."""
    if isinstance(error, ApiError):
        return _fields(error.status, error.code, str(error), str(uuid.uuid4())) | {"parameters": error.parameters}
    return _fields(error.status, type(error).__name__, str(error), str(uuid.uuid4()))


def error_example(status: int, name: str, description: str) -> dict[str, Any]:
    """Return an example of the body of an error, for the OpenAPI document."""
    return _fields(status, name, description, "0d5c1b6e-9a7d-42c3-8e1f-0a2b4c6d8e90")


def _fields(status: int, name: str, description: str, instance: str) -> dict[str, Any]:
    return {
        "errorCode": _CODES.get(status, f"CUSTOM_{'SERVER' if status >= 500 else 'CLIENT'}"),  # noqa: PLR2004
        "errorName": name,
        "errorInstanceId": instance,
        "errorDescription": description,
        "parameters": {},
    }
