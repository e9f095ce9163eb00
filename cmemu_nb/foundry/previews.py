"""The newest rows of a dataset, without decoding more of its files than a preview needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmemu_nb.foundry.arrow_types import imported
from cmemu_nb.foundry.field_schemas import read_fields
from cmemu_nb.foundry.tables import TOGETHER, aligned, joined, parts_of, read_file, reader_of, reading
from cmemu_nb.lifecycle.datasets import Reader
from cmemu_nb.phrases import plural, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from cmemu_nb.foundry.field_schemas import FieldSchema
    from cmemu_nb.lifecycle.datasets import DatasetFile, DatasetSchema

# How much of a file is decoded: of Parquet a group of rows, of the others the whole file.
MAX_GROUP_BYTES = 32 * 1024**2
MAX_GROUP_CELLS = 4_000_000
MAX_BYTES = {Reader.CSV: 4 * 1024**2, Reader.AVRO: 1024**2}
MAX_PARTS = 20


def newest_rows(
    rid: str, files: Iterable[DatasetFile], schema: DatasetSchema | None, most: int, columns: int
) -> tuple[pa.Table, bool]:
    """Return at most `most` rows of the files of a view, and whether they are the last ones.

    The last file comes last; of a Parquet file without small groups of rows, the first rows are taken. Only the first
    `columns` columns are read. Raises the platform's `ReadTableError` for a file that can't be read, or is too large.
    """
    fields = None if schema is None else read_fields(schema.fields)[:columns]
    tables: list[pa.Table] = []
    newest, left = True, most
    for file in reversed(parts_of(files)):
        with reading(rid, f"The file {quoted(file.path)}"):
            table, whole = _rows_of(file, schema, fields, left, columns)
            tables.insert(0, aligned(table, fields))
        newest, left = newest and whole, left - len(table)
        if left <= 0 or len(tables) >= MAX_PARTS or not whole:
            break
    with reading(rid, TOGETHER):
        return joined(tables, fields), newest


def _rows_of(
    file: DatasetFile, schema: DatasetSchema | None, fields: list[FieldSchema] | None, most: int, columns: int
) -> tuple[pa.Table, bool]:
    """Return the last rows of a file, or the first ones and False."""
    form = reader_of(file, schema)
    if form == Reader.PARQUET:
        return _parquet_rows(file, fields, most, columns)
    if file.size > MAX_BYTES[form]:
        raise ValueError(f"it has {plural(file.size, 'byte')}, too many for a preview")
    table = read_file(file, schema, None if schema is None else read_fields(schema.fields))
    return table.select(table.column_names[:columns]).slice(max(0, len(table) - most)), True


def _parquet_rows(
    file: DatasetFile, fields: list[FieldSchema] | None, most: int, columns: int
) -> tuple[pa.Table, bool]:
    pa = imported("pyarrow")
    parquet = imported("pyarrow.parquet").ParquetFile(pa.BufferReader(file.body))
    present = parquet.schema_arrow.names
    names = present[:columns] if fields is None else [field.name for field in fields if field.name in present]
    groups: list[Any] = []
    for number in reversed(range(parquet.num_row_groups)):
        group = parquet.metadata.row_group(number)
        if group.total_byte_size > MAX_GROUP_BYTES or group.num_rows * len(names) > MAX_GROUP_CELLS:
            batches = parquet.iter_batches(most, columns=names)
            return pa.Table.from_batches([next(batches)]), False
        groups.insert(0, parquet.read_row_group(number, columns=names, use_threads=False))
        if sum(map(len, groups)) >= most:
            break
    table = pa.concat_tables(groups) if groups else parquet.schema_arrow.empty_table().select(names)
    return table.slice(max(0, len(table) - most)), True
