"""What the public API says of a function, made from the schema that its runtime posted [foundry]."""

from __future__ import annotations

from typing import Any

from cmemu_nb.server.api.queries import VERSION, Query
from cmemu_nb.wire.function_schemas import fields_of, get_in, type_name

# Types that are called the same in both dialects and have nothing inside.
_PLAIN = frozenset(
    ("attachment", "boolean", "date", "double", "float", "integer", "long", "mediaReference", "string", "timestamp")
)
_JSON_SCHEMA = {"boolean": "boolean", "integer": "integer", "null": "null", "number": "double", "string": "string"}
TOO_DEEP = "nested too deeply"


def query_record(query: Query) -> dict[str, Any]:
    """Return the API's record of a function.

    A schema of another dialect tells what a JSON Schema of an object would: its properties.
    """
    inputs = query.inputs
    parameters = {name: _parameter(kind, required=required) for name, (kind, required) in inputs.items()}
    description = get_in(query.schema, "description")
    return {
        "apiName": query.api_name,
        **({"description": description} if isinstance(description, str) else {}),
        "displayName": query.name,
        "parameters": parameters or _of_json_schema(query.schema),
        "output": data_type(query.output),
        "rid": query.rid,
        "version": VERSION,
    }


def _parameter(kind: Any, *, required: bool) -> dict[str, Any]:
    return {"dataType": data_type(kind), "required": required and type_name(kind) != "optionalType"}


def data_type(kind: Any) -> dict[str, Any]:
    """Return a type in the API's words; what it has none for is `unsupported`, with the type's name."""
    try:
        return _data_type(kind)
    except RecursionError:
        return _unsupported(TOO_DEEP)


def _data_type(kind: Any) -> dict[str, Any]:
    name = type_name(kind)
    inside = get_in(kind, name)
    if name in _PLAIN:
        return {"type": name}
    match name:
        case "list" | "set":
            return {"type": "array" if name == "list" else "set", "subType": _data_type(get_in(inside, "elementsType"))}
        case "optionalType":
            return {"type": "union", "unionTypes": [_data_type(get_in(inside, "wrappedType")), {"type": "null"}]}
        case "anonymousCustomType":
            fields = fields_of(kind) or {}
            return {"type": "struct", "fields": [_field(each, inner) for each, inner in fields.items()]}
    return _unsupported(name or "any")


def _field(name: str, kind: Any) -> dict[str, Any]:
    return {"name": name, "fieldType": _data_type(kind)}


def _unsupported(name: str) -> dict[str, Any]:
    return {"type": "unsupported", "unsupportedType": name, "params": {}}


# JSON Schema, which runtimes of one's own may post


def _of_json_schema(schema: Any) -> dict[str, Any]:
    properties, required = get_in(schema, "properties"), get_in(schema, "required")
    if not isinstance(properties, dict):
        return {}
    needed = required if isinstance(required, list) else []
    return {
        name: {"dataType": _json_schema_type(each), "required": name in needed} for name, each in properties.items()
    }


def _json_schema_type(schema: Any) -> dict[str, Any]:
    name = type_name(schema)
    try:
        if name == "array":
            return {"type": "array", "subType": _json_schema_type(get_in(schema, "items"))}
        if name == "object" and (properties := get_in(schema, "properties")) and isinstance(properties, dict):
            fields = [{"name": each, "fieldType": _json_schema_type(inner)} for each, inner in properties.items()]
            return {"type": "struct", "fields": fields}
    except RecursionError:
        return _unsupported(TOO_DEEP)
    return {"type": _JSON_SCHEMA[name]} if name in _JSON_SCHEMA else _unsupported(name or "any")
