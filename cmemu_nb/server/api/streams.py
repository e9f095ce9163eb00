"""Results as Server-Sent Events, while they arrive [foundry].

Each event is `{"type": "data", "value": ...}`, of a streaming function an array of the items that have come, of any
other its whole value; what goes wrong after the function was called is a last event, `{"type": "error", ...}`.
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
# In JSON they stand between values only.
_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


async def as_events(query: Query, answer: Answer) -> Answer:
    """Answer as events what the contour routes would answer as bytes."""
    if isinstance(answer, StreamResponse):
        return StreamResponse(_events(query, answer.chunks), EVENTS)
    try:
        return Response(200, _data(await value_of(query, answer.body)), EVENTS)
    except WireError as error:
        return error_event(query, error)


def error_event(query: Query, error: WireError) -> Response:
    """Answer as the only event that a job failed or was not done in time."""
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
