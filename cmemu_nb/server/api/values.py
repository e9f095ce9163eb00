"""Conversion of values between the public API's encoding and the encoding of modules [foundry].

Both are JSON. In the API a long is a string, because not every client reads large numbers exactly; for a module it is a
number. A decimal is a string in both. A timestamp is in UTC and ends with Z. In an ontology a map is an entry set,
`[{"key": ..., "value": ...}]`, whose keys have the type that the schema says; otherwise it is an object. All other
values are identical.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.wire.function_schemas import fields_of, get_in, type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_INTEGER = re.compile(r"-?(?:0|[1-9]\d*)", re.ASCII)
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?", re.ASCII)
_NUMBER_STARTS = b"-0123456789"


@dataclass(frozen=True)
class _Encoding:
    """How values change: those of `leaves` by their types' names, and maps if they are entry sets on one side."""

    leaves: Mapping[str, Callable[[bytes], bytes]]
    change_map: Callable[[Any, bytes, _Encoding], bytes] | None = None


class _Entry(msgspec.Struct):
    key: msgspec.Raw
    value: msgspec.Raw = msgspec.Raw(b"null")


def to_module(kind: Any, text: bytes, *, in_ontology: bool = False) -> bytes:
    """Return a parameter's JSON text in the module's encoding. A value of another type stays as it is."""
    return _recoded(kind, text, _FROM_ONTOLOGY if in_ontology else _TO_MODULE)


def from_module(kind: Any, text: bytes, *, in_ontology: bool = False) -> bytes:
    """Return a result's JSON text in the API's encoding. A value of another type stays as it is."""
    return _recoded(kind, text, _TO_ONTOLOGY if in_ontology else _FROM_MODULE)


def _recoded(kind: Any, text: bytes, encoding: _Encoding) -> bytes:
    try:
        return _changed(kind, text.strip(), encoding) if _has(kind, encoding) else text
    except (msgspec.DecodeError, RecursionError):
        return text


def _has(kind: Any, encoding: _Encoding) -> bool:
    """Return whether a type is or contains a type whose encodings differ."""
    name = type_name(kind)
    differs = name in encoding.leaves or (name == "map" and encoding.change_map is not None)
    return differs or any(_has(each, encoding) for each in _parts(kind))


def _parts(kind: Any) -> Iterable[Any]:
    inside = get_in(kind, type_name(kind))
    parts = [get_in(inside, name) for name in ("elementsType", "valuesType", "wrappedType")]
    return [*filter(None, parts), *(fields_of(kind) or {}).values()]


def _changed(kind: Any, text: bytes, encoding: _Encoding) -> bytes:
    name, opening = type_name(kind), text[:1]
    inside = get_in(kind, name)
    if name == "optionalType":
        return _changed(get_in(inside, "wrappedType"), text, encoding)
    if name in ("list", "set") and opening == b"[":
        elements = get_in(inside, "elementsType")
        items = msgspec.json.decode(text, type=list[msgspec.Raw])
        return b"[" + b",".join(_changed(elements, bytes(item), encoding) for item in items) + b"]"
    if name == "map":
        return (encoding.change_map or _changed_map)(inside, text, encoding)
    if name == "anonymousCustomType" and opening == b"{":
        return _changed_members((fields_of(kind) or {}).get, text, encoding)
    return encoding.leaves[name](text) if name in encoding.leaves else text


def _changed_members(kind_of: Callable[[str], Any], text: bytes, encoding: _Encoding) -> bytes:
    members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    return msgspec.json.encode(
        {name: msgspec.Raw(_changed(kind_of(name), bytes(member), encoding)) for name, member in members.items()}
    )


# Maps


def _changed_map(inside: Any, text: bytes, encoding: _Encoding) -> bytes:
    values = get_in(inside, "valuesType")
    return _changed_members(lambda _: values, text, encoding) if text[:1] == b"{" else text


def _map_of_entries(inside: Any, text: bytes, encoding: _Encoding) -> bytes:
    """Return an entry set as an object. An object is taken too, although the API has none."""
    if text[:1] != b"[":
        return _changed_map(inside, text, encoding)
    keys, values = get_in(inside, "keysType"), get_in(inside, "valuesType")
    entries = msgspec.json.decode(text, type=list[_Entry])
    return msgspec.json.encode(
        {
            _name_of_key(_changed(keys, bytes(entry.key).strip(), encoding)): msgspec.Raw(
                _changed(values, bytes(entry.value).strip(), encoding)
            )
            for entry in entries
        }
    )


def _name_of_key(key: bytes) -> str:
    if key[:1] in b"{[n":
        raise msgspec.ValidationError
    return json.loads(key) if key[:1] == b'"' else key.decode()


def _entries_of_map(inside: Any, text: bytes, encoding: _Encoding) -> bytes:
    if text[:1] != b"{":
        return text
    keys, values = get_in(inside, "keysType"), get_in(inside, "valuesType")
    members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    return msgspec.json.encode(
        [
            _Entry(
                msgspec.Raw(_key_of_name(keys, name, encoding)), msgspec.Raw(_changed(values, bytes(member), encoding))
            )
            for name, member in members.items()
        ]
    )


def _key_of_name(kind: Any, name: str, encoding: _Encoding) -> bytes:
    """Return a member's name as a key of its type: a number or a truth value if the type says so, and text if not."""
    text = name if _is_bare(type_name(kind), name) else json.dumps(name)
    return _changed(kind, text.encode(), encoding)


def _is_bare(kind: str, name: str) -> bool:
    match kind:
        case "integer" | "short" | "byte":
            return _INTEGER.fullmatch(name) is not None
        case "double" | "float":
            return _NUMBER.fullmatch(name) is not None
    return kind == "boolean" and name in ("true", "false")


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
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):  # also a time that is before the year 1 in UTC, or after 9999
        return text
    return json.dumps(moment.isoformat().replace("+00:00", "Z")).encode()


_TO_MODULE = _Encoding({"long": _unquoted_integer, "decimal": _quoted_number, "timestamp": _timestamp_in_utc})
_FROM_MODULE = _Encoding({"long": _quoted_number, "decimal": _quoted_number, "timestamp": _timestamp_in_utc})
_FROM_ONTOLOGY = _Encoding(_TO_MODULE.leaves, _map_of_entries)
_TO_ONTOLOGY = _Encoding(_FROM_MODULE.leaves, _entries_of_map)
