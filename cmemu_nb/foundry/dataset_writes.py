"""Writing a whole table or file into a dataset: one transaction, from its opening to its commit."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.foundry.arrow_types import fields_of
from cmemu_nb.foundry.field_schemas import read_fields, write_fields
from cmemu_nb.foundry.tables import aligned, as_table, parquet_of, read_path, read_table, reader_of
from cmemu_nb.lifecycle.datasets import MASTER, DatasetFile, Reader, TransactionType

if TYPE_CHECKING:
    import pyarrow as pa

    from cmemu_nb.foundry.field_schemas import FieldSchema
    from cmemu_nb.lifecycle.datasets import DatasetHistory, Transaction
    from cmemu_nb.lifecycle.lifecycle import Lifecycle


@dataclass(frozen=True)
class Content:
    """A file for a dataset, and the schema that fits it; the `table` of which the file was made, if it was."""

    path: str
    body: bytes
    fields: bytes
    reader: Reader
    table: pa.Table | None = None


def content_of(data: object) -> Content:
    """Return a table as a Parquet file, or a file as it is, with the schema of its columns."""
    if isinstance(data, str | Path):
        name, body = read_path(data)
        file = DatasetFile(name, "", 0, body)
        fields = fields_of(read_table(name, [file], None).schema)
        return Content(name, body, write_fields(fields), reader_of(file, None))
    table = as_table(data)
    fields = fields_of(table.schema)
    return Content(_new_path(), parquet_of(table), write_fields(fields), Reader.PARQUET, aligned(table, fields))


def content_to_append(data: object, history: DatasetHistory, branch: str) -> Content:
    """Return the same for a branch that may have files: its columns keep their types, and new ones are added."""
    content = content_of(data)
    known = _columns(history, branch)
    if known is None:
        return content
    old, reader = known
    fields = [*old, *(each for each in read_fields(content.fields) if each.name not in {field.name for field in old})]
    reader = Reader.CSV if Reader.CSV in (reader, content.reader) else content.reader
    if isinstance(data, str | Path):
        return replace(content, fields=write_fields(fields), reader=reader)
    try:
        table = aligned(as_table(data), fields)
    except ValueError as error:
        raise InvalidRequest(f"The rows can't be appended: {error}.") from None
    return Content(content.path, parquet_of(table), write_fields(fields), reader)


def _columns(history: DatasetHistory, branch: str) -> tuple[list[FieldSchema], Reader] | None:
    """Return the columns and the reader that the schema of a branch has, without one those of its files, if any."""
    end = history.branch(branch).committed_rid
    schema, files = history.schema(end), history.view(end).values()
    if schema is not None:
        return read_fields(schema.fields), schema.reader
    if not files:
        return None
    readers = {reader_of(file, None) for file in files}
    fields = fields_of(read_table(history.dataset.rid, files, None).schema)
    return fields, Reader.CSV if Reader.CSV in readers else Reader.PARQUET


def write(lifecycle: Lifecycle, history: DatasetHistory, kind: TransactionType, branch: str, content: Content) -> None:
    """Write a file in one transaction, and set the schema if that changes."""
    transaction = upload(lifecycle, history, content.path, content.body, kind, branch)
    schema = history.schema(transaction.rid)
    if schema is None or (schema.fields, schema.reader) != (content.fields, content.reader):
        lifecycle.set_dataset_schema(history.dataset.rid, transaction.rid, branch, content.fields, content.reader)


def upload(
    lifecycle: Lifecycle,
    history: DatasetHistory,
    path: str,
    body: bytes,
    kind: TransactionType = TransactionType.UPDATE,
    branch: str = MASTER,
) -> Transaction:
    """Upload a file in a transaction of its own, and return the transaction; a file that is refused aborts it."""
    rid = history.dataset.rid
    transaction = lifecycle.open_transaction(rid, kind, branch)
    try:
        lifecycle.put_file(rid, transaction.rid, path, body)
    except BaseException:
        lifecycle.abort_transaction(rid, transaction.rid)
        raise
    return lifecycle.commit_transaction(rid, transaction.rid)


def _new_path() -> str:
    return f"part-{secrets.token_hex(4)}.parquet"
