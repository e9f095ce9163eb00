"""The dashboard's data of the open dataset or stream: what is known of it, its newest rows, its transactions."""

from __future__ import annotations

import contextlib
from itertools import islice
from typing import TYPE_CHECKING, Any

from cmemu_nb.dashboard.data import count, seconds, version_of_dataset, version_of_stream
from cmemu_nb.dashboard.panels import Part, badge, plain
from cmemu_nb.display.text import offsets_in_words, size_in_words, when
from cmemu_nb.errors import ApiError
from cmemu_nb.foundry.summaries import committed_rid, dataset_schema, dataset_summary, stream_summary
from cmemu_nb.lifecycle.datasets import MASTER, TransactionStatus
from cmemu_nb.phrases import plural

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import pyarrow as pa

    from cmemu_nb.emulator import Emulator
    from cmemu_nb.lifecycle.data_streams import StreamLog, StreamRecord
    from cmemu_nb.lifecycle.datasets import DatasetHistory, Transaction

MAX_SHOWN = 20
MAX_COLUMNS = 20
MAX_FIELDS = 200
MAX_CELL = 80
# A value that takes more than this is not made readable.
MAX_CELL_BYTES = 1_000_000
MAX_RECORD_BYTES = 100_000
TOO_LARGE = "(too large to show)"
UNREADABLE = "(can't be shown)"
STATUSES = {TransactionStatus.OPEN: "amber", TransactionStatus.COMMITTED: "green", TransactionStatus.ABORTED: "grey"}
NUMBERS = ("BYTE", "SHORT", "INTEGER", "LONG", "FLOAT", "DOUBLE", "DECIMAL")


class Resource:
    """Makes the part of the open dataset or stream; files are decoded only when other ones are committed."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._version: Hashable = None
        self._part: Part = {}
        self._decoded: tuple[Hashable, Part] = None, {}

    def part(self, wanted: Sequence[str]) -> Part:
        """Return the part for a RID and a branch; empty if nothing is open."""
        rid, branch = (*wanted, "", "")[:2]
        if not rid:
            return {}
        state = self._emulator.lifecycle
        history, log = state.find_dataset(rid), state.find_data_stream(rid, branch)
        if history is None and log is None:
            return {"key": [rid, branch], "removed": "This was deleted."}
        found = history or log
        version = found, branch, version_of_dataset(history) if history else log and version_of_stream(log)
        if version != self._version:
            made = self._dataset(history, branch) if history else self._stream(log) if log else {}
            self._version, self._part = version, {"key": [rid, branch], **made}
        return self._part

    def _dataset(self, history: DatasetHistory, branch: str) -> Part:
        summary = dataset_summary(history, branch)
        name = f"{self._emulator.name}.datasets[{summary['name']!r}]"
        transactions = list(history.transactions.values())
        opened = [each for each in history.open_transactions() if each.branch == branch]
        at = "" if branch == MASTER else f"{branch!r}"
        return {
            "kind": "dataset",
            "name": plain(summary["name"]),
            "rid": summary["rid"],
            "branches": [{"value": each, "words": plain(each, 60)} for each in summary["branches"]],
            "facts": [
                ["rows", count(summary["rows"])],
                ["files", f"{count(summary['files'])} with {size_in_words(summary['bytes'])}"],
                ["created", when(history.dataset.created_at)],
                ["in a cell", plain(f"{name}.frame({at})", 200)],
            ],
            "open": plain(_open_in_words(opened[0], f"{name}.abort({at})"), 400) if opened else "",
            "open_rid": opened[0].rid if opened else "",
            "fields": _fields(dataset_schema(history, committed_rid(history, branch))),
            "preview": self._preview(history, branch, summary["rows"]),
            "transactions": [_transaction(history, each) for each in transactions[: -MAX_SHOWN - 1 : -1]],
            "every_transaction": len(transactions),
        }

    def _preview(self, history: DatasetHistory, branch: str, rows: int | None) -> Part:
        """Return the newest rows; the files are decoded when others are committed, or the schema is another one."""
        end = committed_rid(history, branch)
        schema = history.schema(end)
        version = history, end, schema and schema.version_id
        if version != self._decoded[0]:
            self._decoded = version, _rows(history, end, rows)
        return self._decoded[1]

    def _stream(self, log: StreamLog) -> Part:
        summary, stream = stream_summary(log), log.stream
        state, rid = self._emulator.lifecycle, stream.rid
        branches = [each.branch for each in state.data_streams() if each.rid == rid]
        at = "" if state.find_data_stream(stream.name) is log else f".on({stream.branch!r})"
        types = {each.name: str(each.schema.data_type) for each in stream.schema.fields}
        return {
            "kind": "stream",
            "name": plain(stream.name),
            "rid": rid,
            "branches": [{"value": each, "words": plain(each, 60)} for each in branches],
            "facts": [
                ["records", f"{count(summary['records'])} kept with {size_in_words(summary['bytes'])}"],
                ["published", f"{count(summary['published'])} since the last reset"],
                ["end offsets", plain(offsets_in_words(summary["end_offsets"]), 400)],
                ["view", stream.view_rid],
                ["created", when(stream.created_at)],
                ["in a cell", plain(f"{self._emulator.name}.streams[{stream.name!r}]{at}.frame()", 200)],
            ],
            "fields": _fields(types),
            "preview": _records(log, types),
        }


def _open_in_words(transaction: Transaction, abort: str) -> str:
    return (
        f"A transaction of type {transaction.kind} is open since {when(transaction.created_at)}: nobody sees its files "
        f"until it is committed. If its module has ended, {abort} aborts it."
    )


def _transaction(history: DatasetHistory, transaction: Transaction) -> Part:
    return {
        "rid": transaction.rid,
        "state": badge(transaction.status.lower(), STATUSES[transaction.status]),
        "type": str(transaction.kind),
        "branch": plain(transaction.branch, 60),
        "files": count(len(history.files.get(transaction.rid, {}))),
        "opened": seconds(transaction.created_at),
        "closed": seconds(transaction.closed_at),
    }


def _fields(types: Mapping[str, str]) -> Part:
    shown = [[plain(name), plain(kind, 300)] for name, kind in islice(types.items(), MAX_FIELDS)]
    return {"shown": shown, "more": count(len(types) - len(shown)) if len(types) > len(shown) else ""}


# The newest rows of a dataset


def _rows(history: DatasetHistory, end: str | None, rows: int | None) -> Part:
    from cmemu_nb.foundry.previews import newest_rows  # noqa: PLC0415 - only a dataset needs what reads tables

    files, schema = history.view(end), history.schema(end)
    if not files and schema is None:
        return {"columns": [], "rows": [], "note": "Nothing is committed on this branch."}
    try:
        table, newest = newest_rows(history.dataset.rid, files.values(), schema, MAX_SHOWN, MAX_COLUMNS)
    except ApiError as error:
        return {"columns": [], "rows": [], "note": plain(error, 600)}
    names = dataset_schema(history, end)
    found = list(zip(table.column_names, table.columns, strict=True))
    columns = [(name, names.get(name) or _type_of(column)) for name, column in found]
    cells = [_cells(column) for _, column in found]
    return {
        "columns": [_column(name, kind) for name, kind in columns],
        "rows": [list(row) for row in zip(*cells, strict=True)][:: -1 if newest else 1],
        "newest": newest,
        "note": _note(len(table), rows, len(names) - len(columns), newest=newest),
    }


def _type_of(column: pa.ChunkedArray) -> str:
    from cmemu_nb.foundry.arrow_types import described  # noqa: PLC0415

    try:
        return str(described(column.type, ""))
    except (ApiError, ValueError, TypeError):
        return str(column.type)


def _column(name: str, kind: str) -> Part:
    return {"name": plain(name, MAX_CELL), "type": plain(kind, MAX_CELL), "number": kind.startswith(NUMBERS)}


def _cells(column: pa.ChunkedArray) -> list[str | None]:
    """Return the values of a column as texts; None is null."""
    if column.nbytes > MAX_CELL_BYTES:
        return [TOO_LARGE] * len(column)
    # There are times that Python can't represent, and texts in damaged files that are not UTF-8.
    for read in (column.to_pylist, lambda: column.cast("string").to_pylist()):
        with contextlib.suppress(ValueError, OverflowError, TypeError, NotImplementedError):
            return [_cell(value) for value in read()]
    return [UNREADABLE] * len(column)


def _cell(value: Any) -> str | None:
    return None if value is None else plain(value, MAX_CELL)


def _note(shown: int, rows: int | None, more_columns: int, *, newest: bool) -> str:
    columns = f", without {plural(more_columns, 'further column')}" if more_columns > 0 else ""
    if rows == 0 or not shown:
        return "There are no rows."
    if rows is not None and shown >= rows:
        return f"All rows{columns}." if columns else ""
    every = "" if rows is None else f" of {rows:,}"
    if newest:
        return f"The last {plural(shown, 'row')}{every}, the newest first{columns}."
    return f"The first {plural(shown, 'row')}{every}{columns}; the file is too large for a preview of the last ones."


# The newest records of a stream


def _records(log: StreamLog, types: Mapping[str, str]) -> Part:
    records = log.newest(MAX_SHOWN)
    names = list(types)[:MAX_COLUMNS]
    kept = len(log.arrived)
    more = f", without {plural(len(types) - len(names), 'further field')}" if len(types) > len(names) else ""
    return {
        "columns": [
            {"name": "partition: offset", "type": "", "number": False},
            *(_column(name, types[name]) for name in names),
        ],
        "rows": [_record(log, each, names) for each in reversed(records)],
        "note": f"The last {plural(len(records), 'record')} of {kept:,}, the newest first{more}." if records else "",
    }


def _record(log: StreamLog, record: StreamRecord, names: Sequence[str]) -> list[str | None]:
    place = f"{record.partition}: {record.offset}"
    if len(record.value) > MAX_RECORD_BYTES:
        return [place, *[TOO_LARGE] * len(names)]
    values = log.reader.python(record.value)
    return [place, *(_cell(values[name]) for name in names)]
