"""The types of parameters and values as the public API describes them, made from posted schemas [foundry]."""

from __future__ import annotations

from typing import Any

from cmemu_nb.wire.function_schemas import fields_of, get_in, type_name

# Types that have the same name in both dialects and no inner types.
_PLAIN = frozenset(
    ("attachment", "boolean", "date", "double", "float", "integer", "long", "mediaReference", "string", "timestamp")
)
_JSON_SCHEMA = {"boolean": "boolean", "integer": "integer", "null": "null", "number": "double", "string": "string"}
TOO_DEEP = "nested too deeply"


def data_type(kind: Any, *, in_ontology: bool = False) -> dict[str, Any]:
    """Return a type as the API describes it; a type that the API lacks is `unsupported`, with the type's name.

    Maps have a type only in an ontology, where they are entry sets.
    """
    try:
        return _data_type(kind, in_ontology=in_ontology)
    except RecursionError:
        return unsupported(TOO_DEEP)


def _data_type(kind: Any, *, in_ontology: bool) -> dict[str, Any]:
    name = type_name(kind)
    if name in _PLAIN:
        return {"type": name}

    def part(name_of_part: str) -> dict[str, Any]:
        return _data_type(get_in(kind, name, name_of_part), in_ontology=in_ontology)

    match name:
        case "list" | "set":
            return {"type": "array" if name == "list" else "set", "subType": part("elementsType")}
        case "map" if in_ontology:
            return {"type": "entrySet", "keyType": part("keysType"), "valueType": part("valuesType")}
        case "optionalType":
            return {"type": "union", "unionTypes": [part("wrappedType"), {"type": "null"}]}
        case "anonymousCustomType":
            fields = (fields_of(kind) or {}).items()
            return {
                "type": "struct",
                "fields": [
                    {"name": each, "fieldType": _data_type(inner, in_ontology=in_ontology)} for each, inner in fields
                ],
            }
    return unsupported(name or "any")


def unsupported(name: str) -> dict[str, Any]:
    """Return how the API describes a type that it lacks."""
    return {"type": "unsupported", "unsupportedType": name, "params": {}}


def of_json_schema(schema: Any) -> dict[str, Any]:
    """Return the parameters that a JSON Schema of an object describes, by name."""
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
        return unsupported(TOO_DEEP)
    return {"type": _JSON_SCHEMA[name]} if name in _JSON_SCHEMA else unsupported(name or "any")
