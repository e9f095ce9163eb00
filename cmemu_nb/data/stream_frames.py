"""DataFrames as the records of streams, and back: the types of pandas for those of Foundry."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.phrases import quoted
from cmemu_nb.wire.stream_schemas import DataType, Field, FieldSchema, StreamSchema, parse
from cmemu_nb.wire.stream_values import plain_moment, python_records
from cmemu_nb.wire.value_types import fields_of_object, is_missing, kinds_of, name_of_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

DTYPES = {"byte": "int8", "short": "int16", "integer": "int32", "long": "int64"}
"""The types of pandas for Foundry's types of whole numbers."""
_OF_DTYPE = {
    **{dtype: kind for kind, dtype in DTYPES.items()},
    "uint8": "short",
    "uint16": "integer",
    "uint32": "long",
    "uint64": "long",
    "float32": "float",
    "float64": "double",
    "bool": "boolean",
    "boolean": "boolean",
    "str": "string",
    "string": "string",
}
_OF_VALUE: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "boolean"),
    (int, "long"),
    (float, "double"),
    (str, "string"),
    (Decimal, "decimal"),
    (dt.datetime, "timestamp"),
    (dt.date, "date"),
    ((bytes, bytearray), "binary"),
)
MAX_DEPTH = 32


def as_records(records: Any) -> list[Any]:
    """Return the rows of a DataFrame, or other records, as a list of mappings."""
    if "pandas.DataFrame" in kinds_of(records):
        names = [str(name) for name in records.columns]
        columns = [records.iloc[:, number].tolist() for number in range(len(names))]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if isinstance(records, Mapping) or fields_of_object(records) is not None:
        records = [records]
    if isinstance(records, str | bytes) or not hasattr(records, "__iter__"):
        raise InvalidRequest(
            f"{name_of_type(records)} can't be published. Give a DataFrame, a list of dicts, or one dict."
        )
    return [each if isinstance(each, Mapping) else fields_of_object(each) or each for each in records]


def inferred_schema(records: Any, rows: Sequence[Any]) -> StreamSchema:
    """Return the schema that records have. Raises `InvalidRequest` for a field with values of several types."""
    if "pandas.DataFrame" in kinds_of(records):
        if not records.columns.is_unique:
            raise InvalidRequest("The DataFrame has two columns of the same name. Rename one of them.")
        kinds = {str(name): _type_of_column(str(name), records[name]) for name in records.columns}
    else:
        kinds = _types_of_members("", rows, MAX_DEPTH)
    return parse(StreamSchema(tuple(Field(name, _nullable(kind)) for name, kind in kinds.items())))


def _nullable(kind: DataType) -> FieldSchema:
    return FieldSchema(kind, nullable=True)


def _type_of_column(name: str, column: pd.Series[Any]) -> DataType:
    dtype = str(column.dtype).lower()
    if dtype == "category":
        return _type_of_column(name, column.cat.categories.to_series())
    if dtype.startswith("datetime64"):
        return DataType("timestamp")
    kind = _OF_DTYPE.get(dtype)
    return _type_of(name, column.tolist(), MAX_DEPTH) if kind is None else DataType(kind)  # type: ignore[arg-type]


def _types_of_members(name: str, rows: Iterable[Any], depth: int) -> dict[str, DataType]:
    values: dict[str, list[Any]] = {}
    for row in rows:
        if not isinstance(row, Mapping):
            raise InvalidRequest(f"A record must be a dict with a value for each field, not {name_of_type(row)}.")
        for member, value in row.items():
            values.setdefault(str(member), []).append(value)
    beginning = f"{name}." if name else ""
    return {member: _type_of(f"{beginning}{member}", each, depth) for member, each in values.items()}


def _type_of(name: str, values: Iterable[Any], depth: int) -> DataType:
    given = [_plain(each) for each in values if each is not None and not is_missing(each)]
    if depth == 0:
        raise InvalidRequest(f"The field {quoted(name)} is nested more than {MAX_DEPTH} deep.")
    if given and all(isinstance(each, Mapping) for each in given):
        fields = _types_of_members(name, given, depth - 1).items()
        return DataType("struct", sub_fields=tuple(Field(member, _nullable(kind)) for member, kind in fields))
    if given and all(isinstance(each, list | tuple) for each in given):
        items = _type_of(f"{name}[]", (item for each in given for item in each), depth - 1)
        return DataType("array", items_schema=_nullable(items))
    kinds = {_type_of_value(name, each) for each in given} or {"string"}
    kinds = {"double"} if kinds == {"double", "long"} else kinds
    if len(kinds) > 1:
        raise InvalidRequest(
            f"The field {quoted(name)} has values of the types {', '.join(sorted(kinds)).upper()}. Give it values of "
            "one type, or create the stream with a schema: create(name, schema)."
        )
    return DataType(kinds.pop())  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    """Return a value of Python for one of NumPy's, also for an array."""
    value = plain_moment(value)
    return value.tolist() if type(value).__module__ == "numpy" else value


def _type_of_value(name: str, value: Any) -> str:
    for kinds, kind in _OF_VALUE:
        if isinstance(value, kinds):
            return kind
    raise InvalidRequest(
        f"The field {quoted(name)} has a value of the type {name_of_type(value)}, which no stream holds. Use numbers, "
        "texts, true and false, bytes, dates, times, decimals, lists and dicts."
    )


def frame_of(schema: StreamSchema, values: Sequence[bytes]) -> pd.DataFrame:
    """Return records as a DataFrame with a column for each field of their schema."""
    import pandas as pd  # noqa: PLC0415 - pandas is slow to import, and needed only for a frame

    records = python_records(schema, values)
    columns = {each.name: _column([record[each.name] for record in records], each) for each in schema.fields}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(records)))


def _column(values: list[Any], field: Field) -> Any:
    import numpy as np  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    kind = field.schema.data_type.type
    if kind == "timestamp":
        return pd.to_datetime(pd.Series(values, dtype=object), utc=True).astype("datetime64[us, UTC]")
    if kind in ("float", "double"):
        return np.array([np.nan if each is None else each for each in values], "f4" if kind == "float" else "f8")
    if kind == "string":
        return pd.array(values, dtype="str")
    dtype = {**DTYPES, "boolean": "bool"}.get(kind)
    if dtype is None:
        column = np.empty(len(values), dtype=object)
        column[:] = values
        return column
    nullable: Any = "boolean" if kind == "boolean" else dtype.capitalize()
    return pd.array(values, dtype=nullable) if None in values else np.array(values, dtype=dtype)
