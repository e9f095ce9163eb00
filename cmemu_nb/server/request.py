"""One HTTP request as handlers see it, and how long its `Prefer: wait=N` header (RFC 7240) lets the answer be held."""

from __future__ import annotations

import re
import socket
import ssl
from typing import TYPE_CHECKING

from cmemu_nb.wire.paths import MAX_WAIT_SECONDS

if TYPE_CHECKING:
    from tornado.http1connection import HTTP1Connection
    from tornado.httputil import HTTPHeaders, RequestStartLine

    from cmemu_nb.lifecycle.session import Replica
    from cmemu_nb.server.auth import Caller


UNLIMITED = 10**1000
MAX_DIGITS = 18


class Request:
    """One HTTP request. `path` is the path as it was sent, and `params` are its decoded parameters, by name.

    `prefix` is the path prefix that a hub's proxy removed, such as `/user/jo/proxy/4000`; empty without a proxy.
    `answer_headers` are added to the answer, whatever it is. `caller` sent it, if the limits of callers apply to it.
    """

    __slots__ = (
        *("answer_headers", "body", "caller", "connection", "headers", "method", "params", "path", "prefix", "query"),
        *("replica", "scheme", "version"),
    )

    def __init__(self, start_line: RequestStartLine, headers: HTTPHeaders, connection: HTTP1Connection) -> None:
        self.method = start_line.method
        self.version = start_line.version
        self.path, _, self.query = start_line.path.partition("?")
        self.headers = headers
        self.connection = connection
        self.scheme: str = getattr(connection.context, "protocol", "http")
        self.params: dict[str, str] = {}
        self.replica: Replica | None = None
        self.caller: Caller | None = None
        self.body = b""
        self.prefix = ""
        self.answer_headers: dict[str, str] = {}

    @property
    def base_url(self) -> str:
        """The emulator's URL as the caller used it, so that a caller in a container or behind a hub can reach it."""
        scheme = self.scheme
        if self.prefix:
            # Each proxy on the way appends the scheme by which it was reached: the first one is the caller's.
            forwarded = self.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip()
            scheme = forwarded if forwarded in ("http", "https") else scheme
        return f"{scheme}://{self.headers.get('Host', '127.0.0.1')}{self.prefix}"

    @property
    def chunked(self) -> bool:
        """Whether the body is sent in chunks, so that its length is unknown."""
        return "Transfer-Encoding" in self.headers

    @property
    def declared_length(self) -> int:
        """The body's length in bytes as the client declared it; 0 if it did not."""
        length: str = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdecimal()):
            return 0
        return int(length) if len(length) <= MAX_DIGITS else UNLIMITED

    def content_type(self) -> str | None:
        """Return the body's content type without its parameters."""
        value: str | None = self.headers.get("Content-Type")
        return value.partition(";")[0].strip() or None if value else None

    def client_disconnected(self) -> bool:
        """Return whether the client has disconnected, even if the event loop has not noticed it yet.

        For a disconnected client no job should be submitted, and no job should be handed out to it.
        """
        if self.connection.stream.closed():
            return True
        sock = self.connection.stream.socket
        if isinstance(sock, ssl.SSLSocket):
            return False
        try:
            return sock.recv(1, socket.MSG_PEEK) == b""
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True


_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=[,;]|$)', re.IGNORECASE)


def preferred_wait(request: Request) -> int:
    """Return the seconds of the request's `Prefer: wait=N`, at most 60; 0 if there is none."""
    for value in request.headers.get_list("Prefer"):
        match = _WAIT.search(value)
        if match:
            return min(int(match[1]), MAX_WAIT_SECONDS)
    return 0


def applied(seconds: int) -> dict[str, str]:
    """Return the response header that confirms the wait."""
    return {"Preference-Applied": f"wait={seconds}"} if seconds else {}
