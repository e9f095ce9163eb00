"""Data streams: named streams of records with a schema, as Foundry keeps them [foundry].

On the platform a stream is a dataset of the type stream: it has a RID, a name and branches, and on each branch a view
with partitions. A record is published to one partition, where it gets the next offset. Here the newest records are kept
in memory; the offsets of older ones stay used.

The records never change: a new record is put in the place of the old one.
"""

from __future__ import annotations

import uuid
import zlib
from collections import Counter, deque
from collections.abc import Mapping  # noqa: TC003 - msgspec reads the fields' types
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.errors import ApiError, UnknownData, known
from cmemu_nb.phrases import closest, quoted
from cmemu_nb.wire.stream_schemas import StreamSchema  # noqa: TC001 - the same
from cmemu_nb.wire.stream_values import RecordReader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.lifecycle.snapshot import SavedStream
    from cmemu_nb.wire.stream_values import NewRecord

LOW_LATENCY = "LOW_LATENCY"
STREAM_TYPES = (LOW_LATENCY, "HIGH_THROUGHPUT")
# The limits are ours, except that of a record [foundry].
MAX_RECORD_BYTES = 1_000_000
MAX_PARTITIONS = 100
MAX_STREAMS = 1000
MAX_BRANCHES = 100
MAX_SUBSCRIBERS = 1000
MAX_KEPT_BYTES = 256 * 1024**2
# What a record takes in memory beside its text, about.
RECORD_BYTES = 150


class StreamOptions(msgspec.Struct, frozen=True):
    """How a stream is set up [foundry]; here only the number of partitions makes a difference."""

    partitions: int = 1
    stream_type: str = LOW_LATENCY
    compressed: bool = False

    def check(self) -> None:
        """Refuse a number of partitions or a type that no stream can have."""
        if not 1 <= self.partitions <= MAX_PARTITIONS:
            message = f"A stream has from 1 to {MAX_PARTITIONS} partitions, not {self.partitions}."
            raise ApiError(400, "InvalidPartitionsCount", message, partitionsCount=self.partitions)
        if self.stream_type not in STREAM_TYPES:
            message = f"There is no stream type {quoted(self.stream_type)}. The types are {', '.join(STREAM_TYPES)}."
            raise ApiError(400, "InvalidStreamType", message, streamType=self.stream_type)


class DataStream(msgspec.Struct, frozen=True):
    """The stream on one branch of a dataset of the type stream; `view_rid` is another one after each reset."""

    rid: str
    name: str
    folder_rid: str
    branch: str
    view_rid: str
    schema: StreamSchema
    options: StreamOptions
    created_at: int

    def wire(self) -> dict[str, Any]:
        """Return the record as Foundry's public API shows it [foundry]."""
        return {
            "branchName": self.branch,
            "schema": self.schema,
            "viewRid": self.view_rid,
            "partitionsCount": self.options.partitions,
            "streamType": self.options.stream_type,
            "compressed": self.options.compressed,
        }

    def dataset_wire(self) -> dict[str, Any]:
        """Return its dataset as Foundry's public API shows it [foundry]."""
        return {"rid": self.rid, "name": self.name, "parentFolderRid": self.folder_rid}

    @property
    def label(self) -> str:
        """The name for messages and events, with the branch if it is not `master`."""
        return self.name if self.branch == "master" else f"{self.name} on branch {self.branch}"


class StreamRecord(msgspec.Struct, frozen=True, gc=False):
    """A record of a stream; `value` is JSON text, `published_at` in Unix nanoseconds."""

    partition: int
    offset: int
    published_at: int
    value: bytes

    def wire(self) -> dict[str, Any]:
        """Return the record as Foundry's public API shows it [foundry]."""
        return {"offset": self.offset, "value": msgspec.Raw(self.value)}


class Subscriber(msgspec.Struct, frozen=True):
    """A reader of a stream whose positions the platform keeps: `positions` are the next offsets, by partition."""

    subscriber_id: str
    rid: str
    branch: str
    view_rid: str
    read_position: Mapping[str, Any]
    start: tuple[int, ...]
    positions: tuple[int, ...]
    created_at: int


_DROPPED = StreamRecord(0, 0, 0, b"")


class Partition:
    """The kept records of a partition. Reading takes time in proportion to what is read, wherever it begins."""

    __slots__ = ("_dropped", "_first", "_records")

    def __init__(self) -> None:
        self._first = 0
        self._dropped = 0
        self._records: list[StreamRecord] = []

    def append(self, record: StreamRecord) -> None:
        """Add the next record."""
        self._records.append(record)

    def drop_oldest(self) -> None:
        """Remove the oldest record. The list is shortened only now and then, because that takes time."""
        self._records[self._dropped] = _DROPPED
        self._dropped += 1
        if self._dropped * 2 > len(self._records):
            del self._records[: self._dropped]
            self._first, self._dropped = self._first + self._dropped, 0

    def begin(self, offset: int) -> None:
        """Let an empty partition begin with this offset: those before it were dropped."""
        self._first = offset

    def read(self, start: int, most: int) -> list[StreamRecord]:
        """Return at most `most` records from an offset on, or from the oldest on that is kept."""
        begin = max(start - self._first, self._dropped)
        return self._records[begin : begin + most]


class StreamLog:
    """The newest records of the stream on one branch. Any thread may read them; only `Lifecycle` changes them.

    `ends` are the offsets of the next record of each partition, `arrived` are all kept records in the order in which
    they were published; `size` is how many bytes they take. `reader` converts records by the schema.
    """

    __slots__ = ("arrived", "ends", "partitions", "published", "reader", "size", "stream")

    def __init__(self, stream: DataStream) -> None:
        self.stream = stream
        self.reader = RecordReader(stream.schema)
        self.arrived: deque[StreamRecord] = deque()
        self.partitions = [Partition() for _ in range(stream.options.partitions)]
        self.ends = [0] * stream.options.partitions
        self.published = 0
        self.size = 0

    # Reading

    def records(self) -> list[StreamRecord]:
        """Return the kept records in the order in which they were published."""
        return list(self.arrived)

    def newest(self, most: int) -> list[StreamRecord]:
        """Return the `most` records that were published last, in the order of their publication."""
        return list(islice(reversed(self.arrived), most))[::-1]

    def check_view(self, view_rid: str | None) -> None:
        """Raise the platform's error for a view that is not the current one; None is always the current one."""
        if view_rid not in (None, self.stream.view_rid):
            message = (
                f"The stream {quoted(self.stream.label)} has no view {quoted(view_rid or '')}: its view is "
                f"{self.stream.view_rid}. A reset of a stream gives it a new view, and its records are cleared."
            )
            raise ApiError(404, "ViewNotFound", message, viewRid=view_rid)

    def partition(self, name: str) -> int:
        """Return the number of a partition by its id."""
        if not (name.isascii() and name.isdecimal() and len(name) <= len(str(MAX_PARTITIONS))):
            raise self._no_partition(name)
        if int(name) >= len(self.partitions):
            raise self._no_partition(name)
        return int(name)

    def _no_partition(self, name: str) -> ApiError:
        names = ", ".join(map(str, range(len(self.partitions))))
        message = f"The stream {quoted(self.stream.label)} has no partition {quoted(name)}. Its partitions are {names}."
        return ApiError(400, "PartitionNotFound", message, datasetRid=self.stream.rid, partitionId=name[:100])

    def read(self, partition: int, start: int, most: int) -> list[StreamRecord]:
        """Return at most `most` kept records of a partition from an offset on, the oldest first."""
        return self.partitions[partition].read(start, most)

    # Changing, which only Lifecycle does

    def append(self, record: NewRecord, now: int, most: int) -> StreamRecord:
        """Add a record at the end of a partition, and remove the oldest ones while more than `most` are kept."""
        if record.key is None:
            partition = self.published % len(self.partitions)
        else:
            partition = zlib.crc32(record.key) % len(self.partitions)
        kept = StreamRecord(partition, self.ends[partition], now, record.value)
        self._hold(kept)
        self.ends[partition] += 1
        self.published += 1
        while len(self.arrived) > most or (self.size > MAX_KEPT_BYTES and len(self.arrived) > 1):
            oldest = self.arrived.popleft()
            self.partitions[oldest.partition].drop_oldest()
            self.size -= len(oldest.value) + RECORD_BYTES
        return kept

    def _hold(self, record: StreamRecord) -> None:
        self.partitions[record.partition].append(record)
        self.arrived.append(record)
        self.size += len(record.value) + RECORD_BYTES

    def restore(self, saved: SavedStream) -> None:
        """Adopt the records of another process, in a log that is empty."""
        self.ends, self.published = list(saved.ends), saved.published
        kept = Counter(record.partition for record in saved.records)
        for number, partition in enumerate(self.partitions):
            partition.begin(self.ends[number] - kept[number])
        for record in saved.records:
            self._hold(record)


def new_view_rid() -> str:
    """Return the RID of a new view of a stream [foundry]."""
    return f"ri.foundry-streaming.main.view.{uuid.uuid4()}"


def stream_not_found(wanted: str, branch: str, names: Iterable[str]) -> UnknownData:
    """Return the platform's error for an unknown stream; it lists the known ones."""
    names = list(names)
    where = "" if branch == "master" else f" on branch {quoted(branch)}"
    message = f"There is no stream {quoted(wanted)}{where}.{closest(wanted, names)} {known(names, 'streams')}"
    return UnknownData(404, "StreamNotFound", message, datasetRid=wanted, streamBranchName=branch)


def subscriber_not_found(subscriber_id: str, names: Iterable[str]) -> ApiError:
    """Return the platform's error for an unknown subscriber of a stream; it lists the known ones."""
    message = f"The stream has no subscriber {quoted(subscriber_id)}. {known(names, 'subscribers')}"
    return ApiError(404, "SubscriberNotFound", message, subscriberId=subscriber_id)


def check_size(record: NewRecord) -> None:
    """Refuse a record that is too large with the platform's error."""
    if len(record.value) > MAX_RECORD_BYTES:
        message = f"A record has {len(record.value):,} bytes as JSON. At most {MAX_RECORD_BYTES:,} can be published."
        raise ApiError(413, "RecordTooLarge", message)
