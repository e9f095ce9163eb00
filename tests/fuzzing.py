"""What fuzzing needs: a connection that knows when the emulator has read all, and a second reading of the bytes sent.

`read_requests` is written from RFC 9112 and deliberately not with Tornado's code. Where Tornado takes what the RFC
lets a server refuse, it says so with "lenient": none of these can be read in two ways, so nothing can be smuggled.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import re
import select
import socket
import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from client import Wire, WireAnswer, eventually
from conftest import FAULTS

from cmemu_nb.server.http import Exchange, Stage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from cmemu_nb import Emulator
    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.server.connection_limits import Guard

LONGEST_HEAD = 65_536
LONGEST_SIZE_LINE = 64
BARE_400 = b"HTTP/1.1 400 Bad Request\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 (Continue)\r\n\r\n"

HEAD_END = re.compile(rb"\r?\n\r?\n")  # lenient: a line may end with LF alone
TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rf"({TOKEN}) ([\x21-\x7e\x80-\xff]+) (HTTP/1\.[0-9])")
FIELD = re.compile(rf"({TOKEN}):[ \t]*((?:[\x21-\x7e\x80-\xff][\x20-\x7e\x80-\xff\t]*)?)")


class End(Enum):
    """How the bytes of a connection end."""

    OPEN = "the connection stays open, whatever has come of a next request"
    CLOSE = "the last request lets the connection be closed"
    MALFORMED = "what comes next is no HTTP"
    TOO_LONG = "a line or a head is too long to be read"


class Malformed(Exception):
    pass


class TooLong(Exception):
    pass


class Unfinished(Exception):
    pass


@dataclass(frozen=True)
class Sent:
    """A request as `read_requests` reads it."""

    method: str
    target: str
    version: str
    fields: list[tuple[str, str]]
    body: bytes = b""

    def values(self, name: str) -> list[str]:
        return [value for each, value in self.fields if each.lower() == name]

    @property
    def keeps_alive(self) -> bool:
        # Lenient: only a lone "close" counts, not one of several options.
        connection = ",".join(self.values("connection")).lower()
        if self.version == "HTTP/1.1":
            return connection != "close"
        framed = self.values("content-length") or self.values("transfer-encoding") or self.method in ("GET", "HEAD")
        return bool(framed) and connection == "keep-alive"


@dataclass
class Reading:
    """The whole requests of some bytes, how these end, and the head of a request that is not whole."""

    whole: list[Sent] = field(default_factory=list)
    end: End = End.OPEN
    begun: Sent | None = None


def read_requests(data: bytes) -> Reading:
    reading, stream = Reading(), io.BytesIO(data)
    try:
        while stream.tell() < len(data):
            reading.begun = None
            reading.begun = _read_head(stream)
            body = _read_body(reading.begun, stream)
            sent = Sent(**{**vars(reading.begun), "body": body})
            reading.whole.append(sent)
            if not sent.keeps_alive:
                reading.end = End.CLOSE
                break
        reading.begun = None
    except Unfinished:
        reading.end = End.OPEN
    except Malformed:
        reading.end = End.MALFORMED
    except TooLong:
        reading.end = End.TOO_LONG
    return reading


def _read_head(stream: io.BytesIO) -> Sent:
    rest = stream.getvalue()[stream.tell() :]
    found = HEAD_END.search(rest)
    if (found.end() if found else len(rest)) > LONGEST_HEAD:
        raise TooLong
    if found is None:
        raise Unfinished
    stream.seek(found.end(), io.SEEK_CUR)
    # Lenient: an empty line may come before the request, and CRs before the LF that ends its first line.
    line, _, lines = rest[: found.end()].decode("latin-1").lstrip("\r\n").partition("\n")
    start = REQUEST_LINE.fullmatch(line.rstrip("\r"))
    if start is None:
        raise Malformed
    fields = [_read_field(each.removesuffix("\r")) for each in lines.split("\n") if each not in ("", "\r")]
    return Sent(start[1], start[2], start[3], fields)


def _read_field(line: str) -> tuple[str, str]:
    match = FIELD.fullmatch(line)
    if match is None:
        raise Malformed
    return match[1], match[2].rstrip(" \t")


def _read_body(head: Sent, stream: io.BytesIO) -> bytes:
    lengths, codings = head.values("content-length"), head.values("transfer-encoding")
    if lengths:
        # Lenient: a length may be said twice if it is the same.
        said = set(re.split(r",[ \t]*", ",".join(lengths)))
        if codings or len(said) > 1 or not re.fullmatch("[0-9]{1,1000}", length := said.pop()):
            raise Malformed
        return _read_exactly(stream, int(length))
    if not codings:
        return b""
    if ",".join(codings).lower() != "chunked":
        raise Malformed
    return _read_chunks(stream)


def _read_exactly(stream: io.BytesIO, length: int) -> bytes:
    left = len(stream.getvalue()) - stream.tell()
    if length > left:
        raise Unfinished
    return stream.read(length)


def _read_chunks(stream: io.BytesIO) -> bytes:
    """Read a chunked body. Extensions and trailers are refused, which the RFC does not ask for; it is the safe side."""
    body = b""
    while True:
        line = stream.readline()
        while line.endswith(b"\n") and not line.endswith(b"\r\n"):
            following = stream.readline()
            line += following
            if not following:
                break
        if len(line) > LONGEST_SIZE_LINE:
            raise TooLong
        if not line.endswith(b"\r\n"):
            raise Unfinished
        if not re.fullmatch(rb"[0-9a-fA-F]+", line[:-2]):
            raise Malformed
        size = int(line[:-2], 16)
        if size > 10**1000:
            raise Malformed
        body += _read_exactly(stream, size)
        if _read_exactly(stream, 2) != b"\r\n":
            raise Malformed
        if size == 0:
            return body


def read_answers(raw: bytes, reading: Reading) -> tuple[list[WireAnswer], bool]:
    """Read all answers of a connection strictly, and tell whether Tornado's own bare 400 ended them."""
    answers: list[WireAnswer] = []
    methods = [sent.method for sent in (*reading.whole, *([reading.begun] if reading.begun else []))]
    while raw and raw != BARE_400:
        if raw.startswith(CONTINUE):
            raw = raw.removeprefix(CONTINUE)
            continue
        assert len(answers) < len(methods), f"an answer that nobody asked for: {raw[:200]!r}"
        answer, raw = _read_answer(raw, methods[len(answers)])
        answers.append(answer)
    return answers, raw == BARE_400


def _read_answer(raw: bytes, method: str) -> tuple[WireAnswer, bytes]:
    head, separator, rest = raw.partition(b"\r\n\r\n")
    assert separator, f"no head of an answer: {raw[:200]!r}"
    line, _, lines = head.partition(b"\r\n")
    start = re.fullmatch(rb"HTTP/1\.1 ([1-5][0-9]{2}) [\x20-\x7e]+", line)
    assert start, f"no status line: {line!r}"
    assert all(re.fullmatch(rb"[A-Za-z-]+: [\x20-\x7e\x80-\xff]*", each) for each in lines.split(b"\r\n"))
    headers = http.client.parse_headers(io.BytesIO(lines + b"\r\n\r\n"))
    status = int(start[1])
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Transfer-Encoding" not in headers
    assert (status == 204) == ("Content-Length" not in headers)
    length = 0 if method == "HEAD" else int(headers["Content-Length"] or 0)
    assert len(rest) >= length, "the answer broke off"
    answer = WireAnswer(status, headers, rest[:length])
    check_error(answer, method)
    return answer, rest[length:]


def check_error(answer: WireAnswer, method: str) -> None:
    """Check that an answer is none of our faults, and an error in the documented shape."""
    assert answer.status < 600
    assert answer.status != 500, answer.body
    if answer.status >= 400 and method != "HEAD":
        code = answer.error()
        assert code != "internal_error"
        assert isinstance(json.loads(answer.body)["error_description"], str)


class Watched:
    """An emulator whose faults and submitted jobs are noted, and whose connections can be looked at."""

    def __init__(self, emu: Emulator) -> None:
        self.emu = emu
        self.faults: list[Event] = []
        self.queued: list[str | None] = []
        self._guard: Guard = emu._engine.guard  # noqa: SLF001 - nothing shows it from outside
        self._unsubscribe = emu.lifecycle.events.subscribe(self._note)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._unsubscribe()

    def _note(self, event: Event) -> None:
        if event.kind in FAULTS:
            self.faults.append(event)
        if event.kind == "job_queued":
            self.queued.append(event.job_id)

    def state(self, port: int, sent: int = 0) -> str:
        """Say what the connection from a client's port does: "busy", "waiting" for bytes, "held" or "closed".

        It is busy as long as not all the bytes sent have arrived.
        """

        async def look() -> str:
            for connection, exchange in self._guard._exchanges.items():  # noqa: SLF001
                context: Any = connection.context
                if context.address[1] == port:
                    state, task = _state(exchange, sent), exchange._task  # noqa: SLF001
                    # What was begun in this turn may be answered in the next one.
                    await asyncio.sleep(0)
                    return state if state != "held" or exchange._task is task else "busy"  # noqa: SLF001
            return "closed"

        return self.emu.home.run(look())

    def converse(self, pieces: Iterable[bytes]) -> tuple[bytes, str]:
        """Send pieces, each when the one before is read; return all that was answered, and how it ended."""
        with Wire(self.emu.port) as wire:
            port = wire.socket.getsockname()[1]
            eventually(lambda: self.state(port) == "waiting", "the connection is accepted")
            raw, state, sent = bytearray(), "waiting", 0
            for piece in pieces:
                if state == "closed":
                    break
                wire.send(piece)
                sent += len(piece)
                state = self._settled(wire, port, sent, raw)
            if state != "closed":
                wire.socket.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while piece := wire.socket.recv(65_536):
                    raw += piece
            return bytes(raw), state

    def _settled(self, wire: Wire, port: int, sent: int, raw: bytearray) -> str:
        def settled() -> str | None:
            state = self.state(port, sent)
            with contextlib.suppress(ConnectionResetError):
                while _readable(wire.socket) and (piece := wire.socket.recv(65_536)):
                    raw.extend(piece)
            return None if state == "busy" else state

        return cast("str", eventually(settled, "the emulator has read all that was sent"))


def _state(exchange: Exchange, sent: int) -> str:
    stream = exchange.stream
    # A closed one is about to be forgotten.
    if stream.closed() or stream.writing() or _arrived(stream.socket) < sent:
        return "busy"
    if exchange.stage is Stage.ANSWER and exchange._task is not None and not exchange._task.done():  # noqa: SLF001
        return "held"
    try:
        stream.socket.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return "waiting" if stream.reading() else "busy"
    return "busy"


def _arrived(sock: socket.socket) -> int:
    """Return how many bytes have come in over a socket: `tcpi_bytes_received` of Linux."""
    arrived: int = struct.unpack_from("Q", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136), 128)[0]
    return arrived


def _readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])
