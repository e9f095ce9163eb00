"""Foundry's types of columns and Arrow's, each turned into the other.

pyarrow is imported where it is needed: it is in the extra `cmemu_nb[data]`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cmemu_nb.errors import ApiError
from cmemu_nb.foundry.field_schemas import MAX_PRECISION, FieldSchema, FieldType

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

# The name that Parquet gives the items of a list.
ITEM = "element"
NEEDS_EXTRA = "Reading and writing tables needs {}, which is not installed here. Type: pip install 'cmemu_nb[data]'"


def imported(name: str) -> Any:
    """Import a module of the extra `data`; an error that says how to install it if it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ApiError(400, "DatasetReadNotSupported", NEEDS_EXTRA.format(name.partition(".")[0])) from None


def arrow_schema(fields: list[FieldSchema]) -> pa.Schema:
    """Return the Arrow schema of the fields."""
    pa = imported("pyarrow")
    return pa.schema([_arrow_field(field, field.name or "") for field in fields])


def arrow_type(field: FieldSchema) -> pa.DataType:
    """Return the Arrow type of a field. A `TIMESTAMP` is an instant in UTC, in microseconds."""
    pa = imported("pyarrow")
    if field.type == "DECIMAL":
        return pa.decimal128(*field.decimal)
    if field.type == "ARRAY":
        return pa.list_(_arrow_field(_given(field.array_subtype), ITEM))
    if field.type == "MAP":
        key, value = _given(field.map_key_type), _given(field.map_value_type)
        return pa.map_(arrow_type(key), _arrow_field(value, "value"))
    if field.type == "STRUCT":
        return pa.struct([_arrow_field(each, each.name or "") for each in field.sub_schemas or ()])
    if field.type == "TIMESTAMP":
        return pa.timestamp("us", "UTC")
    return getattr(pa, _FACTORIES[field.type])()


_FACTORIES: dict[str, str] = {
    "BINARY": "binary",
    "BOOLEAN": "bool_",
    "BYTE": "int8",
    "DATE": "date32",
    "DOUBLE": "float64",
    "FLOAT": "float32",
    "INTEGER": "int32",
    "LONG": "int64",
    "SHORT": "int16",
    "STRING": "string",
}


def _arrow_field(field: FieldSchema, name: str) -> Any:
    return imported("pyarrow").field(name, arrow_type(field), nullable=field.nullable)


def _given(field: FieldSchema | None) -> FieldSchema:
    assert field is not None  # noqa: S101 - it was checked when the schema was set
    return field


def fields_of(schema: pa.Schema) -> list[FieldSchema]:
    """Return the fields of an Arrow schema. Raises the platform's error for a type that Foundry does not have."""
    return [_field(each) for each in schema]


def _field(field: pa.Field) -> FieldSchema:
    return described(field.type, field.name, nullable=field.nullable)


def described(kind: pa.DataType, name: str | None, *, nullable: bool = True) -> FieldSchema:  # noqa: PLR0911
    """Return the field that an Arrow type is; `name` is that of the column for an error, too."""
    types = imported("pyarrow").types
    common: dict[str, Any] = {"name": name, "nullable": nullable}
    if types.is_decimal(kind) and kind.precision <= MAX_PRECISION and kind.scale >= 0:
        return FieldSchema(type="DECIMAL", precision=kind.precision, scale=kind.scale, **common)
    if types.is_uint64(kind):
        return FieldSchema(type="DECIMAL", precision=20, scale=0, **common)
    if types.is_dictionary(kind):
        return described(kind.value_type, name, nullable=nullable)
    if types.is_map(kind):
        key = described(kind.key_type, None, nullable=False)
        value = described(kind.item_type, None, nullable=kind.item_field.nullable)
        return FieldSchema(type="MAP", map_key_type=key, map_value_type=value, **common)
    if types.is_struct(kind):
        return FieldSchema(type="STRUCT", sub_schemas=[_field(each) for each in kind], **common)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        item = described(kind.value_type, None, nullable=kind.value_field.nullable)
        return FieldSchema(type="ARRAY", array_subtype=item, **common)
    return FieldSchema(type=_simple(kind, name), **common)


_SIMPLE: dict[FieldType, tuple[str, ...]] = {
    "BINARY": ("binary", "large_binary", "fixed_size_binary", "binary_view"),
    "BOOLEAN": ("boolean",),
    "BYTE": ("int8",),
    "DATE": ("date",),
    "DOUBLE": ("float64",),
    "FLOAT": ("float32", "float16"),
    "INTEGER": ("int32", "uint16"),
    "LONG": ("int64", "uint32"),
    "SHORT": ("int16", "uint8"),
    "STRING": ("string", "large_string", "string_view", "null"),
    "TIMESTAMP": ("timestamp",),
}


def _simple(kind: pa.DataType, name: str | None) -> FieldType:
    types = imported("pyarrow").types
    for found, names in _SIMPLE.items():
        if any(getattr(types, f"is_{each}")(kind) for each in names):
            return found
    message = (
        f"The column {name!r} is of Arrow's type {kind}, which no dataset of Foundry has. Convert it before, to a "
        "number or to text for instance."
    )
    raise ApiError(400, "ColumnTypesNotSupported", message, columnName=name or "", arrowType=str(kind))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return an Arrow schema in which each type that Foundry does not have as it is became the nearest one.

    Categories become their values, unsigned integers larger signed ones. Timestamps keep their zone, and their unit but
    for seconds, which Parquet does not have.
    """
    pa = imported("pyarrow")
    return pa.schema([_plain_field(each) for each in schema], metadata=schema.metadata)


def with_wide_decimals(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """Return an Arrow schema in which decimals of these columns have the largest precision.

    Arrow has inferred theirs from the values, so that a larger value could not be appended.
    """
    pa = imported("pyarrow")
    wide = [
        each.with_type(pa.decimal128(MAX_PRECISION, each.type.scale))
        if each.name in names and pa.types.is_decimal(each.type)
        else each
        for each in schema
    ]
    return pa.schema(wide, metadata=schema.metadata)


def _plain_field(field: pa.Field) -> Any:
    _field(field)  # refuses what Foundry does not have
    return field.with_type(_plain(field.type))


def _plain(kind: pa.DataType) -> pa.DataType:
    pa = imported("pyarrow")
    types = pa.types
    if types.is_timestamp(kind):
        return pa.timestamp("ms" if kind.unit == "s" else kind.unit, kind.tz)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return pa.list_(pa.field(ITEM, _plain(kind.value_type), nullable=kind.value_field.nullable))
    if types.is_map(kind):
        return pa.map_(_plain(kind.key_type), pa.field("value", _plain(kind.item_type), kind.item_field.nullable))
    if types.is_struct(kind):
        return pa.struct([each.with_type(_plain(each.type)) for each in kind])
    return arrow_type(described(kind, None))
