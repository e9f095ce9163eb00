"""The data streams of an emulator, as people use them: `emu.streams["events"]`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from cmemu_nb.data.stream_frames import as_records, frame_of, inferred_schema
from cmemu_nb.display.html import card, mimebundle, table, two_lines
from cmemu_nb.display.text import offsets_in_words, when
from cmemu_nb.errors import InvalidRequest
from cmemu_nb.foundry.summaries import logs, stream_summary
from cmemu_nb.lifecycle.data_streams import StreamOptions, stream_not_found
from cmemu_nb.lifecycle.state import DEFAULT_BRANCH
from cmemu_nb.phrases import plural, quoted
from cmemu_nb.wire.stream_schemas import parse
from cmemu_nb.wire.stream_values import Mismatch, RecordReader, python_records

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.lifecycle.data_streams import DataStream, StreamLog
    from cmemu_nb.wire.stream_values import NewRecord

    Records = Iterable[Any] | Mapping[str, Any] | pd.DataFrame


class StreamHandle:
    """A data stream on one branch; `name` is its name, `branch` the branch."""

    def __init__(self, engine: Engine, rid: str, branch: str = DEFAULT_BRANCH) -> None:
        self._engine = engine
        self.rid = rid
        self.branch = branch
        self.name = self._log.stream.name

    @property
    def _log(self) -> StreamLog:
        return self._engine.lifecycle.data_stream(self.rid, self.branch)

    @property
    def _stream(self) -> DataStream:
        return self._log.stream

    @property
    def view_rid(self) -> str:
        """The RID of its view, which is another one after each reset."""
        return self._stream.view_rid

    @property
    def schema(self) -> dict[str, str]:
        """The types of its fields, by name."""
        return {each.name: str(each.schema.data_type) for each in self._stream.schema.fields}

    @property
    def partitions(self) -> int:
        """The number of its partitions."""
        return self._stream.options.partitions

    @property
    def end_offsets(self) -> dict[str, int]:
        """The offset of the next record of each partition; older records than those that are kept count, too."""
        return {str(number): end for number, end in enumerate(list(self._log.ends))}

    @property
    def records(self) -> list[dict[str, Any]]:
        """The kept records as dicts, in the order of their arrival, with values of Python.

        A timestamp is a `datetime` in UTC, a decimal a `Decimal`, a binary value `bytes`.
        """
        log = self._log
        return python_records(log.stream.schema, (record.value for record in log.records()))

    def frame(self) -> pd.DataFrame:
        """Return the kept records as a DataFrame, in the order of their arrival; times are UTC."""
        log = self._log
        return frame_of(log.stream.schema, [record.value for record in log.records()])

    def publish(self, records: Records) -> int:
        """Publish records and return how many: a DataFrame, an iterable of dicts or objects with fields, or one dict.

        Either all of them are published or none. Raises `InvalidRequest` for a record that does not match the schema.
        """
        stream = self._stream
        new = read_records(RecordReader(stream.schema), records)
        self._engine.change(lambda state: state.publish(self.rid, self.branch, new, stream.view_rid))
        return len(new)

    def reset(self) -> None:
        """Clear its records; it gets a new view, whose offsets begin at 0."""
        self._engine.change(lambda state: state.reset_data_stream(self.rid, self.branch))

    def on(self, branch: str) -> StreamHandle:
        """Return the stream on another branch, which must exist."""
        return StreamHandle(self._engine, self.rid, branch)

    def delete(self) -> None:
        """Delete the stream with all branches."""
        self._engine.change(lambda state: state.delete_data_stream(self.rid))

    def __len__(self) -> int:
        return len(self._log.arrived)

    def __repr__(self) -> str:
        log = self._engine.lifecycle.find_data_stream(self.rid, self.branch)
        if log is None:
            return f"<Stream {self.name!r}: deleted>"
        return f"<Stream {log.stream.label!r}: {plural(len(log.arrived), 'record')}; {log.stream.schema.in_words}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        log = self._engine.lifecycle.find_data_stream(self.rid, self.branch)
        if log is None:
            return mimebundle(repr(self), card("Stream", {"name": self.name, "RID": self.rid, "state": "deleted"}))
        shown = stream_summary(log)
        facts = {
            "branch": shown["branch"],
            "schema": shown["schema"],
            "records": f"{shown['records']:,} kept with {plural(shown['bytes'], 'byte')}",
            "published": f"{shown['published']:,} since the last reset",
            "partitions": f"{shown['partitions']}",
            "end offsets": offsets_in_words(shown["end_offsets"]),
            "newest record": when(shown["published_at"]),
            "view": log.stream.view_rid,
            "RID": self.rid,
        }
        name = f"{self._engine.name}.streams[{self.name!r}]"
        at = "" if self._engine.lifecycle.find_data_stream(self.name) is log else f".on({self.branch!r})"
        return mimebundle(repr(self), card(f"Stream {self.name}", facts, hint=f"`{name}{at}.frame()` is the data."))


class Streams(MutableMapping[str, StreamHandle]):
    """The data streams of an emulator, by name: a mapping that takes records as values, too.

    >>> emu.streams["events"] = [{"sensor": "a", "celsius": 20.5}]
    >>> emu.streams["events"].publish({"sensor": "b", "celsius": 19})
    1
    >>> emu.streams["events"]
    <Stream 'events': 2 records; sensor STRING, celsius DOUBLE>
    >>> emu.streams["events"].frame()
      sensor  celsius
    0      a     20.5
    1      b     19.0
    >>> del emu.streams["events"]
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self,
        name: str,
        schema: Mapping[str, Any],
        *,
        partitions: int = 1,
        keys: Iterable[str] = (),
        branch: str = DEFAULT_BRANCH,
        rid: str | None = None,
    ) -> StreamHandle:
        """Create an empty stream, and return it.

        `schema` has the types of the fields by name, such as `{"sensor": "STRING", "readings": "ARRAY<DOUBLE>"}`, where
        an object is a struct, or it is the object of the public API. Records with equal values of the fields `keys` are
        in the same one of the `partitions`. The `rid` is a new one by default; that of the platform's stream lets a
        program be used as it is. With the name of a stream and another `branch`, it creates the stream on that branch.
        Raises an `ApiError` for a schema that is not valid, or a name that is taken.
        """
        read, options = parse(schema, tuple(keys)), StreamOptions(partitions)
        state = self._engine.lifecycle
        known = state.find_data_stream(name, None)

        def create_stream() -> DataStream:
            if known is not None and rid is None and branch not in (DEFAULT_BRANCH, known.stream.branch):
                return state.create_stream_branch(known.stream.rid, branch, read, options)
            return state.create_data_stream(name, read, options, branch=branch, rid=rid)

        return StreamHandle(self._engine, self._engine.change(lambda _: create_stream()).rid, branch)

    def __getitem__(self, name: str) -> StreamHandle:
        state = self._engine.lifecycle
        log = state.find_data_stream(name) or state.find_data_stream(name, None)
        if log is None:
            raise stream_not_found(name, DEFAULT_BRANCH, self)
        return StreamHandle(self._engine, log.stream.rid, log.stream.branch)

    def __setitem__(self, name: str, records: Any) -> None:
        """Create a stream with these records, or clear the stream of this name and publish them to it."""
        if isinstance(records, StreamHandle):
            raise InvalidRequest(f"Assign records to the stream {quoted(name)}, such as a DataFrame, not a stream.")
        rows = as_records(records)
        schema = inferred_schema(records, rows)
        new = read_records(RecordReader(schema), rows)
        state, log = self._engine.lifecycle, self._engine.lifecycle.find_data_stream(name)

        def put() -> None:
            if log is None:
                stream = state.create_data_stream(name, schema)
            else:
                stream = state.reset_data_stream(log.stream.rid, DEFAULT_BRANCH, schema)
            state.publish(stream.rid, DEFAULT_BRANCH, new)

        self._engine.change(lambda _: put())

    def __delitem__(self, name: str) -> None:
        self[name].delete()

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(stream.name for stream in self._engine.lifecycle.data_streams()))

    def __len__(self) -> int:
        return len(list(iter(self)))

    @property
    def overview(self) -> pd.DataFrame:
        """The streams as a DataFrame with a row for each branch, indexed by name and branch.

        >>> emu.streams["readings"] = [{"celsius": 20.5}, {"celsius": 19.0}]
        >>> emu.streams.overview.loc[("readings", "master"), ["schema", "end_offsets"]].to_list()
        ['celsius DOUBLE', '0: 2']
        """
        from cmemu_nb.display.frames import streams_frame  # noqa: PLC0415 - it needs pandas

        return streams_frame([stream_summary(log) for log in logs(self._engine.lifecycle)])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        rows = [_row(stream_summary(log)) for log in logs(self._engine.lifecycle)]
        hint = f"No streams. `{self._engine.name}.streams['events'] = a DataFrame` makes one."
        return mimebundle(repr(self), table(plural(len(self), "stream"), _COLUMNS, rows, hint, compact=True))

    def __repr__(self) -> str:
        counts = [f"{name} ({plural(len(self[name]), 'record')})" for name in self]
        return f"<Streams: {', '.join(counts)}>" if counts else "<Streams: none yet; create(name, schema) makes one>"


_COLUMNS = ("name", "branch", "schema", "records", "partitions", "end offsets", "newest record", "RID")


def _row(summary: dict[str, Any]) -> dict[str, object]:
    texts = {"schema": two_lines(summary["schema"]), "newest record": when(summary["published_at"])}
    return {
        **summary,
        **texts,
        "end offsets": two_lines(offsets_in_words(summary["end_offsets"])),
        "RID": summary["rid"],
    }


def read_records(reader: RecordReader, records: Records) -> list[NewRecord]:
    """Convert records to those of a stream. Raises `InvalidRequest`, which says which record does not match."""
    new = []
    for number, record in enumerate(as_records(records)):
        try:
            new.append(reader.convert(record))
        except Mismatch as mismatch:
            raise InvalidRequest(f"Record {number} does not match the schema of the stream. {mismatch}") from None
    return new
