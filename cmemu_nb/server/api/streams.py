"""Results as Server-Sent Events, while they arrive [foundry].

Each event is `{"type": "data", "value": ...}`. The value is an array of the items that have arrived if the function
streams, and the whole value otherwise. An error after the call is a last event, `{"type": "error", ...}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.errors import ResultError, WireError
from cmemu_nb.server.api.calls import api_error, batch_of, no_value, raised, value_of
from cmemu_nb.server.api.errors import error_fields
from cmemu_nb.server.response import Response, StreamResponse
from cmemu_nb.wire.function_schemas import type_name
from cmemu_nb.wire.item_reader import FirstHeld, ItemReader
from cmemu_nb.wire.results import error_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cmemu_nb.server.api.queries import Query
    from cmemu_nb.server.response import Answer

EVENTS = "text/event-stream"
# JSON has line ends only between values, so they can become spaces; in an event they would end a line.
_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


async def as_events(query: Query, answer: Answer) -> Answer:
    """Turn the answer of the contour routes into Server-Sent Events."""
    if isinstance(answer, StreamResponse):
        return StreamResponse(_events(query, answer.chunks), EVENTS)
    try:
        return Response(200, _data(await value_of(query, answer.body)), EVENTS)
    except WireError as error:
        return error_event(query, error)


def error_event(query: Query, error: WireError) -> Response:
    """Answer with a single event, the error of a job that failed or did not finish in time."""
    return Response(200, _error(query, error), EVENTS)


async def _events(query: Query, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    reader = ItemReader(streaming=type_name(query.output) in ("list", "set"))
    first = FirstHeld()
    try:
        async for chunk in chunks:
            if items := first.add(reader.split(chunk)):
                yield _data(await batch_of(query, items))
        if items := first.add(reader.split_end()):
            yield _data(await batch_of(query, items))
        if (posted := first.error()) is not None:
            raise raised(query, error_text(posted))
    except ResultError as error:
        yield _error(query, no_value(query, error))
    except WireError as error:
        yield _error(query, error)


def _data(value: bytes) -> bytes:
    return _event({"type": "data", "value": msgspec.Raw(value)})


def _error(query: Query, error: WireError) -> bytes:
    return _event({"type": "error", **error_fields(api_error(query, error))})


def _event(fields: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(fields).translate(_LINE_ENDS) + b"\n\n"
