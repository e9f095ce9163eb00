"""A small HTTP client on the emulator's event loop, for calls that may wait for minutes and be cancelled at any moment.

It uses Tornado's own HTTP/1 implementation. It does not use Tornado's `AsyncHTTPClient`, because cancelling a fetch
there does not end the request (https://github.com/tornadoweb/tornado/issues/157).
"""

from __future__ import annotations

import asyncio
import http
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakSet

import msgspec
from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, RequestStartLine
from tornado.iostream import IOStream, StreamClosedError

from cmemu_nb import errors
from cmemu_nb.errors import NotRunning

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable, Mapping

UNLIMITED = 1 << 62
IDLE_SECONDS = 5.0
_BY_CODE: dict[str, type[errors.WireError]] = {
    kind.code: kind
    for kind in (
        *(errors.InvalidRequest, errors.InvalidModuleAuthToken, errors.NotFound, errors.JobNotReady),
        *(errors.JobNotRunning, errors.JobAlreadyCompleted, errors.JobFailed, errors.JobTimeout),
        *(errors.PayloadTooLarge, errors.JobEvicted, errors.QueueFull, errors.InjectedFault),
        *(errors.JournalBehind, errors.TooBusy, errors.NotPrivate, errors.InvalidBearerToken, errors.ForbiddenHost),
        *(errors.TooManyRuntimes, errors.TooManyRequests),
    )
}
_BY_NAME = {f"Contour:{kind.__name__}": kind for kind in _BY_CODE.values()}


class Reply(HTTPMessageDelegate):
    """An answer: its status, headers and body. If `receive` is given, it gets the body of a 200 chunk by chunk."""

    def __init__(self, receive: Callable[[bytes], object] | None = None) -> None:
        self.status = 0
        self.headers = HTTPHeaders()
        self.complete = False
        self._pieces: list[bytes] = []
        self._receive = receive

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self._pieces)

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> None:
        """Take the status and the headers."""
        self.status = start_line.code
        self.headers = headers

    def data_received(self, chunk: bytes) -> None:
        """Take a chunk of the body."""
        if self._receive is not None and self.status == http.HTTPStatus.OK:
            self._receive(chunk)
        else:
            self._pieces.append(chunk)

    def finish(self) -> None:
        """Record that the answer is complete."""
        self.complete = True


def wire_error(reply: Reply) -> errors.CmemuError:
    """Return the exception for an error that the emulator answered with."""
    try:
        body = msgspec.json.decode(reply.body, type=dict[str, Any])
        if "errorName" in body:  # of the contour routes, in the words of Foundry
            return _BY_NAME[body["errorName"]](body["errorDescription"])
        return _BY_CODE[body["error"]](body["error_description"])
    except (msgspec.DecodeError, KeyError):
        return NotRunning(f"The emulator answered {reply.status}: {reply.body[:200]!r}")


class HttpClient:
    """Sends requests to one server, and keeps idle connections for five seconds for further requests.

    `name` is what error messages call the server. A server whose answer has more than `max_body` bytes is disconnected.
    """

    def __init__(self, url: str, name: str = "The emulator", max_body: int = UNLIMITED) -> None:
        split = urlsplit(url)
        self.name = name
        self.max_body = max_body
        self._address = (split.hostname or "", split.port or 80)
        self._host = split.netloc
        self._idle: dict[IOStream, asyncio.TimerHandle] = {}
        self._open: WeakSet[IOStream] = WeakSet()
        self._ended = False

    async def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Reply:
        """Send a request and return its answer. Cancellation closes the connection.

        Raises `NotRunning` if the server can't be reached or closes the connection before its answer is complete.
        """
        exchange = await self.begin(method, path, {"Content-Length": str(len(body)), **headers})
        return await exchange.end(body)

    async def begin(self, method: str, path: str, headers: Mapping[str, str]) -> Exchange:
        """Connect for a request whose body follows. Without a `Content-Length`, the body is sent in chunks."""
        stream = await self._connect()
        sent = HTTPHeaders({"Host": self._host, **headers})
        return Exchange(self, stream, f"{method} {path}", RequestStartLine(method, path, "HTTP/1.1"), sent)

    def close(self) -> None:
        """Close the idle connections."""
        for stream in list(self._idle):
            self._drop(stream)

    def end(self) -> None:
        """Close all connections, including those of requests in progress, and refuse new ones."""
        self._ended = True
        self.close()
        for stream in list(self._open):
            stream.close()

    def keep(self, stream: IOStream) -> None:
        """Keep a connection for the next request, for `IDLE_SECONDS`."""
        if not stream.closed():
            # The stream only notices that the server closes it if it has a callback.
            stream.set_close_callback(lambda: None)
            self._idle[stream] = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._drop, stream)

    def _drop(self, stream: IOStream) -> None:
        self._idle.pop(stream).cancel()
        stream.close()

    async def _connect(self) -> IOStream:
        while self._idle:
            stream, timer = self._idle.popitem()
            timer.cancel()
            if not stream.closed():
                return stream
        if self._ended:
            raise NotRunning(f"{self.name} at {self._host} can't be reached (its client was closed).")
        stream = IOStream(socket.socket(socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET))
        self._open.add(stream)
        try:
            await stream.connect(self._address)
        except BaseException as error:
            stream.close()
            if isinstance(error, OSError):
                reason = getattr(error, "real_error", None) or error
                raise NotRunning(f"{self.name} at {self._host} can't be reached ({reason}).") from None
            raise
        stream.set_nodelay(True)
        return stream


class Exchange:
    """One request that is being sent, and its answer."""

    def __init__(
        self, client: HttpClient, stream: IOStream, what: str, start: RequestStartLine, headers: HTTPHeaders
    ) -> None:
        self._client = client
        self._stream = stream
        self._what = what
        self._host = headers["Host"]
        parameters = HTTP1ConnectionParameters(max_body_size=client.max_body)
        self._connection = HTTP1Connection(stream, is_client=True, params=parameters)
        self._head: tuple[RequestStartLine, HTTPHeaders] | None = (start, headers)

    async def send(self, chunk: bytes) -> None:
        """Send a chunk of the body and wait until the system has taken it. Raises `NotRunning` if the server closed."""
        try:
            await self._write(chunk)
        except StreamClosedError:
            raise self._broken() from None

    async def end(self, body: bytes = b"", receive: Callable[[bytes], object] | None = None) -> Reply:
        """Send the rest of the body and return the answer. Any error closes the connection.

        `receive` is called with each chunk of the answer's body as it arrives.
        """
        reply = Reply(receive)
        try:
            if body or self._head:
                self._write(body)
            self._connection.finish()
            await self._connection.read_response(reply)
        except StreamClosedError:
            raise self._broken() from None
        except BaseException:
            self.break_off()
            raise
        if not reply.complete:
            self.break_off()
            raise self._broken()
        if reply.headers.get("Connection") == "close":
            self.break_off()
        else:
            self._client.keep(self._stream)
        return reply

    def _write(self, chunk: bytes) -> Future[None]:
        if self._head is None:
            return self._connection.write(chunk)
        # The head is sent together with the first chunk, which saves the server a wake-up.
        head, self._head = self._head, None
        return self._connection.write_headers(*head, chunk)

    def break_off(self) -> None:
        """Close the connection in the middle of the request."""
        self._stream.close()

    def _broken(self) -> NotRunning:
        limit = self._client.max_body
        more = f", or began an answer of more than {limit:,} bytes" if limit < UNLIMITED else ""
        return NotRunning(
            f"{self._client.name} at {self._host} closed the connection before it had answered {self._what}{more}."
        )
