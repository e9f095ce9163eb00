"""The fields of a dataset's schema, as Foundry's public API has them (`fieldSchemaList`) [foundry]."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from cmemu_nb.errors import ApiError

MAX_PRECISION = 38
FieldType = Literal[
    "ARRAY",
    "BINARY",
    "BOOLEAN",
    "BYTE",
    "DATE",
    "DECIMAL",
    "DOUBLE",
    "FLOAT",
    "INTEGER",
    "LONG",
    "MAP",
    "SHORT",
    "STRING",
    "STRUCT",
    "TIMESTAMP",
]


class FieldSchema(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """One field: a column, the item of an array, the key or value of a map, or a member of a struct."""

    type: FieldType
    name: str | None = None
    nullable: bool
    user_defined_type_class: str | None = None
    custom_metadata: dict[str, Any] | None = None
    array_subtype: FieldSchema | None = None
    precision: int | None = None
    scale: int | None = None
    map_key_type: FieldSchema | None = None
    map_value_type: FieldSchema | None = None
    sub_schemas: list[FieldSchema] | None = None

    @property
    def decimal(self) -> tuple[int, int]:
        """The precision and the scale of a `DECIMAL`; without them those of Spark."""
        return 10 if self.precision is None else self.precision, self.scale or 0

    def __str__(self) -> str:
        if self.type == "DECIMAL":
            return "DECIMAL({}, {})".format(*self.decimal)
        if self.type == "ARRAY":
            return f"ARRAY<{self.array_subtype}>"
        if self.type == "MAP":
            return f"MAP<{self.map_key_type}, {self.map_value_type}>"
        if self.type == "STRUCT":
            return f"STRUCT<{', '.join(f'{each.name}: {each}' for each in self.sub_schemas or ())}>"
        return self.type

    @property
    def inner(self) -> list[FieldSchema]:
        """The fields of which an array, a map or a struct consists."""
        of_containers = [self.array_subtype, self.map_key_type, self.map_value_type]
        return [*filter(None, of_containers), *(self.sub_schemas or ())]

    def same_type(self, other: FieldSchema) -> bool:
        """Return whether another field has the same type, whatever may be null in it."""
        return str(self) == str(other)


def read_fields(text: bytes) -> list[FieldSchema]:
    """Read the JSON of a `fieldSchemaList`. Raises the platform's `InvalidSchema`, which says what is wrong."""
    try:
        fields = msgspec.json.decode(text, type=list[FieldSchema])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise invalid_schema(f"fieldSchemaList can't be read: {error}") from None
    names = [field.name for field in fields]
    if not all(names) or len({*names}) < len(names):
        raise invalid_schema("Each column needs a name, and no two columns may have the same name")
    for field in fields:
        _check(field, field.name or "")
    return fields


def write_fields(fields: list[FieldSchema]) -> bytes:
    """Return the JSON of a `fieldSchemaList`."""
    return msgspec.json.encode(fields)


def invalid_schema(message: str) -> ApiError:
    """Return the error of the platform for a schema that is not valid."""
    return ApiError(400, "InvalidSchema", f"{message}.", errorType="INVALID_SCHEMA", message=message)


_NEEDED = {
    "ARRAY": {"array_subtype": "arraySubtype"},
    "MAP": {"map_key_type": "mapKeyType", "map_value_type": "mapValueType"},
    "STRUCT": {"sub_schemas": "subSchemas"},
}


def _check(field: FieldSchema, path: str) -> None:
    """Refuse a field without what its type needs."""
    needed = _NEEDED.get(field.type, {})
    if any(each is None for each in (getattr(field, name) for name in needed)):
        raise invalid_schema(f"The field {path!r} is of type {field.type}, so it needs {' and '.join(needed.values())}")
    precision, scale = field.decimal
    if field.type == "DECIMAL" and not (1 <= precision <= MAX_PRECISION and 0 <= scale <= precision):
        raise invalid_schema(f"The field {path!r} is a DECIMAL({precision}, {scale}), which no column can be")
    if field.type == "STRUCT" and not all(each.name for each in field.sub_schemas or ()):
        raise invalid_schema(f"Each member of the struct {path!r} needs a name")
    for each in field.inner:
        _check(each, f"{path}.{each.name or 'items'}")
