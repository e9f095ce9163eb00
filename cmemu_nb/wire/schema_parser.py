"""A parser of the schema formats that a runtime may post; it returns (function name, payload) pairs.

Accepted are an array of named objects (nested arrays are flattened), `{"functions": [...]}`, `{"schemas": [...]}`, one
bare named object, and a map from name to payload. The name is under `functionName`, `function_name` or `name`. The
payload is under `schema` or `schemaPayload`; otherwise the whole object is the payload, which is what the official SDKs
post. [page, foundry, ours]
"""

from __future__ import annotations

from typing import Any

import msgspec

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.wire.json_input import decode

NAME_KEYS = ("functionName", "function_name", "name")
PAYLOAD_KEYS = ("schema", "schemaPayload")
MAX_NESTING = 20
CONTAINER_KEYS = ("functions", "schemas")

Entry = tuple[str, bytes]


def parse_schemas(body: bytes) -> list[Entry]:
    """Return a posted body as (function name, payload) pairs; each payload is exactly the JSON text that was sent.

    Raises `InvalidRequest` for the whole body if one entry is invalid; the message names its position.
    """
    text = decode(body, msgspec.Raw, "The schemas")
    if _is(text, b"["):
        return _read_array(text, "")
    if not _is(text, b"{"):
        raise InvalidRequest(f"The schemas can't be read: send a JSON array or object, not {_kind(text)}.")
    fields = decode(text, dict[str, msgspec.Raw], "The schemas")
    for key in CONTAINER_KEYS:
        if key in fields and _is(fields[key], b"["):
            return _read_array(fields[key], key)
    name = _name(fields)
    if name is not None:
        return [(name, _payload(fields, bytes(text)))]
    return [_map_entry(key, value, position) for position, (key, value) in enumerate(fields.items(), 1)]


def _read_array(text: msgspec.Raw, path: str) -> list[Entry]:
    if path.count("[") > MAX_NESTING:
        raise InvalidRequest(f"The schemas were not stored: arrays may be nested {MAX_NESTING} deep, not more.")
    entries: list[Entry] = []
    for index, item in enumerate(decode(text, list[msgspec.Raw], "The schemas")):
        position = f"{path}[{index}]"
        if _is(item, b"["):
            entries += _read_array(item, position)
        else:
            entries.append(_read_entry(item, position))
    return entries


def _read_entry(item: msgspec.Raw, position: str) -> Entry:
    if not _is(item, b"{"):
        raise _bad(position, f"is {_kind(item)}, not an object")
    fields = decode(item, dict[str, msgspec.Raw], f"The schema at {position}")
    name = _name(fields)
    if name is None:
        raise _bad(position, f"has no name: put the function's name under {' or '.join(map(repr, NAME_KEYS))}")
    return name, _payload(fields, bytes(item))


def _map_entry(key: str, value: msgspec.Raw, position: int) -> Entry:
    if not key.strip():
        raise _bad(f"key {position}", "is blank: a function needs a name")
    return key, bytes(value)


def _name(fields: dict[str, msgspec.Raw]) -> str | None:
    for key in NAME_KEYS:
        if key in fields and _is(fields[key], b'"'):
            name: str = msgspec.json.decode(fields[key], type=str)
            if name.strip():
                return name
    return None


def _payload(fields: dict[str, msgspec.Raw], whole: bytes) -> bytes:
    return next((bytes(fields[key]) for key in PAYLOAD_KEYS if key in fields), whole)


def _is(text: msgspec.Raw, opening: bytes) -> bool:
    return bytes(text).lstrip().startswith(opening)


def _kind(text: Any) -> str:
    first = bytes(text).lstrip()[:1]
    return {b"{": "an object", b"[": "an array", b'"': "a string", b"n": "null", b"t": "true", b"f": "false"}.get(
        first, "a number"
    )


def _bad(position: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"The schemas were not stored: the entry at {position} {why}.")
