"""The adapter between Tornado's HTTP connections and the routes.

A `WireError` becomes the documented JSON body; any other error becomes `internal_error`, with its traceback in the
event log. When the client disconnects, a handler that is waiting is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from typing import TYPE_CHECKING, Any

from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, HTTPServerConnectionDelegate, ResponseStartLine
from tornado.iostream import StreamClosedError

from cmemu_nb.server.request import UNLIMITED, Request
from cmemu_nb.server.response import STREAM_HEADERS, Answer, Response, StreamResponse

if TYPE_CHECKING:
    from tornado.http1connection import HTTP1Connection
    from tornado.httputil import HTTPConnection
    from tornado.iostream import IOStream

    from cmemu_nb.errors import JournalBehind
    from cmemu_nb.server.application import Application
    from cmemu_nb.server.handlers import Receiver

LINGER_SECONDS = 2.0
# A longer body is written after the head in a second call, so that it need not be copied.
MAX_PIECE_BYTES = 65_536


class Connections(HTTPServerConnectionDelegate):
    """Makes an `exchange` for every request."""

    def __init__(self, application: Application, exchange: type[Exchange] | None = None) -> None:
        self._application = application
        self._exchange = exchange or Exchange

    def start_request(
        self,
        server_conn: object,  # noqa: ARG002 - Tornado's signature
        request_conn: HTTPConnection,
    ) -> HTTPMessageDelegate:
        """Begin the next request of a connection."""
        return self._exchange(self._application, request_conn)  # type: ignore[arg-type]  # Tornado serves HTTP/1 only


class Stage(Enum):
    """The progress of a request."""

    HEAD = "head"
    BODY = "body"
    ANSWER = "answer"


class Exchange(HTTPMessageDelegate):
    """One request and its answer. `received` is the number of bytes of the body that have arrived."""

    def __init__(self, application: Application, connection: HTTP1Connection) -> None:
        self._application = application
        self._context = application.context
        self._connection = connection
        self._receiver: Receiver | None = None
        self._refusal: Response | None = None
        self._answered = False
        self._task: asyncio.Task[None] | None = None
        self._request: Request
        self.stage = Stage.HEAD
        self.received = 0

    @property
    def stream(self) -> IOStream:
        """The connection's stream."""
        return self._connection.stream

    @property
    def patient(self) -> bool:
        """Whether the client may make long pauses while it sends the body."""
        return self._receiver is not None and self._receiver.patient

    @property
    def what(self) -> str:
        """A short description of the request, for events."""
        if self.stage is Stage.HEAD:
            return f"a request from {self._connection.context}"
        return f"{self._request.method} {self._context.shown_path(self._request)}"

    @property
    def last(self) -> bool:
        """Whether the connection closes after this exchange."""
        return self._connection._disconnect_on_finish  # noqa: SLF001 - Tornado has no public name for it

    # Calls of Tornado

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> None:
        """Find the route, and make every check that is possible before the body is read."""
        self.stage = Stage.BODY
        self._connection.set_max_body_size(UNLIMITED)
        self._connection.set_close_callback(self.on_connection_close)
        request = self._request = Request(start_line, headers, self._connection)
        if request.chunked:
            _keep_last_chunks(self._connection.stream)
        try:
            self._receiver = self._application.begin(request)
        except Exception as error:  # noqa: BLE001 - every error becomes an answer
            self._refuse(error)

    def data_received(self, chunk: bytes) -> None:
        """Pass a chunk of the body to the receiver. After a refusal the rest of the body is discarded."""
        self.received += len(chunk)
        if self._refusal is not None or self._receiver is None:
            return
        try:
            self._receiver.receive(chunk)
        except Exception as error:  # noqa: BLE001 - every error becomes an answer
            self._receiver.break_off()
            self._refuse(error)

    def finish(self) -> None:
        """Answer the request, which is complete."""
        self.stage = Stage.ANSWER
        if self._answered:
            self._connection.finish()
        elif self._refusal is not None or self._receiver is None:
            self._send(self._refusal or Response(500))
        else:
            self._answer(self._receiver)

    def on_connection_close(self) -> None:
        """Stop the work for a client that has disconnected."""
        if self._task is not None:
            self._task.cancel()
        elif self._receiver is not None and self._refusal is None and not self._answered:
            self._receiver.break_off()
        self._receiver = None

    # Refusals

    def _refuse(self, error: Exception) -> None:
        self._refusal = self._context.answer_error(error, self._request)
        if self._request.chunked or self._request.declared_length > self._context.max_body_bytes:
            self._answer_early(self._refusal)

    def _answer_early(self, response: Response) -> None:
        """Answer while the body is still arriving, and keep reading for a moment.

        Closing at once would reset the connection, and a client that is still sending would never
        see the answer.
        """
        self._answered = True
        # Without this, Tornado would ask the client (100 Continue) for the body that is refused.
        self._request.headers.pop("Expect", None)
        self._connection._disconnect_on_finish = True  # noqa: SLF001 - else a next request would be served
        self._write(response)
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._hang_up)

    def _hang_up(self) -> None:
        self._connection._disconnect_on_finish = True  # noqa: SLF001
        self._connection.stream.close()

    # Answers

    def _answer(self, receiver: Receiver) -> None:
        caller, limits = self._request.caller, self._context.call_limits
        try:
            limits.check_held(caller)
            answer = receiver.finish()
        except Exception as error:  # noqa: BLE001 - every error becomes an answer
            answer = self._context.answer_error(error, self._request)
        if isinstance(answer, Response):
            self._send(answer)
        elif self._context.waiters < self._context.max_waiting:
            self._context.waiters += 1
            self._task = asyncio.create_task(self._answer_later(answer))
            self._task.add_done_callback(self._context.release_waiter)
            limits.hold(caller, self._task)
        else:
            if isinstance(answer, Coroutine):
                answer.close()  # it has not begun to run, so no job was submitted
            self._send(self._context.answer_error(self._context.too_busy(), self._request))

    async def _answer_later(self, answer: StreamResponse | Awaitable[Answer]) -> None:
        try:
            result = answer if isinstance(answer, StreamResponse) else await answer
        except Exception as error:  # noqa: BLE001 - every error becomes an answer
            result = self._context.answer_error(error, self._request)
        if isinstance(result, Response):
            self._task = None
            self._send(result)
        else:
            await self._stream(result)

    def _send(self, response: Response) -> None:
        if response.delay:
            self._task = asyncio.create_task(self._send_later(response))
            return
        journal = self._context.journal
        if journal is not None and journal.behind:
            journal.when_written(lambda error: self._deliver(response, error))
        else:
            self._deliver(response)

    def _deliver(self, response: Response, unwritten: JournalBehind | None = None) -> None:
        read_only = self._request.method in ("GET", "HEAD") and response.undelivered is None
        if unwritten is not None and not read_only:
            if response.undelivered is not None:
                response.undelivered()
            response = self._context.error_response(unwritten, self._request)
        self._answered = True
        self._write(response)
        if response.undelivered is not None:
            self._watch_delivery(response.undelivered)
        if not self._stream_closed():
            self._connection.finish()

    async def _send_later(self, response: Response) -> None:
        await asyncio.sleep(response.delay)
        response.delay = 0.0
        self._task = None
        self._send(response)

    def _write(self, response: Response) -> None:
        kept = "keep-alive" if self._request.version == "HTTP/1.0" else None
        head = response.head("close" if self.last else kept, self._request.answer_headers)
        body = b"" if self._request.method == "HEAD" else response.body
        if len(body) <= MAX_PIECE_BYTES:
            self._connection.write(head + body)
        else:
            self._connection.write(head)
            self._connection.write(body)

    def _watch_delivery(self, undelivered: Callable[[], None]) -> None:
        # Futures of the connection hide a failed write; the future of the stream's write does not.
        if self._stream_closed():
            undelivered()
            return
        written = self._connection._pending_write  # noqa: SLF001
        if written is not None:
            written.add_done_callback(lambda done: undelivered() if done.exception() else None)

    async def _stream(self, answer: StreamResponse) -> None:
        headers = HTTPHeaders({**STREAM_HEADERS, "Content-Type": answer.content_type})
        headers.update(self._request.answer_headers)
        if answer.length is not None:
            headers["Content-Length"] = str(answer.length)
        self._answered = True
        # Else the first chunk would wait until the client's system acknowledges the head, 40 ms later.
        self._connection.stream.set_nodelay(True)
        try:
            self._connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), headers)
            async with contextlib.aclosing(answer.chunks):
                if self._request.method != "HEAD":
                    async for chunk in answer.chunks:
                        await self._connection.write(chunk)
            if self._context.journal is not None:
                await self._context.journal.written()
        except StreamClosedError:
            return
        except Exception as error:  # noqa: BLE001 - every error ends the answer
            # Part of the result is sent already: only a broken connection shows that the rest will not follow.
            self._context.answer_error(error, self._request)
            self._hang_up()
            return
        if self._request.version == "HTTP/1.0":
            # HTTP/1.0 has no chunks: only the end of the connection marks the end of the body.
            self._hang_up()
        elif not self._stream_closed():
            self._connection.finish()

    def _stream_closed(self) -> bool:
        return self._connection.stream.closed()


def _keep_last_chunks(stream: IOStream) -> None:
    """Make a read of a closed connection fail a moment later, so that Tornado passes on the chunks that it has read.

    It passes on what it has when a read has to wait, but a read that fails at once discards it: the chunks that arrive
    together with the end of the connection.
    """
    for name in ("read_until", "read_bytes"):
        if name not in vars(stream):  # it is the connection's first chunked request
            setattr(stream, name, functools.partial(_fail_later, getattr(stream, name)))


def _fail_later(read: Callable[..., asyncio.Future[bytes]], *arguments: Any, **options: Any) -> asyncio.Future[bytes]:
    try:
        future = read(*arguments, **options)
        error = future.exception() if future.done() else None
    except StreamClosedError as raised:
        error = raised
    return future if error is None else asyncio.create_task(_fail(error))


async def _fail(error: BaseException) -> bytes:
    raise error
