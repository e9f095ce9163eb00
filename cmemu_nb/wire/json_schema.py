"""Foundry's function schemas as JSON Schema, for clients that describe a function's input that way."""

from __future__ import annotations

from typing import Any

from cmemu_nb.wire.function_schemas import fields_of, get_in, inputs_of, required_fields_of, type_name
from cmemu_nb.wire.query_check import INTEGERS

# Types that are nested more deeply are described as "any value".
MAX_DEPTH = 20
_SCALARS: dict[str, dict[str, Any]] = {
    **{name: {"type": "integer"} for name in INTEGERS},
    **{name: {"type": "number"} for name in ("float", "double")},
    "decimal": {"type": ["string", "number"]},
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "timestamp": {"type": "string", "format": "date-time"},
}


def input_schema(schema: object) -> dict[str, Any]:
    """Return the JSON Schema of a function's input, an object with one property for each input.

    A schema without inputs, or one of another dialect, accepts any object. `schema` is any JSON value.
    """
    inputs = inputs_of(schema)
    if not inputs:
        return {"type": "object"}
    return {
        "type": "object",
        "properties": {name: _value_schema(kind, MAX_DEPTH) for name, (kind, _) in inputs.items()},
        "required": [name for name, (kind, needed) in inputs.items() if needed and type_name(kind) != "optionalType"],
        "additionalProperties": False,
    }


def _value_schema(kind: object, depth: int) -> dict[str, Any]:
    name = type_name(kind)
    inside = get_in(kind, name)
    if not depth:
        return {}
    match name:
        case "list" | "set":
            return {"type": "array", "items": _value_schema(get_in(inside, "elementsType"), depth - 1)}
        case "map":
            return {"type": "object", "additionalProperties": _value_schema(get_in(inside, "valuesType"), depth - 1)}
        case "optionalType":
            return {"anyOf": [_value_schema(get_in(inside, "wrappedType"), depth - 1), {"type": "null"}]}
        case "anonymousCustomType":
            return _struct_schema(kind, depth - 1)
        case _:
            return _SCALARS.get(name, {})


def _struct_schema(kind: object, depth: int) -> dict[str, Any]:
    fields = fields_of(kind)
    if not fields:
        return {"type": "object"}
    needed = required_fields_of(kind) or ()
    return {
        "type": "object",
        "properties": {name: _value_schema(each, depth) for name, each in fields.items()},
        "required": [name for name in fields if name in needed],
        "additionalProperties": False,
    }
