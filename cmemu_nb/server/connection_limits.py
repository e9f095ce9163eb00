"""The limit of an emulator's connections, and the closing of connections whose clients are too slow.

No request has a timer of its own. Instead, one task inspects all connections every few seconds, as long as there are
any, and finds those without progress since the previous inspections.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPMessageDelegate
from tornado.iostream import SSLIOStream, StreamClosedError, UnsatisfiableReadError

from cmemu_nb.errors import TooBusy
from cmemu_nb.server.http import LINGER_SECONDS, Exchange, Stage
from cmemu_nb.server.response import error_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from tornado.http1connection import HTTP1ServerConnection
    from tornado.iostream import IOStream

    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.settings import Settings

MAX_PAUSE = 5.0
MAX_TURNED_AWAY = 64
SPARE_FILES = 128
INSPECTIONS_OF_A_TURN = 256
READ_BYTES = 65_536

Watched = tuple[str, float, object]
"""What a client fails to do, the seconds it has for it, and a value that changes when it makes progress.

The first is empty for a client that is only idle.
"""


def open_files_allow(wanted: int) -> int:
    """Return the wanted number of connections, or fewer if the process may not open that many files.

    Some files are kept free for the rest of the process.
    """
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return wanted
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if limit == resource.RLIM_INFINITY else min(wanted, max(1, limit - SPARE_FILES))


class Guard:
    """Guards the connections of one emulator's servers. It calls `note(detail)` for each connection that it closes."""

    def __init__(
        self, note: Callable[[str], None], *, max_connections: int, slow_client_seconds: float, idle_seconds: float
    ) -> None:
        self.idle_seconds = idle_seconds
        self._note = note
        self._limit = open_files_allow(max_connections)
        self._slow_seconds = slow_client_seconds
        self._pause = min(MAX_PAUSE, slow_client_seconds / 4, idle_seconds / 4)
        self._exchanges: dict[HTTP1ServerConnection, Exchange] = {}
        self._unmoved: dict[HTTP1ServerConnection, tuple[Watched, float]] = {}
        self._open = 0
        self._now = 0.0
        self._inspection: asyncio.Task[None] | None = None
        self._turned_away: set[asyncio.Task[None]] = set()
        self._count_turned_away = 0

    # Calls of the servers

    def admit(self, stream: IOStream) -> bool:
        """Count a new connection and return True, or turn it away if the limit is reached."""
        if self._open >= self._limit:
            self._turn_away(stream)
            return False
        self._open += 1
        if self._inspection is None:
            self._inspection = asyncio.get_running_loop().create_task(self._inspect_all())
        return True

    def follow(self, connection: HTTP1ServerConnection, exchange: Exchange) -> None:
        """Record that a connection is about to begin a request."""
        self._exchanges[connection] = exchange

    def has_ended(self, connection: HTTP1ServerConnection) -> bool:
        """Return whether the previous request was the last one of a connection."""
        before = self._exchanges.get(connection)
        return before is not None and before.last

    def left(self, connection: HTTP1ServerConnection) -> None:
        """Record that a connection has ended."""
        self._open -= 1
        exchange = self._exchanges.pop(connection, None)
        self._unmoved.pop(connection, None)
        if exchange is not None and isinstance(connection.stream.error, UnsatisfiableReadError):
            self._note(f"{exchange.what}: the connection was closed, because the head is longer than 64 KiB")

    # Too many connections

    def _turn_away(self, stream: IOStream) -> None:
        self._count_turned_away += 1
        if len(self._turned_away) >= MAX_TURNED_AWAY:
            stream.close()
            return
        task = asyncio.get_running_loop().create_task(self._answer_too_busy(stream))
        self._turned_away.add(task)
        task.add_done_callback(self._turned_away.discard)

    async def _answer_too_busy(self, stream: IOStream) -> None:
        """Answer without waiting for a request, and keep reading for a moment: else the client would see a reset."""
        response = error_response(
            TooBusy(
                f"The emulator has {self._limit} connections, as many as max_connections and the limit of open files "
                "allow. Close some, or try again in a second."
            )
        )
        try:
            with contextlib.suppress(StreamClosedError, TimeoutError, OSError):
                async with asyncio.timeout(LINGER_SECONDS):
                    await stream.write(response.head("close") + response.body)
                    if not isinstance(stream, SSLIOStream):
                        stream.socket.shutdown(socket.SHUT_WR)
                    while True:
                        await stream.read_bytes(READ_BYTES, partial=True)
        finally:
            stream.close()

    # Slow clients

    async def _inspect_all(self) -> None:
        """Inspect all connections at regular intervals, as long as there are any."""
        try:
            while self._open:
                await asyncio.sleep(self._pause)
                # The sum of the pauses, not the clock: a client is not slow while something else blocks the loop.
                self._now += self._pause
                if self._count_turned_away:
                    count, self._count_turned_away = self._count_turned_away, 0
                    self._note(f"{count} connections were turned away: {self._limit} are open")
                for position, connection in enumerate(list(self._exchanges)):
                    if position % INSPECTIONS_OF_A_TURN == INSPECTIONS_OF_A_TURN - 1:
                        await asyncio.sleep(0)
                    self._inspect(connection)
        finally:  # also at the end of the emulator: a cancelled task keeps the frames of what has stopped it
            self._inspection = None

    def _inspect(self, connection: HTTP1ServerConnection) -> None:
        exchange = self._exchanges.get(connection)
        watched = None if exchange is None else self._watch(exchange)
        if exchange is None or watched is None:
            self._unmoved.pop(connection, None)
            return
        before, since = self._unmoved.get(connection, (None, 0.0))
        if before != watched:
            self._unmoved[connection] = watched, self._now
        elif self._now - since >= watched[1]:
            fails_to, seconds, _ = watched
            if fails_to:
                self._note(
                    f"{exchange.what}: the connection was closed, because its client {fails_to} in {seconds:g} s"
                )
            connection.stream.close()

    def _watch(self, exchange: Exchange) -> Watched | None:
        """Return what the server waits for from the client of an exchange; None if it waits for nothing."""
        stream = exchange.stream
        if stream.writing():
            return "read nothing of its answer", self._slow_seconds, stream._total_write_done_index  # noqa: SLF001
        if exchange.stage is Stage.BODY:
            seconds = self.idle_seconds if exchange.patient else self._slow_seconds
            return "sent nothing of the body", seconds, exchange.received
        if exchange.stage is Stage.ANSWER:
            return None
        # The head of a request or a TLS handshake has begun.
        begun = stream._read_buffer_size or getattr(stream, "_ssl_accepting", False)  # noqa: SLF001
        return (
            ("did not complete the head of a request", self._slow_seconds, exchange)
            if begun
            else ("", self.idle_seconds, exchange)
        )


def make_guard(lifecycle: Lifecycle, settings: Settings) -> Guard:
    """Make the guard of an emulator; each connection that it closes is an event."""
    return Guard(
        lambda detail: lifecycle.note("request_refused", detail=detail),
        max_connections=settings.max_connections,
        slow_client_seconds=settings.slow_client_seconds,
        idle_seconds=settings.idle_seconds,
    )


class GuardedServer(HTTPServer):
    """An HTTP server whose connections a `Guard` watches."""

    def initialize(self, request_callback: Any, *, guard: Guard, **options: Any) -> None:  # type: ignore[override]
        """Take Tornado's options, without its timeout for heads, which needs a timer for every request."""
        super().initialize(request_callback, **options)
        self.conn_params.header_timeout = None
        self._guard = guard

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Serve a new connection if the limit allows it."""
        if self._guard.admit(stream):
            super().handle_stream(stream, address)

    def start_request(self, server_conn: Any, request_conn: Any) -> Any:
        """Begin the next request of a connection."""
        if self._guard.has_ended(server_conn):
            # Tornado would still serve a request that it has read from a connection that it has closed: it could
            # submit a job that no client knows of.
            return HTTPMessageDelegate()
        exchange = super().start_request(server_conn, request_conn)
        self._guard.follow(server_conn, exchange)  # type: ignore[arg-type]  # our Connections makes them
        return exchange

    def on_close(self, server_conn: Any) -> None:
        """Record that a connection has ended."""
        super().on_close(server_conn)
        self._guard.left(server_conn)
