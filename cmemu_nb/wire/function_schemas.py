"""Foundry's function schemas, read and described as text.

The official SDKs post them in this form [foundry]:
`{"functionName": "add", "inputs": [{"name": "x", "required": true, "dataType": {"type": "integer", "integer": {}}}],
"output": {"type": "single", "single": {"dataType": {...}}}}`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cmemu_nb.phrases import bounded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_CHARACTERS = 300
NOTHING: Mapping[str, str] = MappingProxyType({})

# Schemas as text


def schema_in_words(schema: object, defaults: Mapping[str, str] = NOTHING) -> str:
    """Describe a schema: "x: integer, limit: integer (may be left out), tags: optional list of string -> string".

    "(may be left out)" marks a field that is not required; with its text in `defaults` it is "limit: integer = 7".
    "optional" marks a value that may be null; such a field may
    be left out, too. A nested object is "struct {a: integer, b: date}", a name that is not an identifier is quoted, and
    an unknown type is shown by its name. A schema without inputs is "anything -> string"; one of another dialect is "".
    After 300 characters the text ends with "…". `schema` is any JSON value.
    """
    inputs = inputs_of(schema)
    return "" if inputs is None else bounded(_schema_words(inputs, schema, defaults), MAX_CHARACTERS)


def _schema_words(inputs: dict[str, tuple[Any, bool]], schema: object, defaults: Mapping[str, str]) -> Iterator[str]:
    left_out = [name for name, (_, required) in inputs.items() if not required]
    marks = {name: f" = {defaults[name]}" if name in defaults else " (may be left out)" for name in left_out}
    yield from _field_words({name: kind for name, (kind, _) in inputs.items()}, marks)
    yield "" if inputs else "anything"
    yield " -> "
    yield from type_in_words(get_in(schema, "output", "single", "dataType"))


def _field_words(fields: Mapping[str, object], marks: Mapping[str, str] = NOTHING) -> Iterator[str]:
    for position, (name, kind) in enumerate(fields.items()):
        yield f"{', ' if position else ''}{name_in_words(name)}: "
        yield from type_in_words(kind)
        yield marks.get(name, "")


def type_in_words(kind: object) -> Iterator[str]:
    """Yield a description of a type, piece by piece, so that a caller that stops early never recurses deeply."""
    name = type_name(kind)
    inside = get_in(kind, name)
    match name:
        case "list" | "set":
            yield f"{name} of "
            yield from type_in_words(get_in(inside, "elementsType"))
        case "map":
            yield "map of "
            yield from type_in_words(get_in(inside, "keysType"))
            yield " to "
            yield from type_in_words(get_in(inside, "valuesType"))
        case "optionalType":
            yield "optional "
            yield from type_in_words(get_in(inside, "wrappedType"))
        case "anonymousCustomType":
            yield "struct {"
            yield from _field_words(fields_of(kind) or {})
            yield "}"
        case _:
            yield name_in_words(name) if name else "anything"


def name_in_words(name: str) -> str:
    """Return a field's name, quoted if it is not an identifier."""
    return name if name.isidentifier() else repr(name)


# Reading a schema


def inputs_of(schema: object) -> dict[str, tuple[Any, bool]] | None:
    """Return a schema's inputs by name, each with its type and whether it is required; None for another dialect."""
    inputs = get_in(schema, "inputs")
    if not isinstance(inputs, list):
        return None
    found = {}
    for each in inputs:
        name, kind = get_in(each, "name"), get_in(each, "dataType")
        if not isinstance(name, str) or not type_name(kind):
            return None
        found[name] = kind, each.get("required") is not False
    return found


def type_name(kind: object) -> str:
    """Return the name of a type; "" if `kind` is not a type, which means any value."""
    name = kind.get("type") if isinstance(kind, dict) else None
    return name if isinstance(name, str) else ""


def fields_of(kind: object) -> dict[str, Any] | None:
    """Return a struct's fields by name; None if it has no fields or is not a struct."""
    fields = get_in(kind, "anonymousCustomType", "fields")
    return fields if isinstance(fields, dict) else None


def required_fields_of(kind: object) -> list[Any] | None:
    """Return the names of a struct's fields that must be present; None if it does not say which."""
    required = get_in(kind, "anonymousCustomType", "required")
    return required if isinstance(required, list) else None


def get_in(value: object, *keys: str) -> Any:
    """Return the value under a path of keys in nested objects, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
