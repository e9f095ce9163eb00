"""Answers that list records. A long list is made in turns, so that other requests are served in between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cmemu_nb.server.response import Response, json_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
MAX_RECORDS_OF_A_TURN = 50
MAX_BYTES_OF_A_TURN = 262_144


def listing(
    fields: dict[str, Any], name: str, records: Sequence[T], make: Callable[[T], dict[str, Any] | None]
) -> Response | Awaitable[Response]:
    """Answer `fields` and, under `name`, the value that `make` returns for each record; None is left out.

    `make` returns None for a record that was deleted while the answer was made.
    """
    if len(records) > MAX_RECORDS_OF_A_TURN:
        return _in_turns(fields, name, records, make)
    return _answer(fields, name, [msgspec.json.encode(made) for made in map(make, records) if made is not None])


async def _in_turns(
    fields: dict[str, Any], name: str, records: Sequence[T], make: Callable[[T], dict[str, Any] | None]
) -> Response:
    encoded, size = [], 0
    for number, record in enumerate(records, 1):
        made = make(record)
        if made is not None:
            encoded.append(msgspec.json.encode(made))
            size += len(encoded[-1])
        if number % MAX_RECORDS_OF_A_TURN == 0 or size > MAX_BYTES_OF_A_TURN:
            size = 0
            await asyncio.sleep(0)
    return _answer(fields, name, encoded)


def _answer(fields: dict[str, Any], name: str, encoded: list[bytes]) -> Response:
    return json_response(200, {**fields, name: msgspec.Raw(b"[" + b",".join(encoded) + b"]")})
