"""Conversion of values between the public API's encoding and the encoding of modules [foundry].

Both are JSON. In the API a long is a string, because not every client reads large numbers exactly; for a module it is a
number. A decimal is a string in both. A timestamp is in UTC and ends with Z. All other values are identical.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.wire.function_schemas import fields_of, get_in, type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Leaves = Mapping[str, Callable[[bytes], bytes]]

_INTEGER = re.compile(r"-?(?:0|[1-9]\d*)", re.ASCII)
_NUMBER_STARTS = b"-0123456789"


def to_module(kind: Any, text: bytes) -> bytes:
    """Return a parameter's JSON text in the module's encoding. A value of another type stays as it is."""
    return _recoded(kind, text, _TO_MODULE)


def from_module(kind: Any, text: bytes) -> bytes:
    """Return a result's JSON text in the API's encoding. A value of another type stays as it is."""
    return _recoded(kind, text, _FROM_MODULE)


def _recoded(kind: Any, text: bytes, leaves: Leaves) -> bytes:
    try:
        return _changed(kind, text.strip(), leaves) if _has(kind, leaves) else text
    except (msgspec.DecodeError, RecursionError):
        return text


def _has(kind: Any, leaves: Leaves) -> bool:
    """Return whether a type is or contains a type whose encodings differ."""
    return type_name(kind) in leaves or any(_has(each, leaves) for each in _parts(kind))


def _parts(kind: Any) -> Iterable[Any]:
    inside = get_in(kind, type_name(kind))
    parts = [get_in(inside, name) for name in ("elementsType", "valuesType", "wrappedType")]
    return [*filter(None, parts), *(fields_of(kind) or {}).values()]


def _changed(kind: Any, text: bytes, leaves: Leaves) -> bytes:
    name, opening = type_name(kind), text[:1]
    inside = get_in(kind, name)
    if name == "optionalType":
        return _changed(get_in(inside, "wrappedType"), text, leaves)
    if name in ("list", "set") and opening == b"[":
        elements = get_in(inside, "elementsType")
        items = msgspec.json.decode(text, type=list[msgspec.Raw])
        return b"[" + b",".join(_changed(elements, bytes(item), leaves) for item in items) + b"]"
    if name == "map" and opening == b"{":
        return _changed_members(lambda _: get_in(inside, "valuesType"), text, leaves)
    if name == "anonymousCustomType" and opening == b"{":
        return _changed_members((fields_of(kind) or {}).get, text, leaves)
    return leaves[name](text) if name in leaves else text


def _changed_members(kind_of: Callable[[str], Any], text: bytes, leaves: Leaves) -> bytes:
    members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    return msgspec.json.encode(
        {name: msgspec.Raw(_changed(kind_of(name), bytes(member), leaves)) for name, member in members.items()}
    )


# Single values


def _unquoted_integer(text: bytes) -> bytes:
    digits = text[1:-1].decode()
    return digits.encode() if text[:1] == b'"' and _INTEGER.fullmatch(digits) else text


def _quoted_number(text: bytes) -> bytes:
    return b'"' + text + b'"' if text[:1] in _NUMBER_STARTS else text


def _timestamp_in_utc(text: bytes) -> bytes:
    """Return a timestamp in UTC. One without an offset is assumed to be UTC, as in the SDK."""
    try:
        moment = datetime.fromisoformat(json.loads(text))
    except (ValueError, TypeError):
        return text
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return json.dumps(moment.isoformat().replace("+00:00", "Z")).encode()


_TO_MODULE: Leaves = {"long": _unquoted_integer, "decimal": _quoted_number, "timestamp": _timestamp_in_utc}
_FROM_MODULE: Leaves = {"long": _quoted_number, "decimal": _quoted_number, "timestamp": _timestamp_in_utc}
