"""The encoding of queries as JSON text, with an optional check against the function's schema."""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.wire.function_schemas import inputs_of
from cmemu_nb.wire.json_values import write_json
from cmemu_nb.wire.query_check import check_query

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Source(Enum):
    """The source of a query, which determines the meaning of some values.

    A float in a query that a person wrote is a float. In a row of a `map`, as in values of numpy and pandas, a whole
    float may be an integer of a column with missing values. In a DataFrame, None is also a missing value, not null.
    """

    PERSON = 1
    ROW = 2
    FRAME = 3


class QueryEncoder:
    """Encodes queries of one function. `schema()` returns the function's schema, or None, which allows any query."""

    def __init__(self, function_name: str, schema: Callable[[], object], *, check: bool) -> None:
        self._function_name = function_name
        self.schema = schema
        self._check = check

    def encode(self, query: object, source: Source = Source.PERSON) -> bytes:
        """Return a query as JSON text. None becomes `{}`, and a `msgspec.Raw` is already JSON text.

        Values for which JSON has no type are converted according to the schema (`cmemu_nb.wire.query_values`). Raises
        `InvalidRequest`, which says what does not match or can't be sent.
        """
        if isinstance(query, msgspec.Raw):
            return bytes(query)
        text = None if source is Source.FRAME else self._encode_plain(query)
        return self._encode_converted(query, source) if text is None else text

    def _encode_plain(self, query: object) -> bytes | None:
        """Encode a query of plain JSON values that matches the schema, without copying it; None for other queries."""
        try:
            text = json.dumps({} if query is None else query, allow_nan=False).encode()
            self._match(query)
        except (TypeError, ValueError, RecursionError, InvalidRequest):
            return None
        return text

    def _encode_converted(self, query: object, source: Source) -> bytes:
        from cmemu_nb.wire.query_values import plain_query  # noqa: PLC0415 - most queries are plain

        converted = plain_query(query, self.schema(), source)
        self._match(converted)
        try:
            return write_json(converted, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequest(f"The query can't be sent as JSON: {error}. Use plain JSON values.") from None

    def _match(self, query: object) -> None:
        if self._check:
            check_query(self._function_name, self.schema(), query)


def query_of(query: object, fields: Mapping[str, Any], name: str) -> object:
    """Return a query that was given as one object or as keywords. Raises `InvalidRequest` if it was given as both."""
    if not fields:
        return query
    if query is not None:
        raise InvalidRequest(
            f"The query of {name} was given twice: as one object, and as the keywords {', '.join(fields)}. "
            "Give all of its fields in the object, or all as keywords."
        )
    return dict(fields)


def refuse_clashes(name: str, schema: object, parameters: Mapping[str, object]) -> None:
    """Raise `InvalidRequest` if a parameter of the call has the same name as a field of the function."""
    clashing = [each for each in inputs_of(schema) or () if parameters.get(each) is not None]
    if clashing:
        field = clashing[0]
        raise InvalidRequest(
            f"{field} is a parameter of the call and a field of {name}, so it is not clear which was meant. Give the "
            f"query as an object: {{{field!r}: ...}} for the field, {{}} for the parameter."
        )
