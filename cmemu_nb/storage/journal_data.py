"""The datasets and data streams in a journal.

Each record is a row of `data`, by its RID and its name there: the kind and what identifies it, as JSON. The bytes of
files are in `contents`, in pieces of at most `PIECE_BYTES`, so that a large file can be written between other changes;
a file's row has the number of its content. The records of streams are in `batches`, a row for what was published
together. Rows of contents and batches never change: what a job or a small change writes does not depend on their size.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from cmemu_nb.lifecycle.data_changes import EVERYTHING, Change
from cmemu_nb.lifecycle.data_streams import DataStream, StreamRecord, Subscriber
from cmemu_nb.lifecycle.datasets import Branch, Dataset, DatasetFile, DatasetSchema, Transaction
from cmemu_nb.lifecycle.snapshot import SavedDataset, SavedStream

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

    from cmemu_nb.lifecycle.data_changes import DataChanges, Name
    from cmemu_nb.lifecycle.data_streams import StreamLog
    from cmemu_nb.lifecycle.datasets import DatasetHistory
    from cmemu_nb.lifecycle.state import State
    from cmemu_nb.storage.journal_tables import Tables

T = TypeVar("T")

PIECE_BYTES = 1024 * 1024
PIECE_BITS = 20
"""A piece's key is the number of its content, followed by so many bits for the number of the piece."""
MAX_BATCH = 1000
DISCARDED_AT_ONCE = 16


class FileRow(msgspec.Struct, frozen=True):
    """A file without its bytes; an empty one has no content."""

    updated_at: int
    size: int
    content: int | None


class LogRow(msgspec.Struct, frozen=True):
    """The state of the stream on a branch: `kept` of the records that were `published` to the view are in batches."""

    view_rid: str
    ends: list[int]
    published: int
    kept: int


class SavedData(NamedTuple):
    """The datasets, the data streams and the subscribers of a journal."""

    datasets: list[SavedDataset]
    streams: list[SavedStream]
    subscribers: list[Subscriber]


def _name(name: Name) -> str:
    return msgspec.json.encode(name).decode()


class DataRows:
    """Writes datasets and data streams to the tables of a journal, in a transaction.

    `written` are contents that are in the file already, by the `id()` of their bytes; `used` are all contents of the
    files that were written, and `discarded` those that no file has any more.
    """

    def __init__(self, tables: Tables, written: dict[int, int] | None = None) -> None:
        self._tables = tables
        self._connection = tables.connection
        self._written = written or {}
        self.used: set[int] = set()
        self.discarded: list[int] = []

    def write(self, state: State, changes: DataChanges) -> None:
        """Write what has changed."""
        for rid, name, change in changes:
            if name == EVERYTHING:
                self._delete_everything(rid)
                continue
            if change is not Change.PUT:
                self._delete(rid, name)
            self._put_current(state, rid, name)

    def _put_current(self, state: State, rid: str, name: Name) -> None:
        kind, *ids = name
        if kind == "log":
            log = state.find_data_stream(rid, ids[0])
            if log is not None:
                self.put_log(log)
        elif kind in ("stream", "subscriber"):
            self._put_if_any(rid, name, _stream_record(state, rid, kind, ids[0]))
        elif (history := state.find_dataset(rid)) is not None:
            if kind == "file":
                transaction, path = ids
                files = history.files.get(transaction, {})
                if path in files:
                    self.put_file(rid, transaction, path, files[path])
            else:
                self._put_if_any(rid, name, _dataset_record(history, kind, ids))

    def _put_if_any(self, rid: str, name: Name, record: object | None) -> None:
        if record is not None:
            self.put(rid, name, record)

    def put(self, rid: str, name: Name, record: object) -> int:
        """Insert or update a record, and return its position."""
        position, _ = self._find(rid, name)
        if position is None:
            (position,) = self._connection.execute("SELECT coalesce(max(position), 0) + 1 FROM data").fetchone()
        self._tables.put("data", position, rid, _name(name), msgspec.json.encode(record))
        return position

    def _find(self, rid: str, name: Name) -> tuple[int | None, bytes]:
        query = "SELECT position, record FROM data WHERE rid = ? AND name = ?"
        return self._connection.execute(query, (rid, _name(name))).fetchone() or (None, b"null")

    def _delete(self, rid: str, name: Name) -> None:
        position, record = self._find(rid, name)
        if position is not None:
            self._discard_content(name[0], record)
            self._tables.delete("data", position)

    def _delete_everything(self, rid: str) -> None:
        query = "SELECT position, name, record FROM data WHERE rid = ?"
        for position, name, record in self._connection.execute(query, (rid,)).fetchall():
            kind = msgspec.json.decode(name)[0]
            self._discard_content(kind, record)
            if kind == "log":
                self._tables.delete_where("batches", "log = ?", position)
        self._tables.delete_where("data", "rid = ?", rid)

    def _discard_content(self, kind: str, record: bytes) -> None:
        file = msgspec.json.decode(record, type=FileRow | None) if kind == "file" else None
        if file is not None and file.content is not None:
            self.discarded.append(file.content)

    # The bytes of files

    def put_file(self, rid: str, transaction_rid: str, path: str, file: DatasetFile | None) -> None:
        """Insert or replace a file with its bytes, or the deletion of one."""
        name = ("file", transaction_rid, path)
        self._discard_content("file", self._find(rid, name)[1])
        self.put(rid, name, file and FileRow(file.updated_at, file.size, self._content_of(file.body)))

    def _content_of(self, body: bytes) -> int | None:
        if not body:
            return None
        content = self._written.pop(id(body), None)  # each file has a content of its own
        if content is None:
            content = self._tables.new_content()
            for number in range(pieces_of(body)):
                self.put_piece(content, number, body)
        self.used.add(content)
        return content

    def put_piece(self, content: int, number: int, body: bytes) -> None:
        """Write one piece of the bytes of a file, which are the content of this number."""
        piece = body[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
        self._tables.put("contents", (content << PIECE_BITS) + number, piece)

    def delete_pieces(self, content: int) -> bool:
        """Delete some pieces of a content that no file has, the last ones first; return whether others are left."""
        query = "SELECT id FROM contents WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT ?"
        found = self._connection.execute(query, (*_keys(content), DISCARDED_AT_ONCE)).fetchall()
        for (key,) in found:
            self._tables.delete("contents", key)
        return bool(found) and found[-1][0] != _keys(content)[0]

    # The records of streams

    def put_log(self, log: StreamLog) -> None:
        """Write what was published to the stream on a branch since it was written, and delete what was dropped."""
        name = ("log", log.stream.branch)
        position, record = self._find(log.stream.rid, name)
        old = msgspec.json.decode(record, type=LogRow | None)
        begin = old.published if old is not None and old.view_rid == log.stream.view_rid else 0
        if old is not None and not begin:
            self._tables.delete_where("batches", "log = ?", position)
        kept = len(log.arrived)
        row = LogRow(log.stream.view_rid, log.ends, log.published, kept)
        position = self.put(log.stream.rid, name, row)
        first = log.published - kept
        new = log.newest(min(log.published - begin, kept))
        self._put_batches(position, log.published - len(new), new)
        self._tables.delete_where("batches", "log = ? AND last < ?", position, first)

    def _put_batches(self, log: int, first: int, records: Sequence[StreamRecord]) -> None:
        (key,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM batches").fetchone()
        for number, batch in enumerate(_batches(records), 1):
            first += len(batch)
            fields = [(each.partition, each.offset, each.published_at, each.value) for each in batch]
            self._tables.put("batches", key + number, log, first - 1, msgspec.msgpack.encode(fields))

    # Everything

    def write_saved(
        self, datasets: Iterable[SavedDataset], streams: Iterable[SavedStream], subscribers: Iterable[Subscriber]
    ) -> None:
        """Write datasets, data streams and subscribers to empty tables."""
        for dataset in datasets:
            self._write_dataset(dataset)
        for saved in streams:
            rid, branch = saved.stream.rid, saved.stream.branch
            self.put(rid, ("stream", branch), saved.stream)
            row = LogRow(saved.stream.view_rid, saved.ends, saved.published, len(saved.records))
            self._put_batches(self.put(rid, ("log", branch), row), saved.published - row.kept, saved.records)
        for subscriber in subscribers:
            self.put(subscriber.rid, ("subscriber", subscriber.subscriber_id), subscriber)

    def _write_dataset(self, saved: SavedDataset) -> None:
        rid = saved.dataset.rid
        self.put(rid, ("dataset",), saved.dataset)
        for branch in saved.branches:
            self.put(rid, ("branch", branch.name), branch)
        for transaction in saved.transactions:
            self.put(rid, ("transaction", transaction.rid), transaction)
        for transaction_rid, path, file in saved.files:
            self.put_file(rid, transaction_rid, path, file)
        for schema in saved.schemas:
            self.put(rid, ("schema", schema.transaction_rid, schema.version_id), schema)


def pieces_of(body: bytes) -> int:
    """Return in how many pieces the bytes of a file are written."""
    return -(-len(body) // PIECE_BYTES)


def _keys(content: int) -> tuple[int, int]:
    return content << PIECE_BITS, (content + 1 << PIECE_BITS) - 1


def _batches(records: Sequence[StreamRecord]) -> Iterator[list[StreamRecord]]:
    batch: list[StreamRecord] = []
    size = 0
    for record in records:
        if batch and (len(batch) == MAX_BATCH or size + len(record.value) > PIECE_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record.value)
    if batch:
        yield batch


def _stream_record(state: State, rid: str, kind: str, name: str) -> object | None:
    if kind == "subscriber":
        return next((each for each in state.subscribers() if each.subscriber_id == name), None)
    log = state.find_data_stream(rid, name)
    return log and log.stream


def _dataset_record(history: DatasetHistory, kind: str, ids: Sequence[str]) -> object | None:
    if kind == "dataset":
        return history.dataset
    if kind == "branch":
        return history.branches.get(ids[0])
    if kind == "transaction":
        return history.transactions.get(ids[0])
    return next((each for each in history.schemas.get(ids[0], ()) if each.version_id == ids[1]), None)


# Reading


class _Records:
    """The records of one RID, in the order in which they were added."""

    def __init__(self) -> None:
        self._of: defaultdict[str, list[tuple[Sequence[str], int, bytes]]] = defaultdict(list)

    def add(self, name: str, position: int, record: bytes) -> None:
        kind, *ids = msgspec.json.decode(name)
        self._of[kind].append((ids, position, record))

    def rows(self, kind: str) -> list[tuple[Sequence[str], int, bytes]]:
        return self._of[kind]

    def all(self, kind: str, of: type[T]) -> list[T]:
        return [msgspec.json.decode(record, type=of) for _, _, record in self._of[kind]]


def read_data(connection: sqlite3.Connection, lost: list[str] | None = None) -> SavedData:
    """Return the datasets, data streams and subscribers of a journal.

    What lacks a part, such as a file or a dataset, is left out and described in the list `lost`; without such a list it
    raises a `ValueError`.
    """
    by_rid: defaultdict[str, _Records] = defaultdict(_Records)
    for rid, name, position, record in connection.execute(
        "SELECT rid, name, position, record FROM data ORDER BY position"
    ):
        by_rid[rid].add(name, position, record)
    reader = _Reader(connection, lost)
    datasets: list[SavedDataset] = []
    streams: list[SavedStream] = []
    subscribers: list[Subscriber] = []
    for records in by_rid.values():
        datasets += reader.datasets(records)
        of_rid = reader.streams(records)
        streams += of_rid
        subscribers += records.all("subscriber", Subscriber) if of_rid else []
    return SavedData(datasets, streams, subscribers)


class _Reader:
    """Reads the records of one RID after the other."""

    def __init__(self, connection: sqlite3.Connection, lost: list[str] | None) -> None:
        self._connection = connection
        self._lost = lost

    def datasets(self, records: _Records) -> list[SavedDataset]:
        found = []
        for dataset in records.all("dataset", Dataset):
            schemas = records.all("schema", DatasetSchema)
            parts = records.all("branch", Branch), records.all("transaction", Transaction)
            try:
                found.append(SavedDataset(dataset, *parts, list(self._files(dataset, records)), schemas))
            except ValueError as error:
                self._report(error)
        return found

    def _report(self, error: ValueError) -> None:
        if self._lost is None:
            raise error
        self._lost.append(str(error))

    def _files(self, dataset: Dataset, records: _Records) -> Iterator[tuple[str, str, DatasetFile | None]]:
        for (transaction, path), _, record in records.rows("file"):
            row = msgspec.json.decode(record, type=FileRow | None)
            if row is None:
                yield transaction, path, None
                continue
            body = self._body(row.content)
            if len(body) == row.size:
                yield transaction, path, DatasetFile(path, transaction, row.updated_at, body)
            else:
                message = f"the file {path!r} of the dataset {dataset.name!r} lacks a part of its bytes"
                self._report(ValueError(message))

    def _body(self, content: int | None) -> bytes:
        if content is None:
            return b""
        query = "SELECT piece FROM contents WHERE id BETWEEN ? AND ? ORDER BY id"
        return b"".join(piece for (piece,) in self._connection.execute(query, _keys(content)))

    def streams(self, records: _Records) -> list[SavedStream]:
        logs = {ids[0]: (position, record) for ids, position, record in records.rows("log")}
        found = []
        for stream in records.all("stream", DataStream):
            try:
                found.append(self._stream(stream, *logs.get(stream.branch, (0, b"null"))))
            except ValueError as error:
                self._report(error)
        return found

    def _stream(self, stream: DataStream, position: int, record: bytes) -> SavedStream:
        row = msgspec.json.decode(record, type=LogRow | None)
        if row is None or row.view_rid != stream.view_rid:
            raise ValueError(f"the stream {stream.label!r} lacks its offsets")
        records: list[StreamRecord] = []
        following = row.published - row.kept
        query = "SELECT last, records FROM batches WHERE log = ? ORDER BY last"
        for last, batch in self._connection.execute(query, (position,)):
            fields = msgspec.msgpack.decode(batch, type=list[tuple[int, int, int, bytes]])
            first = last + 1 - len(fields)
            if first > following:
                self._report(ValueError(f"the stream {stream.label!r} lacks records"))
                records.clear()
                following = first
            records.extend(StreamRecord(*each) for each in fields[following - first :])
            following = last + 1
        if following != row.published:
            self._report(ValueError(f"the stream {stream.label!r} lacks its newest records"))
            records.clear()
        return SavedStream(stream, row.ends, row.published, records)


def last_content(connection: sqlite3.Connection) -> int:
    """Return the highest number of a content, 0 if there is none."""
    (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM contents").fetchone()
    return int(newest) >> PIECE_BITS


def unused_contents(connection: sqlite3.Connection) -> list[int]:
    """Return the contents that no file has: a process ended while it wrote or deleted them."""
    rows = connection.execute("SELECT name, record FROM data WHERE name LIKE '[\"file\",%'")
    files = (msgspec.json.decode(record, type=FileRow | None) for _, record in rows)
    used = {file.content for file in files if file is not None}
    found = connection.execute("SELECT DISTINCT id >> ? FROM contents", (PIECE_BITS,))
    return [content for (content,) in found if content not in used]
