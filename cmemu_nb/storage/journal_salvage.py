"""The salvage of a damaged journal: its undamaged rows are written to a new journal."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cmemu_nb.lifecycle.records import JobStatus
from cmemu_nb.storage import journal_tables as tables
from cmemu_nb.storage.journal_check import APPLICATION_ID, VERSION, beside, failure
from cmemu_nb.storage.journal_upgrade import upgrade, write
from cmemu_nb.storage.owner_only import made_anew

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.snapshot import SavedState

UNCERTAIN = "the journal was damaged, so whether this job has run and its result are not known"


class Salvaged(NamedTuple):
    """The numbers of what was saved, and what of the datasets and data streams was not, each in words."""

    saved: Counter[str]
    lost: list[str]


def salvage(path: Path, new: Path) -> Salvaged:
    """Write the undamaged rows of a journal to a new one, and return what was saved.

    A queued job that may have run fails with the reason. Raises `JournalError` if nothing can be read, or if the new
    file exists already. The damaged journal is not changed.
    """
    if not path.is_file():
        raise failure(path, "can't be read: there is no such file.")
    if new.exists():
        raise failure(new, "exists already and was left as it is. Choose another file with --into.")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        for ending in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(beside(path, ending), beside(copy, ending))
        try:
            with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as connection:
                lost: list[str] = []
                identity, state = _whole(connection, lost)
        except (sqlite3.Error, msgspec.MsgspecError, ValueError) as error:
            raise failure(
                path, f"has nothing that can be saved: its header or its tables are lost ({error})."
            ) from None
    return Salvaged(_write(new, identity, state), lost)


def _whole(connection: sqlite3.Connection, lost: list[str]) -> tuple[dict[str, str], SavedState]:
    """Delete the damaged rows from a copy of a journal, and read the rest."""
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "chain" not in names:  # a journal of an earlier version, without checksums
        upgrade(connection, APPLICATION_ID, VERSION)
    connection.text_factory = lambda text: text.decode(errors="surrogateescape")
    found = {table: _Rows(connection, table) for table in tables.TABLES}
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        tables.create(fresh, APPLICATION_ID, VERSION)
        for table, rows in found.items():
            if table != "chain":
                tables.insert(fresh, table, rows.whole.values())
        _drop_strays(fresh)
        identity, state = tables.read_identity(fresh), tables.read_state(fresh, lost)
    if found["data"].damaged and "data" in names:
        lost.append("some datasets or streams, or files of them")
    if found["states"].damaged:
        state = msgspec.structs.replace(state, jobs=[_certain(job) for job in state.jobs])
    return identity, state


class _Rows:
    """The undamaged rows of a table, and whether there may have been others."""

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        self.whole: dict[Any, tuple[Any, ...]] = {}
        self.damaged = False
        # If a page can't be read, the rows behind it are read from the end of the table.
        for order in ("ASC", "DESC"):
            for row in self._read(connection, table, order):
                self._take(table, row)
            if not self.damaged:
                break

    def _read(self, connection: sqlite3.Connection, table: str, order: str) -> Iterator[tuple[Any, ...]]:
        try:
            yield from connection.execute(f"SELECT * FROM {table} NOT INDEXED ORDER BY rowid {order}")  # noqa: S608
        except sqlite3.DatabaseError:
            self.damaged = True

    def _take(self, table: str, row: tuple[Any, ...]) -> None:
        if tables.is_whole(table, row):
            self.whole[row[0]] = row
        else:
            self.damaged = True


def _drop_strays(connection: sqlite3.Connection) -> None:
    """Delete the rows that belong to a lost runtime or job."""
    runtimes = "(SELECT runtime_id FROM runtimes)"
    for table in ("schemas", "replicas", "jobs"):
        connection.execute(f"DELETE FROM {table} WHERE runtime_id NOT IN {runtimes}")  # noqa: S608 - our own names
    connection.execute("DELETE FROM states WHERE sequence NOT IN (SELECT sequence FROM jobs)")
    known = {name for (name,) in connection.execute("SELECT runtime_id FROM runtimes")}
    for place, records in connection.execute("SELECT id, records FROM apps").fetchall():
        kept = [app for app in msgspec.json.decode(records) if app["runtime_id"] in known]
        connection.execute("UPDATE apps SET records = ? WHERE id = ?", (msgspec.json.encode(kept), place))


def _certain(job: Job) -> Job:
    """Fail a job whose state may be lost, because it must not run twice."""
    if job.status != JobStatus.QUEUED:
        return job
    return msgspec.structs.replace(
        job, status=JobStatus.FAILED, completed_at=time.time_ns(), error_message=f"{UNCERTAIN}. Submit it again."
    )


def _write(new: Path, identity: dict[str, str], state: SavedState) -> Counter[str]:
    try:
        open(new, "xb", opener=made_anew).close()
    except OSError as error:
        raise failure(new, f"can't be written: {error.strerror}. Choose another file with --into.") from None
    try:
        with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            tables.create(connection, APPLICATION_ID, VERSION)
            writer = tables.Tables(connection)
            with writer.chained(in_use=False):
                write(writer, identity, state)
            connection.execute("COMMIT")
            return count(connection)
    except sqlite3.Error as error:
        new.unlink()
        raise failure(new, f"can't be written: {error}. Make room, or choose another file with --into.") from None


def count(connection: sqlite3.Connection) -> Counter[str]:
    """Return the numbers of a journal's runtimes, jobs, datasets and data streams."""
    counted = {table: f"SELECT count(*) FROM {table}" for table in ("runtimes", "jobs")}  # noqa: S608 - our own names
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'data'").fetchone():
        of_data = "SELECT count(DISTINCT rid) FROM data WHERE name LIKE '[\"{}\"%'"
        counted |= {f"{kind}s": of_data.format(kind) for kind in ("dataset", "stream")}
    return Counter({what: connection.execute(query).fetchone()[0] for what, query in counted.items()})
