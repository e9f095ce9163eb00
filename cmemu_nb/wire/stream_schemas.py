"""The schemas of data streams, in the format of Foundry's public API [foundry] and in a short form for people.

A schema is read and written as JSON exactly as the API has it. `parse` also takes the short form, such as
`{"sensor": "STRING", "readings": "ARRAY<DOUBLE>", "place": {"lat": "DOUBLE", "lon": "DOUBLE"}}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from cmemu_nb.errors import ApiError
from cmemu_nb.phrases import closest, quoted
from cmemu_nb.wire.labels import shortened

TypeName = Literal[
    "array",
    "binary",
    "boolean",
    "byte",
    "date",
    "decimal",
    "double",
    "float",
    "integer",
    "long",
    "map",
    "short",
    "string",
    "struct",
    "timestamp",
]
TYPES: tuple[TypeName, ...] = get_args(TypeName)
WHOLE = {"byte": 8, "short": 16, "integer": 32, "long": 64}
"""The types of whole numbers, with their sizes in bits."""
KEYS = ("boolean", "byte", "date", "decimal", "integer", "long", "short", "string", "timestamp")
"""The types of fields by which records are divided among partitions."""
MAX_DIGITS = 38
MAX_DEPTH = 32
_SHORT = re.compile(r"(\w+)\s*(?:\((.*)\)|<(.*)>)?", re.DOTALL)


class DataType(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The type of a field.

    An array has `items_schema`, a map has `key_schema` and `value_schema`, and a struct has `sub_fields`.
    """

    type: TypeName
    precision: int | None = None
    scale: int | None = None
    items_schema: FieldSchema | None = None
    key_schema: FieldSchema | None = None
    value_schema: FieldSchema | None = None
    sub_fields: tuple[Field, ...] | None = None

    def __str__(self) -> str:
        """Return the type as people write it, such as `ARRAY<DOUBLE>`."""
        inner = [each.data_type for each in (self.items_schema, self.key_schema, self.value_schema) if each is not None]
        if inner:
            return f"{self.type.upper()}<{', '.join(map(str, inner))}>"
        if self.sub_fields is not None:
            return f"STRUCT<{', '.join(f'{each.name}: {each.schema.data_type}' for each in self.sub_fields)}>"
        if self.precision is not None:
            return f"DECIMAL({self.precision}, {self.scale or 0})"
        return self.type.upper()


class FieldSchema(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The type of a field, and whether it may be null."""

    data_type: DataType
    nullable: bool
    custom_metadata: dict[str, Any] | None = None


class Field(msgspec.Struct, frozen=True):
    """One field of a schema."""

    name: str
    schema: FieldSchema


class StreamSchema(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The schema of a stream. Records with the same values of the key fields are in the same partition."""

    fields: tuple[Field, ...]
    key_field_names: tuple[str, ...] | None = None
    change_data_capture: dict[str, Any] | None = None

    @property
    def in_words(self) -> str:
        """The fields with their types, on one line."""
        return ", ".join(f"{each.name} {each.schema.data_type}" for each in self.fields) or "no fields"


def parse(given: object, keys: tuple[str, ...] | None = None) -> StreamSchema:
    """Return a schema that is given in the short form or in the API's; `keys` are key fields for the short form.

    Raises the API's errors `InvalidSchema` and `InvalidFieldSchema`.
    """
    if isinstance(given, StreamSchema):
        return given
    if not isinstance(given, Mapping):
        raise invalid_schema("NotAnObject", "A stream's schema must be an object, such as {'sensor': 'STRING'}.")
    if isinstance(given.get("fields"), list | tuple):
        return _checked(_converted(given))
    return _checked(StreamSchema(_fields(given, MAX_DEPTH), keys or None))


def read(body: bytes) -> StreamSchema:
    """Return a schema from JSON text in the format of the API; raises what `parse` raises."""
    try:
        return _checked(msgspec.json.decode(body, type=StreamSchema))
    except (msgspec.DecodeError, RecursionError) as error:
        raise _unreadable(error) from None


def _converted(given: object) -> StreamSchema:
    try:
        return msgspec.convert(given, StreamSchema)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> ApiError:
    return invalid_schema("Unreadable", f"The stream's schema can't be read: {shortened(str(error), 500)}.")


# The short form


def _fields(given: Mapping[Any, object], depth: int) -> tuple[Field, ...]:
    return tuple(
        Field(_name(name), FieldSchema(_data_type(str(name), each, depth), nullable=True))
        for name, each in given.items()
    )


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise invalid_field(str(name), "The name of a field must be a string.")
    return name


def _data_type(name: str, given: object, depth: int) -> DataType:
    if depth == 0:
        raise invalid_field(name, f"A type may be nested at most {MAX_DEPTH} deep.")
    if isinstance(given, Mapping):
        return DataType("struct", sub_fields=_fields(given, depth - 1))
    text = given if isinstance(given, str) else repr(given)
    match = _SHORT.fullmatch(text.strip()) if text is given else None
    if match is None:
        raise invalid_field(name, f"{quoted(text)} is no type. {_ADVICE}")
    kind, numbers, inner = match[1].lower(), match[2], match[3]
    if kind not in TYPES or kind == "struct":
        raise invalid_field(name, f"There is no type {quoted(match[1])}.{closest(kind.upper(), _NAMES)} {_ADVICE}")
    if kind == "decimal":
        return _decimal(name, numbers, inner)
    if numbers is not None or (inner is not None) != (kind in ("array", "map")):
        raise invalid_field(name, f"{quoted(text)} is no type. {_ADVICE}")
    parts = [FieldSchema(_data_type(name, each, depth - 1), nullable=True) for each in _split(inner or "")]
    if kind == "array" and len(parts) == 1:
        return DataType("array", items_schema=parts[0])
    if kind == "map" and len(parts) == 2:  # noqa: PLR2004 - the key and the value
        return DataType("map", key_schema=parts[0], value_schema=parts[1])
    if kind in ("array", "map"):
        raise invalid_field(name, f"{quoted(text)} is no type: write ARRAY<STRING> or MAP<STRING, DOUBLE>.")
    return DataType(kind)


_NAMES = tuple(name.upper() for name in TYPES if name != "struct")
_ADVICE = f"The types are {', '.join(_NAMES)}; an object of fields is a struct."


def _decimal(name: str, numbers: str | None, inner: str | None) -> DataType:
    if inner is not None:
        raise invalid_field(name, "Write a decimal as DECIMAL or DECIMAL(10, 2).")
    if numbers is None:
        return DataType("decimal")
    digits = [each.strip() for each in numbers.split(",")]
    if not 1 <= len(digits) <= 2 or not all(each.isascii() and each.isdecimal() and len(each) <= 2 for each in digits):  # noqa: PLR2004
        raise invalid_field(name, "Write a decimal as DECIMAL or DECIMAL(10, 2).")
    return DataType("decimal", precision=int(digits[0]), scale=int(digits[1]) if len(digits) > 1 else 0)


def _split(text: str) -> list[str]:
    """Split at the commas that are not inside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "<(") - (character in ">)")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts if text.strip() else []


# Checks


def _checked(schema: StreamSchema) -> StreamSchema:
    try:
        msgspec.json.encode(schema)
    except (UnicodeEncodeError, OverflowError, TypeError, RecursionError) as error:
        raise invalid_schema("Unreadable", f"The stream's schema can't be written as JSON: {error}.") from None
    if not schema.fields:
        raise invalid_schema("NoFields", "A stream's schema needs at least one field.")
    _check_fields(schema.fields, MAX_DEPTH)
    types = {each.name: each.schema.data_type.type for each in schema.fields}
    for name in schema.key_field_names or ():
        if name not in types:
            raise invalid_schema("UnknownKeyField", f"The schema has no field {quoted(name)}, which is to be a key.")
        if types[name] not in KEYS:
            what = f"A field of type {types[name].upper()} can't be a key"
            raise invalid_schema("InvalidKeyField", f"{what}. Keys are {', '.join(map(str.upper, KEYS))}.")
    return schema


def _check_fields(fields: tuple[Field, ...], depth: int) -> None:
    names = [each.name for each in fields]
    for each in fields:
        if not each.name.strip() or names.count(each.name) > 1:
            raise invalid_field(each.name, "Each field needs a name of its own, which is not blank.")
        _check_type(each.name, each.schema.data_type, depth)


def _check_type(name: str, kind: DataType, depth: int) -> None:
    if depth == 0:
        raise invalid_field(name, f"A type may be nested at most {MAX_DEPTH} deep.")
    needed = {"array": (kind.items_schema,), "map": (kind.key_schema, kind.value_schema)}.get(kind.type, ())
    for each in needed:
        if each is None:
            raise invalid_field(name, f"The type {kind.type} lacks the schema of its parts.")
        _check_type(name, each.data_type, depth - 1)
    if kind.type == "map" and kind.key_schema is not None and kind.key_schema.data_type.type != "string":
        raise invalid_field(name, "The keys of a map must be of the type STRING here.")
    if kind.type == "struct":
        if not kind.sub_fields:
            raise invalid_field(name, "The type struct needs at least one field, as subFields.")
        _check_fields(kind.sub_fields, depth - 1)
    precision, scale = kind.precision, kind.scale
    if kind.type == "decimal" and not (
        0 < (precision or 1) <= MAX_DIGITS and 0 <= (scale or 0) <= (precision or MAX_DIGITS)
    ):
        raise invalid_field(
            name, f"A decimal has at most {MAX_DIGITS} digits, and no more after the point than in all."
        )


def invalid_schema(kind: str, message: str) -> ApiError:
    """Return the API's error for a schema as a whole."""
    return ApiError(400, "InvalidSchema", message, errorType=kind, message=message)


def invalid_field(name: str, message: str) -> ApiError:
    """Return the API's error for one field of a schema."""
    message = f"The field {quoted(name)} of the stream's schema: {message}"
    return ApiError(400, "InvalidFieldSchema", message, fieldName=shortened(name, 200), message=message)
