"""Results while they arrive, as Server-Sent Events or as lines of JSON (NDJSON) [foundry].

Each event, or line, is `{"type": "data", "value": ...}`. The value is an array of the items that have arrived if the
function streams, and the whole value otherwise. An error after the call is the last one, `{"type": "error", ...}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.errors import ResultError, WireError
from cmemu_nb.server.api.calls import api_error, batch_of, no_value, raised, value_of
from cmemu_nb.server.api.errors import error_fields
from cmemu_nb.server.response import BYTES, Response, StreamResponse
from cmemu_nb.wire.function_schemas import type_name
from cmemu_nb.wire.item_reader import FirstHeld, ItemReader
from cmemu_nb.wire.results import error_text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cmemu_nb.server.api.queries import Query
    from cmemu_nb.server.request import Request
    from cmemu_nb.server.response import Answer

# JSON has line ends only between values, so they can become spaces; in an event or a line they would end it.
_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


@dataclass(frozen=True)
class StreamFormat:
    """One of the two formats: its media type, and what is sent before and after each JSON object."""

    media: str
    before: bytes
    after: bytes

    async def answer(self, query: Query, answer: Answer) -> Answer:
        """Turn the answer of the contour routes into this format."""
        if isinstance(answer, StreamResponse):
            return StreamResponse(self._pieces(query, answer.chunks), self.media)
        try:
            return Response(200, self._data(await value_of(query, answer.body)), self.media)
        except WireError as error:
            return self.error(query, error)

    def error(self, query: Query, error: WireError) -> Response:
        """Answer with only the error of a job that failed or did not finish in time."""
        return Response(200, self._error(query, error), self.media)

    async def _pieces(self, query: Query, chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        reader = ItemReader(streaming=type_name(query.output) in ("list", "set"))
        first = FirstHeld()
        try:
            async for chunk in chunks:
                if items := first.add(reader.split(chunk)):
                    yield self._data(await batch_of(query, items))
            if items := first.add(reader.split_end()):
                yield self._data(await batch_of(query, items))
            if (posted := first.error()) is not None:
                raise raised(query, error_text(posted))
        except ResultError as error:
            yield self._error(query, no_value(query, error))
        except WireError as error:
            yield self._error(query, error)

    def _data(self, value: bytes) -> bytes:
        return self._piece({"type": "data", "value": msgspec.Raw(value)})

    def _error(self, query: Query, error: WireError) -> bytes:
        return self._piece({"type": "error", **error_fields(api_error(query, error))})

    def _piece(self, fields: dict[str, Any]) -> bytes:
        return self.before + msgspec.json.encode(fields).translate(_LINE_ENDS) + self.after


EVENTS = StreamFormat("text/event-stream", b"data: ", b"\n\n")
LINES = StreamFormat(BYTES, b"", b"\n")
_FORMATS = {form.media: form for form in (EVENTS, LINES)}


def accepted_format(request: Request) -> StreamFormat:
    """Return the format that a request's `Accept` header prefers, the first of several; events if it names neither."""
    found, best = EVENTS, 0.0
    for each in request.headers.get("Accept", "").split(","):
        media, _, options = each.partition(";")
        form = _FORMATS.get(media.strip().lower())
        if form and (quality := _quality(options)) > best:
            found, best = form, quality
    return found


def _quality(options: str) -> float:
    """Return the weight of one media type of an `Accept` header (RFC 9110), 1 if it has none."""
    for each in options.split(";"):
        name, _, value = each.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
