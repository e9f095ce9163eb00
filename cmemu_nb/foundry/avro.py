"""Avro files as Arrow tables, read with fastavro, which is in the extra `cmemu_nb[data]`."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from cmemu_nb.foundry.arrow_types import imported

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

_PRIMITIVE = {
    "boolean": "bool_",
    "int": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "bytes": "binary",
    "fixed": "binary",
    "string": "string",
    "enum": "string",
    "null": "null",
}
_TIMES = {
    "timestamp-millis": ("ms", "UTC"),
    "timestamp-micros": ("us", "UTC"),
    "timestamp-nanos": ("ns", "UTC"),
    "local-timestamp-millis": ("ms", None),
    "local-timestamp-micros": ("us", None),
}


def read_avro(body: bytes) -> pa.Table:
    """Return the records of an Avro file as a table. Raises `ValueError` for a schema that no table has."""
    pa = imported("pyarrow")
    reader = imported("fastavro").reader(io.BytesIO(body))
    schema = imported("fastavro").schema.expand_schema(reader.writer_schema)
    if schema.get("type") != "record":
        raise ValueError(f"its records are of Avro's type {schema.get('type')!r}, which have no columns")
    columns = [(field["name"], *_column(field["type"])) for field in schema["fields"]]
    rows = list(reader)
    arrays = [pa.array([convert(row[name]) for row in rows], kind) for name, kind, convert in columns]
    return pa.table(arrays, names=[name for name, *_ in columns])


def _column(schema: Any) -> tuple[pa.DataType, Callable[[Any], Any]]:  # noqa: PLR0911 - one for each kind
    """Return the Arrow type of an Avro schema, and what turns its values into those that Arrow takes."""
    pa = imported("pyarrow")
    if isinstance(schema, list):
        return _union(schema)
    if isinstance(schema, str):
        schema = {"type": schema}
    kind, logical = schema["type"], schema.get("logicalType")
    if isinstance(kind, dict | list):
        return _column(kind)
    if logical == "decimal":
        return pa.decimal128(schema["precision"], schema.get("scale", 0)), _same
    if logical in _TIMES:
        return pa.timestamp(*_TIMES[logical]), _same
    if logical == "date":
        return pa.date32(), _same
    if logical == "uuid":
        return pa.string(), lambda value: None if value is None else str(value)
    return _nested(kind, schema) if kind in ("array", "map", "record") else (getattr(pa, _PRIMITIVE[kind])(), _same)


def _nested(kind: str, schema: dict[str, Any]) -> tuple[pa.DataType, Callable[[Any], Any]]:
    pa = imported("pyarrow")
    if kind == "array":
        item, convert = _column(schema["items"])
        return pa.list_(item), _unless_none(lambda value: list(map(convert, value)))
    if kind == "map":
        item, convert = _column(schema["values"])
        return pa.map_(pa.string(), item), _unless_none(lambda value: [(key, convert(of)) for key, of in value.items()])
    members = {field["name"]: _column(field["type"]) for field in schema["fields"]}
    kinds = [(name, member) for name, (member, _) in members.items()]
    return pa.struct(kinds), _unless_none(
        lambda value: {name: convert(value[name]) for name, (_, convert) in members.items()}
    )


def _union(branches: list[Any]) -> tuple[pa.DataType, Callable[[Any], Any]]:
    given = [branch for branch in branches if branch != "null"]
    if len(given) > 1:
        raise ValueError(f"a column is a union of {len(given)} types, which no dataset has")
    return _column(given[0] if given else "null")


def _same(value: Any) -> Any:
    return value


def _unless_none(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)
