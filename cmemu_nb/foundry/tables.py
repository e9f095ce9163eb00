"""The files of a dataset as one table: Parquet, CSV and Avro, read and written with pyarrow and fastavro.

Both are in the extra `cmemu_nb[data]` and imported when they are needed. A table is always an Arrow table here.
"""

from __future__ import annotations

import contextlib
import csv
import io
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cmemu_nb.errors import ApiError, InvalidRequest
from cmemu_nb.foundry.arrow_types import arrow_schema, described, imported, plain_schema, with_wide_decimals
from cmemu_nb.foundry.avro import read_avro
from cmemu_nb.foundry.field_schemas import FieldSchema, read_fields
from cmemu_nb.lifecycle.datasets import Reader
from cmemu_nb.phrases import abbreviated, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd
    import pyarrow as pa

    from cmemu_nb.lifecycle.datasets import DatasetFile, DatasetSchema

TOGETHER = "Each file can be read, but all of them together"
MAX_COUNTED_FILES = 1_000
MAX_COUNTS = 10_000
_counted: dict[tuple[str, str, int], int] = {}
_BEGINNINGS = {b"PAR1": Reader.PARQUET, b"Obj\x01": Reader.AVRO}


def read_table(rid: str, files: Iterable[DatasetFile], schema: DatasetSchema | None) -> pa.Table:
    """Return the files of a view as one table, with the columns and types of the schema if there is one.

    Files whose names begin with a dot or an underscore are no part of a table, as in Spark. Raises the platform's
    `ReadTableError` for a file that can't be read, which names it.
    """
    fields = None if schema is None else read_fields(schema.fields)
    tables = []
    for file in parts_of(files):
        with reading(rid, f"The file {quoted(file.path)}"):
            tables.append(aligned(read_file(file, schema, fields), fields))
    with reading(rid, TOGETHER):
        return joined(tables, fields)


@contextlib.contextmanager
def reading(rid: str, what: str) -> Iterator[None]:
    """Raise the platform's `ReadTableError` for what can't be read as a table, such as a file, which it names."""
    try:
        yield
    except ApiError:
        raise
    except Exception as error:  # pyarrow and fastavro raise errors of many types for files that are damaged
        message = f"{what} can't be read as a table: {str(error) or type(error).__name__}"
        raise ApiError(500, "ReadTableError", message, datasetRid=rid, message=message) from error


def parts_of(files: Iterable[DatasetFile]) -> list[DatasetFile]:
    """Return the files of which a table consists."""
    return [file for file in files if PurePosixPath(file.path).name[:1] not in (".", "_")]


def count_rows(files: Iterable[DatasetFile]) -> int | None:
    """Return how many rows a table of Parquet files has, by their footers.

    None if a file is not Parquet or damaged, if there are very many files, or if pyarrow is missing.
    """
    parts = parts_of(files)
    if len(parts) > MAX_COUNTED_FILES or any(file.body[:4] != b"PAR1" for file in parts):
        return None
    try:
        return sum(map(_row_count, parts))
    except (ApiError, ValueError, OSError, NotImplementedError):
        return None


def _row_count(file: DatasetFile) -> int:
    """Return how many rows a Parquet file has; the numbers are kept, because those who list datasets ask often."""
    key = file.transaction_rid, file.path, file.updated_at
    count = _counted.get(key)
    if count is None:
        pa, parquet = imported("pyarrow"), imported("pyarrow.parquet")
        count = int(parquet.read_metadata(pa.BufferReader(file.body)).num_rows)
        if len(_counted) >= MAX_COUNTS:
            _counted.clear()
        _counted[key] = count
    return count


def reader_of(file: DatasetFile, schema: DatasetSchema | None) -> Reader:
    """Return the format of a file: by its first bytes, and otherwise CSV."""
    found = _BEGINNINGS.get(file.body[:4], Reader.CSV)
    if found == Reader.CSV and schema is not None and schema.reader not in (Reader.CSV, Reader.DATASOURCE):
        raise ValueError(
            f"the schema says that it is {schema.reader}, and it is not. Set the schema with dataframeReader CSV"
        )
    return found


def read_file(file: DatasetFile, schema: DatasetSchema | None, fields: list[FieldSchema] | None) -> pa.Table:
    """Return a file as a table, as it is."""
    reader = reader_of(file, schema)
    if reader == Reader.PARQUET:
        return imported("pyarrow.parquet").read_table(imported("pyarrow").BufferReader(file.body))
    return read_avro(file.body) if reader == Reader.AVRO else _read_csv(file.body, fields)


def _read_csv(body: bytes, fields: list[FieldSchema] | None) -> pa.Table:
    """Read a CSV file. Only a field without quotes can be null, if it is empty.

    With a schema, the first line is a header if it has the names of the columns.
    """
    pa, arrow_csv = imported("pyarrow"), imported("pyarrow.csv")
    if not body.strip():
        return arrow_schema(fields or []).empty_table()
    options: dict[str, Any] = {"strings_can_be_null": True, "quoted_strings_can_be_null": False, "null_values": [""]}
    if fields is None:
        return arrow_csv.read_csv(pa.BufferReader(body), convert_options=arrow_csv.ConvertOptions(**options))
    names = [field.name or "" for field in fields]
    first = next(csv.reader(io.StringIO(body[: 1 << 20].decode(errors="replace"), newline="")), [])
    header = {*first} >= {*names} or {*names} >= {*first}
    read = arrow_csv.ReadOptions(**({} if header else {"column_names": names}))
    plain = [field for field in fields if field.type not in ("ARRAY", "MAP", "STRUCT", "TIMESTAMP")]
    types = {field.name: arrow_schema([field]).field(0).type for field in plain}
    types |= {field.name: pa.string() for field in fields if field not in plain}
    convert = arrow_csv.ConvertOptions(**options, column_types=types)
    return arrow_csv.read_csv(pa.BufferReader(body), read_options=read, convert_options=convert)


def aligned(table: pa.Table, fields: list[FieldSchema] | None) -> pa.Table:
    """Return a table with the columns of the fields, in their order.

    A column that has the right type for Foundry stays as it is, with its time zone for instance; one without any value
    has Arrow's type null.
    """
    if fields is None:
        return table
    pa, wanted = imported("pyarrow"), arrow_schema(fields)
    columns, found = [], []
    for field, target in zip(fields, wanted, strict=True):
        if field.name not in table.column_names:
            column = pa.nulls(len(table))
        else:
            column = table.column(field.name)
            if not (pa.types.is_null(column.type) or described(column.type, field.name).same_type(field)):
                column = _cast(column, target.type, field.name or "")
        columns.append(column)
        found.append(pa.field(target.name, column.type, nullable=True))
    # What pandas has noted there is about all columns.
    metadata = table.schema.metadata if table.column_names == wanted.names else None
    return pa.Table.from_arrays(columns, schema=pa.schema(found, metadata=metadata))


def _cast(column: pa.ChunkedArray, target: pa.DataType, name: str) -> pa.ChunkedArray:
    pa, compute = imported("pyarrow"), imported("pyarrow.compute")
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column), target)])
    try:
        if pa.types.is_timestamp(target) and pa.types.is_string(column.type):
            return _instants(column, target)
        if pa.types.is_decimal(target) and pa.types.is_integer(column.type):
            column = compute.cast(column, pa.decimal128(38, target.scale))  # any integer fits into it
        return compute.cast(column, target)
    except pa.ArrowException as error:
        raise ValueError(f"the column {name!r} does not fit the schema: {error}") from None


def _instants(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """Return times from a CSV file; those without a zone are in UTC."""
    pa, compute = imported("pyarrow"), imported("pyarrow.compute")
    try:
        return compute.cast(column, target)
    except pa.ArrowInvalid:
        return compute.assume_timezone(compute.cast(column, pa.timestamp(target.unit)), "UTC")


def joined(tables: list[pa.Table], fields: list[FieldSchema] | None) -> pa.Table:
    """Return the tables of files one after the other."""
    pa = imported("pyarrow")
    if not tables:
        return arrow_schema(fields or []).empty_table()
    if fields is None:
        return pa.concat_tables(tables, promote_options="permissive")
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException:
        # Each has the same types for Foundry, but they differ as Arrow's: in a time zone, for instance.
        table = pa.concat_tables([each.cast(arrow_schema(fields), safe=False) for each in tables])
    for number, target in enumerate(arrow_schema(fields)):
        if pa.types.is_null(table.field(number).type):
            table = table.set_column(number, target, table.column(number).cast(target.type))
    return table


def chosen(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """Return a table with some of its columns, all by default. Raises `InvalidRequest` for an unknown one."""
    if columns is None:
        return table
    unknown = [name for name in columns if name not in table.column_names]
    if unknown:
        have = ", ".join(map(quoted, islice(table.column_names, 20)))
        raise InvalidRequest(f"Reading a table: there is no column {quoted(unknown[0])}. The columns are {have}.")
    return table.select(list(columns))


# From and to Python


def as_table(data: object) -> pa.Table:
    """Return a DataFrame, an Arrow table, or rows as dicts, as an Arrow table with types that Foundry has.

    A DataFrame's index becomes a column if it has a name. Raises `InvalidRequest` for what is none of these or has
    values that no column can hold.
    """
    import pandas as pd  # noqa: PLC0415 - it takes long to import

    pa = imported("pyarrow")
    try:
        if isinstance(data, pd.DataFrame):
            data = data.reset_index() if any(name is not None for name in data.index.names) else data
            table = pa.Table.from_pandas(data, preserve_index=False)
            inferred = [str(name) for name, kind in data.dtypes.items() if str(kind) == "object"]
        elif isinstance(data, list):
            inferred = [*dict.fromkeys(name for row in data for name in row)]
            table = pa.table({name: [row.get(name) for row in data] for name in inferred})
        elif hasattr(data, "__arrow_c_stream__"):
            table, inferred = pa.table(data), []
        else:
            raise InvalidRequest(_no_table(data))
        return table.cast(with_wide_decimals(plain_schema(table.schema), inferred))
    except (pa.ArrowException, TypeError, AttributeError, ValueError) as error:
        raise InvalidRequest(f"The data can't become a table: {error}") from None


def _no_table(data: object) -> str:
    return (
        f"A dataset can't be made of {abbreviated(data)}. Give a DataFrame, an Arrow table, a list of dicts, or the "
        "path of a CSV, Parquet or Avro file."
    )


def parquet_of(table: pa.Table) -> bytes:
    """Return a table as a Parquet file. It is not compressed, because it is read more often than it is kept."""
    sink = io.BytesIO()
    imported("pyarrow.parquet").write_table(table, sink, compression="none")
    return sink.getvalue()


def read_path(path: str | Path) -> tuple[str, bytes]:
    """Return the name and the bytes of a file. Raises `InvalidRequest` if it can't be read."""
    path = Path(path).expanduser()
    try:
        return path.name, path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"The file {str(path)!r} can't be read: {error.strerror}.") from None


def frame_of(table: pa.Table) -> pd.DataFrame:
    """Return a table as a DataFrame in which integers and booleans with nulls, and nested ones, stay what they are."""
    import pandas as pd  # noqa: PLC0415 - it takes long to import

    pa = imported("pyarrow")
    nullable: Mapping[Any, Any] = {
        pa.bool_(): pd.BooleanDtype(),
        pa.int8(): pd.Int8Dtype(),
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
    }
    frame: pd.DataFrame = table.to_pandas()
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_nested(column.type):
            # Arrow would turn integers in it into floats if one is null.
            frame[name] = pd.Series(column.to_pylist(), frame.index, dtype=object)
        elif column.null_count and column.type in nullable and not pd.api.types.is_extension_array_dtype(frame[name]):
            frame[name] = column.to_pandas(types_mapper=nullable.get)
    return frame
