"""The platform's types for the schemas of an OpenAPI document.

The documentation of "Integrate a server" excludes combined schemas and several types [foundry]. How the other schemas
are mapped, and that recursive ones are refused, is [ours].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from openapi_pydantic.v3.v3_1 import Reference, Schema
from pydantic import BaseModel

if TYPE_CHECKING:
    from openapi_pydantic.v3.v3_1 import OpenAPI

T = TypeVar("T", bound=BaseModel)

COMBINING = ("anyOf", "oneOf", "allOf")
SCALARS: dict[str, dict[str | None, str]] = {
    "string": {None: "string", "date": "date", "date-time": "timestamp", "byte": "binary"},
    "integer": {None: "integer", "int64": "long"},
    "number": {None: "double", "float": "float"},
    "boolean": {None: "boolean"},
}
"""The platform's types, by the type and the format of a schema; other formats are as none."""


class Unfit(Exception):
    """An operation of a document can't be a function; the message is a clause that says why."""


class References:
    """Finds what a `$ref` of a document refers to. Only references to the document's own components are accepted."""

    def __init__(self, document: OpenAPI) -> None:
        self._components = document.components

    def resolve(self, given: T | Reference) -> T:
        """Return what a reference refers to, through further references; what is no reference is returned as it is."""
        seen: set[str] = set()
        while ref := _ref_of(given):
            if ref in seen:
                raise Unfit(f"the $ref {ref!r} refers to itself")
            seen.add(ref)
            given = self._find(ref)
        assert not isinstance(given, Reference)  # noqa: S101 - each has a ref
        return given

    def _find(self, ref: str) -> Any:
        beginning, _, path = ref.partition("#/components/")
        kind, _, name = path.partition("/")
        if beginning or not name:
            raise Unfit(f"the $ref {ref!r} does not begin with #/components/: put what it refers to into the document")
        name = name.replace("~1", "/").replace("~0", "~")
        found = (getattr(self._components, kind, None) or {}).get(name)
        if found is None:
            raise Unfit(f"the $ref {ref!r} leads to nothing")
        return found


def _ref_of(given: Any) -> str | None:
    # The model has no references directly under components.schemas, so there it keeps them as unknown fields.
    ref = given.ref if isinstance(given, Reference) else (given.model_extra or {}).get("$ref")
    return ref if isinstance(ref, str) else None


def platform_type(
    given: Schema | Reference, place: str, references: References, around: tuple[Schema, ...] = ()
) -> dict[str, Any]:
    """Return the platform's type for a schema. Raises `Unfit`; `place` is where the schema is, for its message.

    `around` are the schemas that contain this one.
    """
    schema = references.resolve(given)
    if any(each is schema for each in around):
        raise Unfit(f"the schema of {place} contains itself, which no type of a function can")
    name = _single_type(schema, place)
    around = (*around, schema)
    if name == "array":
        kind = _list(schema, place, references, around)
    elif name == "object":
        kind = _object(schema, place, references, around)
    else:
        formats = SCALARS[name]
        kind = _type(formats.get(schema.schema_format, formats[None]))
    return _type("optionalType", wrappedType=kind) if getattr(schema, "nullable", False) is True else kind


def _type(name: str, **inside: Any) -> dict[str, Any]:
    return {"type": name, name: inside}


def _single_type(schema: Schema, place: str) -> str:
    name: str
    for keyword in COMBINING:
        if getattr(schema, keyword):
            raise Unfit(f"the schema of {place} uses {keyword}, which the platform excludes: give it one plain type")
    if isinstance(schema.type, list):
        names = [each.value for each in schema.type]
        if len(names) != 1:
            raise Unfit(f"the schema of {place} has several types ({', '.join(names)}): give it one")
        name = names[0]
    elif schema.type is not None:
        name = schema.type.value
    else:
        name = "object" if schema.properties else "array" if schema.items else ""
    if name not in (*SCALARS, "array", "object"):
        raise Unfit(f"the schema of {place} has {f'the type {name!r}' if name else 'no type'}: give it another one")
    return name


def _list(schema: Schema, place: str, references: References, around: tuple[Schema, ...]) -> dict[str, Any]:
    if schema.items is None:
        raise Unfit(f"the schema of {place} is an array without items: add the schema of its items")
    return _type("list", elementsType=platform_type(schema.items, f"{place}[]", references, around))


def _object(schema: Schema, place: str, references: References, around: tuple[Schema, ...]) -> dict[str, Any]:
    """Return a struct of the properties, else a map to `additionalProperties`, else a struct of any fields."""
    if schema.properties:
        fields = {
            name: platform_type(each, f"{place}.{name}", references, around) for name, each in schema.properties.items()
        }
        required = [name for name in schema.required or () if name in fields]
        return _type("anonymousCustomType", fields=fields, **({"required": required} if required else {}))
    if isinstance(schema.additionalProperties, Schema | Reference):
        values = platform_type(schema.additionalProperties, f"{place}.*", references, around)
        return _type("map", keysType=_type("string"), valuesType=values)
    return _type("anonymousCustomType")
