"""Responses: what a handler returns, and how it is written to the wire."""

from __future__ import annotations

import functools
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.errors import InvalidBearerToken, MethodNotAllowed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from cmemu_nb.errors import WireError

JSON = "application/json"
BYTES = "application/octet-stream"
FIXED_HEADERS = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

NO_HEADERS: Mapping[str, str] = {}

_encoder = msgspec.json.Encoder()


class Response:
    """One complete answer. `undelivered` is called if it can't be written to the client; `delay` is in seconds.

    The names and values of `headers` are sent unescaped, so they must never come from outside.
    """

    __slots__ = ("body", "content_type", "delay", "headers", "status", "undelivered")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: str = JSON,
        headers: dict[str, str] | None = None,
        undelivered: Callable[[], None] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers or {}
        self.undelivered = undelivered
        self.delay = 0.0

    def head(self, connection: str | None = None, more: Mapping[str, str] = NO_HEADERS) -> bytes:
        """Return the bytes before the body: status line, headers (with `Connection` if given) and an empty line."""
        headers = {**self.headers, **more} if more else self.headers
        headers = headers if connection is None else {**headers, "Connection": connection}
        own = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if self.status != HTTPStatus.NO_CONTENT:
            own = f"{own}Content-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n"
        return f"{_status_line(self.status)}{FIXED_HEADERS}{own}\r\n".encode("latin-1")


class StreamResponse:
    """An answer that is sent chunk by chunk. An error of the generator breaks off the connection.

    `length` is how many bytes the chunks have together, if that is known.
    """

    __slots__ = ("chunks", "content_type", "length")

    def __init__(self, chunks: AsyncGenerator[bytes], content_type: str = BYTES, length: int | None = None) -> None:
        self.chunks = chunks
        self.length = length
        self.content_type = content_type


Answer = Response | StreamResponse


@functools.cache
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"


def json_response(status: int, value: Any, **kwargs: Any) -> Response:
    """Answer with JSON. `msgspec.Raw` values inside are sent as the text that they hold."""
    return Response(status, _encoder.encode(value), **kwargs)


def error_response(error: WireError) -> Response:
    """Answer with the documented error body and the headers that belong to the status."""
    headers = {}
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, InvalidBearerToken):
        headers["WWW-Authenticate"] = "Bearer"
    return json_response(error.status, {"error": error.code, "error_description": str(error)}, headers=headers)
