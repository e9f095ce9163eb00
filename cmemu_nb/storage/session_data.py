"""The datasets and data streams in the JSON document of an exported session.

Files and records are in arrays of their own, so that the document can be written in pieces. The bytes of files and the
schemas of datasets are base64, the values of records are their JSON text.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated

import msgspec

from cmemu_nb.errors import WireError
from cmemu_nb.lifecycle.data_streams import DataStream, StreamRecord, Subscriber
from cmemu_nb.lifecycle.datasets import Branch, Dataset, DatasetFile, DatasetSchema, Transaction
from cmemu_nb.lifecycle.snapshot import SavedDataset, SavedStream
from cmemu_nb.phrases import plural
from cmemu_nb.storage.session_check import MAX_INTEGER, check_record, check_unique
from cmemu_nb.wire.stream_schemas import parse
from cmemu_nb.wire.stream_values import Mismatch, RecordReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.lifecycle.snapshot import SavedState

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
DEFAULT_EXPORT_BYTES = 256 * 1024**2
ENCODED_AT_ONCE = 3 * 1024**2
"""In bytes; a multiple of 3, so that the pieces of base64 text are one text."""
MAX_BATCH = 1000


class DatasetPart(msgspec.Struct, frozen=True):
    """A dataset without its files."""

    dataset: Dataset
    branches: list[Branch]
    transactions: list[Transaction]
    schemas: list[DatasetSchema]


class FilePart(msgspec.Struct, frozen=True):
    """A file of a transaction; without bytes it is the deletion of one."""

    dataset_rid: str
    transaction_rid: str
    path: str
    updated_at: Count | None = None
    body_base64: bytes | None = None


class StreamPart(msgspec.Struct, frozen=True):
    """The stream on a branch without its records."""

    stream: DataStream
    ends: list[Count]
    published: Count


class RecordsPart(msgspec.Struct, frozen=True):
    """Some records of the stream on a branch: the partition, the offset, the time and the value of each."""

    rid: str
    branch: str
    records: list[tuple[Count, Count, Count, str]]


class DataParts(msgspec.Struct, frozen=True):
    """What a document has of datasets and data streams; earlier versions had nothing of them."""

    datasets: list[DatasetPart] = []
    files: list[FilePart] = []
    streams: list[StreamPart] = []
    records: list[RecordsPart] = []
    subscribers: list[Subscriber] = []
    left_out: list[str] = []


# Writing


def saved_data(
    state: Lifecycle, max_bytes: int
) -> tuple[list[SavedDataset], list[SavedStream], list[Subscriber], list[str]]:
    """Return the datasets, the streams and the subscribers of a lifecycle, and what was left out of them, in words.

    A dataset or stream is left out if it does not fit into `max_bytes` any more, in the order of creation.
    """
    datasets, streams, left_out, room = [], [], list[str](), max_bytes
    for history in [state.dataset(each.rid) for each in state.datasets()]:
        if history.size <= room:
            room -= history.size
            datasets.append(SavedDataset.of(history))
        else:
            left_out.append(f"the dataset {history.dataset.name!r} ({plural(history.size, 'byte')})")
    for log in [state.data_stream(each.rid, each.branch) for each in state.data_streams()]:
        if log.size <= room:
            room -= log.size
            streams.append(SavedStream.of(log))
        else:
            left_out.append(f"the stream {log.stream.label!r} ({plural(log.size, 'byte')})")
    there = {(each.stream.rid, each.stream.branch) for each in streams}
    subscribers = [each for each in state.subscribers() if (each.rid, each.branch) in there]
    return datasets, streams, subscribers, left_out


def file_pieces(datasets: list[SavedDataset]) -> Iterator[bytes]:
    """Yield the elements of the array of files, a large one in several pieces."""
    for saved in datasets:
        for transaction_rid, path, file in saved.files:
            part = FilePart(saved.dataset.rid, transaction_rid, path, None if file is None else file.updated_at)
            text = msgspec.json.encode(part)
            if file is None:
                yield text
                continue
            yield text.removesuffix(b"null}") + b'"'
            for start in range(0, file.size, ENCODED_AT_ONCE):
                yield base64.b64encode(file.body[start : start + ENCODED_AT_ONCE])
            yield b'"}'


def dataset_parts(datasets: list[SavedDataset]) -> Iterator[DatasetPart]:
    """Yield the datasets without their files."""
    return (DatasetPart(each.dataset, each.branches, each.transactions, each.schemas) for each in datasets)


def stream_parts(streams: list[SavedStream]) -> Iterator[StreamPart]:
    """Yield the streams without their records."""
    return (StreamPart(each.stream, each.ends, each.published) for each in streams)


def record_parts(streams: list[SavedStream]) -> Iterator[RecordsPart]:
    """Yield the records of the streams, many at once."""
    for each in streams:
        for start in range(0, len(each.records), MAX_BATCH):
            batch = each.records[start : start + MAX_BATCH]
            fields = [(record.partition, record.offset, record.published_at, record.value.decode()) for record in batch]
            yield RecordsPart(each.stream.rid, each.stream.branch, fields)


# Reading


def read_data(parts: DataParts) -> tuple[list[SavedDataset], list[SavedStream], list[Subscriber]]:
    """Return the datasets, the streams and the subscribers of a document. Raises `ValueError` if they are damaged."""
    datasets, streams = _datasets(parts), _streams(parts)
    names = {each.stream.rid: each.stream.name for each in streams}
    check_unique("datasets or streams with the RID", [*(each.dataset.rid for each in datasets), *names])
    check_unique("datasets or streams named", [*(each.dataset.name for each in datasets), *names.values()])
    partitions = {(each.stream.rid, each.stream.branch): len(each.ends) for each in streams}
    for subscriber in parts.subscribers:
        check_record(subscriber)
        _check_positions(subscriber, partitions.get((subscriber.rid, subscriber.branch)))
    check_unique("subscribers", (each.subscriber_id for each in parts.subscribers))
    return datasets, streams, parts.subscribers


def _check_positions(subscriber: Subscriber, partitions: int | None) -> None:
    for positions in (subscriber.start, subscriber.positions):
        if len(positions) != partitions or not all(0 <= each <= MAX_INTEGER for each in positions):
            raise ValueError(f"the subscriber {subscriber.subscriber_id!r} has other partitions than its stream")


def _datasets(parts: DataParts) -> list[SavedDataset]:
    files: defaultdict[str, list[tuple[str, str, DatasetFile | None]]] = defaultdict(list)
    for each in parts.files:
        file = None
        if each.body_base64 is not None:
            file = DatasetFile(each.path, each.transaction_rid, each.updated_at or 0, each.body_base64)
        files[each.dataset_rid].append((each.transaction_rid, each.path, file))
    strays = files.keys() - {each.dataset.rid for each in parts.datasets}
    if strays:
        raise ValueError(f"it has a file of the dataset {min(strays)!r}, but not the dataset")
    return [_dataset(each, files[each.dataset.rid]) for each in parts.datasets]


def _dataset(part: DatasetPart, files: list[tuple[str, str, DatasetFile | None]]) -> SavedDataset:
    for record in (part.dataset, *part.branches, *part.transactions, *part.schemas):
        check_record(record)
    check_unique("branches", (each.name for each in part.branches))
    check_unique("transactions", (each.rid for each in part.transactions))
    return SavedDataset(part.dataset, part.branches, part.transactions, files, part.schemas)


def _streams(parts: DataParts) -> list[SavedStream]:
    records: defaultdict[tuple[str, str], list[StreamRecord]] = defaultdict(list)
    for each in parts.records:
        for partition, offset, published_at, value in each.records:
            records[each.rid, each.branch].append(StreamRecord(partition, offset, published_at, value.encode()))
    check_unique("streams", ((each.stream.rid, each.stream.branch) for each in parts.streams))
    strays = records.keys() - {(each.stream.rid, each.stream.branch) for each in parts.streams}
    if strays:
        raise ValueError(f"it has a record of the stream {min(strays)!r}, but not the stream")
    if len({(each.stream.rid, each.stream.name) for each in parts.streams}) != len(
        {each.stream.rid for each in parts.streams}
    ):
        raise ValueError("it has a stream with two names")
    return [_stream(each, records[each.stream.rid, each.stream.branch]) for each in parts.streams]


def _stream(part: StreamPart, records: list[StreamRecord]) -> SavedStream:
    check_record(part.stream)
    try:
        part.stream.options.check()
        reader = RecordReader(parse(msgspec.to_builtins(part.stream.schema)))
        for record in records:
            reader.read(record.value)
    except (WireError, Mismatch) as error:
        raise ValueError(f"the stream {part.stream.label!r} is not valid: {error}") from None
    return SavedStream(part.stream, part.ends, part.published, records)


def with_data(state: SavedState, parts: DataParts) -> SavedState:
    """Return a state with the datasets and data streams of a document. Raises `ValueError` if they are damaged."""
    datasets, streams, subscribers = read_data(parts)
    return msgspec.structs.replace(state, datasets=datasets, streams=streams, subscribers=subscribers)
