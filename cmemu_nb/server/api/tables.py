"""Tables as answers: the files of a dataset read into one, and the table as a stream of Arrow's IPC format or as CSV.

A table is read and encoded in threads. Its encoding as Arrow consists of the very buffers of the table, which are not
copied; each piece is sent when the client has taken the one before.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

from cmemu_nb.errors import ApiError
from cmemu_nb.foundry.arrow_types import imported
from cmemu_nb.foundry.tables import chosen, read_table
from cmemu_nb.phrases import quoted
from cmemu_nb.server.own_thread import in_own_thread, own_thread
from cmemu_nb.server.response import StreamResponse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    import pyarrow as pa

    from cmemu_nb.lifecycle.datasets import DatasetFile, DatasetSchema
    from cmemu_nb.lifecycle.lifecycle import Lifecycle

KEEP_BYTES = 256 * 1024**2
ROWS_OF_A_PIECE = 65_536
# Smaller buffers are joined before they are sent.
SMALL_BYTES = 65_536
THREAD = "cmemu-table"


class Tables:
    """The tables that were read last, at most 256 MiB of them, so that a file is not decoded for every reader."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._kept: OrderedDict[tuple[Any, ...], pa.Table] = OrderedDict()

    async def read(
        self, rid: str, files: Mapping[str, DatasetFile], schema: DatasetSchema, columns: Sequence[str] | None
    ) -> pa.Table:
        """Return the files of a view as one table with these columns, all by default."""
        key = _key(rid, files, schema)
        table = self._kept.get(key)
        if table is None:
            table = await in_own_thread(THREAD, partial(read_table, rid, files.values(), schema))
            self.keep(rid, files, schema, table)
        else:
            self._kept.move_to_end(key)
        return chosen(table, columns)

    def keep(self, rid: str, files: Mapping[str, DatasetFile], schema: DatasetSchema, table: pa.Table) -> None:
        """Keep the table that the files of a view are, as `read()` would read it; on the event loop."""
        self._kept[_key(rid, files, schema)] = table
        deleted = [each for each in self._kept if self._lifecycle.find_dataset(each[0]) is None]
        for each in deleted:
            del self._kept[each]
        while self._kept and sum(each.nbytes for each in self._kept.values()) > KEEP_BYTES:
            self._kept.popitem(last=False)


def _key(rid: str, files: Mapping[str, DatasetFile], schema: DatasetSchema) -> tuple[Any, ...]:
    versions = [(file.path, file.transaction_rid, file.updated_at) for file in files.values()]
    return (rid, schema.version_id, *versions)


async def as_arrow(table: pa.Table) -> StreamResponse:
    """Answer with a table as a stream of Arrow's IPC format, whose length is known before it is sent."""
    pieces = await in_own_thread(THREAD, partial(_arrow_pieces, table))

    async def each() -> AsyncGenerator[bytes]:
        for piece in pieces:
            yield piece

    return StreamResponse(each(), length=sum(map(len, pieces)))


def _arrow_pieces(table: pa.Table) -> list[Any]:
    buffers = _Buffers()
    with imported("pyarrow").ipc.new_stream(buffers, table.schema) as writer:
        writer.write_table(table)
    return buffers.pieces


class _Buffers(io.RawIOBase):
    """A file that keeps the buffers that are written to it, without copying the large ones."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[Any] = []

    def writable(self) -> bool:
        return True

    def write(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if view.nbytes >= SMALL_BYTES:
            self.pieces.append(view)
        elif self.pieces and isinstance(self.pieces[-1], bytearray):
            self.pieces[-1] += view
        else:
            self.pieces.append(bytearray(view))
        return view.nbytes


def as_csv(rid: str, table: pa.Table) -> StreamResponse:
    """Answer with a table as CSV: a header, an empty field for null, `""` for an empty text."""
    types = imported("pyarrow").types
    for field in table.schema:
        if types.is_nested(field.type) or types.is_binary(field.type) or types.is_large_binary(field.type):
            message = f"The column {quoted(field.name)} is of type {field.type}, which CSV does not have. Read ARROW."
            raise ApiError(400, "ColumnTypesNotSupported", message, datasetRid=rid)
    return StreamResponse(_csv_pieces(table))


async def _csv_pieces(table: pa.Table) -> AsyncGenerator[bytes]:
    pieces = table.to_batches(ROWS_OF_A_PIECE) or [table.schema.empty_table()]
    with own_thread(THREAD) as run:
        for number, piece in enumerate(pieces):
            yield await run(partial(_csv, piece, header=number == 0))


def _csv(rows: Any, *, header: bool) -> bytes:
    arrow_csv, sink = imported("pyarrow.csv"), io.BytesIO()
    arrow_csv.write_csv(rows, sink, arrow_csv.WriteOptions(include_header=header))
    return sink.getvalue()
