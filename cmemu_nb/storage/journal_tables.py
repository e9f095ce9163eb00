"""The tables of a journal: the conversion between records and rows, each row with a checksum.

A job is one row in `jobs`, which never changes, and one in `states` as soon as it has been taken: so its query is
written only once, and so is its result. The key of both rows is the job's number, so that new rows are appended.

Every commit also writes the one row of `chain`: the number of the commit, and the sum of the checksums of all rows. So
a row that was changed, lost, or restored from an earlier commit is detected when the file is read.
"""

from __future__ import annotations

import contextlib
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from cmemu_nb.lifecycle.records import DeployedApp, FunctionSchema, Job, JobSource, JobStatus, Runtime, one_text
from cmemu_nb.lifecycle.snapshot import SavedReplica, SavedSession, SavedState
from cmemu_nb.storage.journal_data import last_content, read_data

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

T = TypeVar("T")

CHECKSUM_BYTES = 7  # SQLite's integers are signed
MODULUS = 1 << 8 * CHECKSUM_BYTES

# The first column is the key, and the second is the row's checksum. Columns that may be long are last.
TABLES = {
    "identity": ("name TEXT PRIMARY KEY", "value TEXT NOT NULL"),
    "runtimes": (
        "position INTEGER PRIMARY KEY",
        "runtime_id TEXT NOT NULL UNIQUE",
        "evicted INTEGER NOT NULL",
        "record BLOB NOT NULL",
    ),
    "schemas": ("runtime_id TEXT PRIMARY KEY", "records BLOB NOT NULL"),
    "replicas": ("runtime_id TEXT PRIMARY KEY", "records BLOB NOT NULL"),
    "apps": ("id INTEGER PRIMARY KEY", "records BLOB NOT NULL"),
    "jobs": (
        "sequence INTEGER PRIMARY KEY",
        *("job_id TEXT NOT NULL", "runtime_id TEXT NOT NULL", "query_type TEXT NOT NULL", "source TEXT NOT NULL"),
        *("queued_at INTEGER NOT NULL", "deployed_app_rid TEXT", "deployed_app_branch TEXT", "user_id TEXT"),
        "query BLOB NOT NULL",
    ),
    "states": (
        "sequence INTEGER PRIMARY KEY",
        *("status TEXT NOT NULL", "started_at INTEGER", "completed_at INTEGER", "queue_clock INTEGER"),
        *("run_clock INTEGER", "result_content_type TEXT"),
        *("replica_id TEXT", "ends_with_kernel INTEGER NOT NULL", "streamed INTEGER NOT NULL"),
        *("error_message BLOB", "result BLOB"),
    ),
    "data": ("position INTEGER PRIMARY KEY", "rid TEXT NOT NULL", "name TEXT NOT NULL", "record BLOB NOT NULL"),
    "contents": ("id INTEGER PRIMARY KEY", "piece BLOB NOT NULL"),
    "batches": (
        "id INTEGER PRIMARY KEY",
        *("log INTEGER NOT NULL", "last INTEGER NOT NULL", "records BLOB NOT NULL"),
    ),
    "chain": (
        "id INTEGER PRIMARY KEY",
        "number INTEGER NOT NULL",
        "digest INTEGER NOT NULL",
        "in_use INTEGER NOT NULL",
    ),
}
KEYS = {table: columns[0].split()[0] for table, columns in TABLES.items()}
ONLY_ROW = 1


def _definition(table: str, left_out: Iterable[str] = ()) -> str:
    key, *others = (column for column in TABLES[table] if column not in left_out)
    return f"CREATE TABLE {table} ({', '.join([key, 'checksum INTEGER NOT NULL', *others])})"


INDEXES = {
    "jobs_of_runtime": "INDEX jobs_of_runtime ON jobs (runtime_id)",
    "data_of_rid": "UNIQUE INDEX data_of_rid ON data (rid, name)",
    "batches_of_log": "INDEX batches_of_log ON batches (log, last)",
}
# The tables and indexes that version 6 added, and the columns of a state that version 3 did not have, by the version
# that added them.
OF_DATA, WITH_DATA = ("data", "contents", "batches", "data_of_rid", "batches_of_log"), 6
ADDED = {4: ("queue_clock INTEGER", "run_clock INTEGER"), 5: ("streamed INTEGER NOT NULL",)}
_INSERT = {
    table: f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * (len(columns) + 1))})"  # noqa: S608 - our own names
    for table, columns in TABLES.items()
}
_CHECKSUM = {table: f"SELECT checksum FROM {table} WHERE {key} = ?" for table, key in KEYS.items()}  # noqa: S608
# A job that is already in the table never changes, so there is no need to check whether it is.
_INSERT_JOB = f"{_INSERT['jobs'].replace(' OR REPLACE', '')} ON CONFLICT (sequence) DO NOTHING"
_packed = msgspec.msgpack.Encoder().encode
_DELETE = {table: f"DELETE FROM {table} WHERE {key} = ?" for table, key in KEYS.items()}  # noqa: S608


class Chain(NamedTuple):
    """The number of the last commit, the sum of all rows' checksums, and whether an emulator has the file in use."""

    number: int
    digest: int
    in_use: bool


class Damaged(Exception):
    """The data that was read is not the data that was written; the message says where."""


def definitions(version: int) -> list[tuple[str, str]]:
    """Return the name and the SQL text of each table and index, of version 3 or a later one."""
    left_out = [column for added, columns in ADDED.items() if version < added for column in columns]
    tables = [(table, _definition(table, left_out)) for table in TABLES]
    found = [*tables, *((index, f"CREATE {what}") for index, what in INDEXES.items())]
    return [(name, text) for name, text in found if version >= WITH_DATA or name not in OF_DATA]


def checksum(table: str, row: Sequence[Any]) -> int:
    """Return the checksum of a row: of its values, their types and their order."""
    # A blob is represented by its length, in a list to distinguish it from a number. Its bytes follow without a copy.
    shape = [[len(value)] if isinstance(value, bytes) else value for value in row]
    digest = blake2b(_packed((table, shape)), digest_size=CHECKSUM_BYTES)
    for value in row:
        if isinstance(value, bytes):
            digest.update(value)
    return int.from_bytes(digest.digest(), "big")


def create(connection: sqlite3.Connection, application_id: int, version: int) -> None:
    """Create the tables, in an open transaction."""
    for _, statement in definitions(version):
        connection.execute(statement)
    row = (ONLY_ROW, 0, 0, 0)
    connection.execute(_INSERT["chain"], (row[0], checksum("chain", row), *row[1:]))
    connection.execute(f"PRAGMA application_id = {application_id}")
    connection.execute(f"PRAGMA user_version = {version}")


class Tables:
    """Writes records with their checksums. Each transaction is one commit of the chain."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.number = 0
        """The number of the last commit."""
        self._digest = 0
        self._is_known = False
        self._places: dict[tuple[str, str], int] | None = None
        self._last_place = 0
        self._last_content: int | None = None

    @contextlib.contextmanager
    def transaction(self, *, in_use: bool = True) -> Iterator[None]:
        """Write all changes that are made inside, or none."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            self._read_chain()
            yield
            self._write_chain(in_use=in_use)
            self.connection.execute("COMMIT")
        except BaseException:
            # It may have been committed, for example if an interrupt arrived after COMMIT: read the chain again.
            self._is_known = False
            self._places = None
            with contextlib.suppress(Exception):
                self.connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def chained(self, *, in_use: bool) -> Iterator[None]:
        """Add one commit to the chain for the changes that are made inside, in an open transaction."""
        self._read_chain()
        yield
        self._write_chain(in_use=in_use)

    def _read_chain(self) -> None:
        if not self._is_known:
            self.number, self._digest, _ = read_chain(self.connection)
            self._is_known = True

    def _write_chain(self, *, in_use: bool) -> None:
        self.number += 1
        self._digest %= MODULUS
        row = (ONLY_ROW, self.number, self._digest, int(in_use))
        self.connection.execute(_INSERT["chain"], (row[0], checksum("chain", row), *row[1:]))

    def put(self, table: str, *row: Any) -> None:
        """Insert or replace a row, by the values of its columns."""
        found = self.connection.execute(_CHECKSUM[table], (row[0],)).fetchone()
        new = checksum(table, row)
        self.connection.execute(_INSERT[table], (row[0], new, *row[1:]))
        self._digest += new - (found[0] if found else 0)

    def delete(self, table: str, key: object) -> None:
        """Delete the row of a key, if there is one."""
        found = self.connection.execute(_CHECKSUM[table], (key,)).fetchone()
        if found:
            self.connection.execute(_DELETE[table], (key,))
            self._digest -= found[0]

    def put_identity(self, identity: dict[str, str]) -> None:
        """Store the values that identify the emulator across runs, by name."""
        for name, value in identity.items():
            self.put("identity", name, str(value))

    def put_runtime(self, runtime: Runtime, evicted: int) -> None:
        """Insert or update one runtime's session, without its schemas and replicas."""
        position = self._position(runtime.runtime_id)
        if position is None:
            (position,) = self.connection.execute("SELECT coalesce(max(position), 0) + 1 FROM runtimes").fetchone()
        self.put("runtimes", position, runtime.runtime_id, evicted, msgspec.json.encode(runtime))

    def _position(self, runtime_id: str) -> int | None:
        found = self.connection.execute("SELECT position FROM runtimes WHERE runtime_id = ?", (runtime_id,)).fetchone()
        return found and int(found[0])

    def put_session(self, session: SavedSession) -> None:
        """Insert or update one runtime's session with its schemas and replicas."""
        runtime_id = session.runtime.runtime_id
        self.put_runtime(session.runtime, session.evicted)
        self._put_of_runtime("schemas", runtime_id, session.schemas)
        self._put_of_runtime("replicas", runtime_id, session.replicas)

    def put_schemas(self, schemas: Sequence[FunctionSchema]) -> None:
        """Replace the schemas of one runtime with these; there must be at least one."""
        self._put_of_runtime("schemas", schemas[0].runtime_id, schemas)

    def _put_of_runtime(self, table: str, runtime_id: str, records: Sequence[object]) -> None:
        if records:
            self.put(table, runtime_id, msgspec.json.encode(records))
        else:
            self.delete(table, runtime_id)

    def delete_session(self, runtime_id: str) -> None:
        """Delete a runtime, but not its jobs."""
        self.delete("runtimes", self._position(runtime_id))
        self.delete("schemas", runtime_id)
        self.delete("replicas", runtime_id)

    def delete_jobs_of(self, runtime_id: str) -> None:
        """Delete all jobs of a runtime."""
        of_states = "FROM states WHERE sequence IN (SELECT sequence FROM jobs WHERE runtime_id = ?)"
        for what in (of_states, "FROM jobs WHERE runtime_id = ?"):
            self._delete_rows(what, runtime_id)

    def delete_where(self, table: str, condition: str, *parameters: object) -> None:
        """Delete the rows of a table for which an SQL condition holds."""
        self._delete_rows(f"FROM {table} WHERE {condition}", *parameters)

    def _delete_rows(self, what: str, *parameters: object) -> None:
        sums = self.connection.execute(f"SELECT checksum {what}", parameters)
        self._digest -= sum(each for (each,) in sums)
        self.connection.execute(f"DELETE {what}", parameters)

    def put_app(self, rid: str, branch: str, app: DeployedApp | None) -> None:
        """Write the binding of an app's branch as the newest one; None deletes the binding."""
        places = self._places_of_apps()
        place = places.pop((rid, branch), None)
        if place is not None:
            self.delete("apps", place)
        if app is not None:
            self._last_place += 1
            places[rid, branch] = self._last_place
            self.put("apps", self._last_place, msgspec.json.encode([app]))

    def _places_of_apps(self) -> dict[tuple[str, str], int]:
        """Return the row of each binding. Rows with several bindings, as in earlier versions, are split."""
        if self._places is None:
            self._places, self._last_place = {}, 0
            rows = self.connection.execute("SELECT id, records FROM apps ORDER BY id").fetchall()
            of_rows = [(place, _many(records, DeployedApp)) for place, records in rows]
            if any(len(apps) != 1 for _, apps in of_rows):
                for place, _ in of_rows:
                    self.delete("apps", place)
                of_rows = list(enumerate(([app] for _, apps in of_rows for app in apps), 1))
                for place, apps in of_rows:
                    self.put("apps", place, msgspec.json.encode(apps))
            for place, (app,) in of_rows:
                self._places[app.deployed_app_rid, app.branch] = self._last_place = place
        return self._places

    def put_jobs(self, jobs: Iterable[Job]) -> None:
        """Insert jobs, without their states."""
        for job in jobs:
            names = (job.job_id, job.runtime_id, job.query_type, str(job.source), job.queued_at)
            row = (job.sequence, *names, job.deployed_app_rid, job.deployed_app_branch, job.user_id, job.query)
            new = checksum("jobs", row)
            if self.connection.execute(_INSERT_JOB, (row[0], new, *row[1:])).rowcount:
                self._digest += new

    def put_states(self, jobs: Iterable[Job]) -> None:
        """Insert or update the states of jobs."""
        for job in jobs:
            times = (str(job.status), job.started_at, job.completed_at, *_stopped_clocks(job))
            rest = (job.result_content_type, job.replica_id, int(job.ends_with_kernel), int(job.streamed))
            self.put("states", job.sequence, *times, *rest, _encoded(job.error_message), job.result)

    def new_content(self) -> int:
        """Return the number for the bytes of another file. None is returned twice, even if its bytes are deleted."""
        if self._last_content is None:
            self._last_content = last_content(self.connection)
        self._last_content += 1
        return self._last_content

    def add_data(self) -> None:
        """Create the tables of datasets and data streams, which earlier versions did not have."""
        for name, statement in definitions(WITH_DATA):
            if name in OF_DATA:
                self.connection.execute(statement)

    def convert_states(self) -> None:
        """Convert the states of an earlier version with checksums to this version."""
        self.connection.execute("ALTER TABLE states RENAME TO older")
        self.connection.execute(_definition("states"))
        for row in self.connection.execute("SELECT * FROM older"):
            self._digest -= row[1]
            self.put("states", *_converted(row))
        self.connection.execute("DROP TABLE older")

    def delete_jobs(self, sequences: Iterable[int]) -> None:
        """Delete single jobs, by their numbers."""
        for sequence in sequences:
            self.delete("states", sequence)
            self.delete("jobs", sequence)


def _stopped_clocks(job: Job) -> tuple[int | None, int | None]:
    # A running clock has no meaning in another process, which has another steady clock.
    return (
        None if job.status == JobStatus.QUEUED else job.queue_clock,
        None if job.status in (JobStatus.QUEUED, JobStatus.RUNNING) else job.run_clock,
    )


# Reading


def read_chain(connection: sqlite3.Connection) -> Chain:
    """Return the chain row of the last commit. Raises `Damaged` if it is not what was written."""
    found = connection.execute("SELECT * FROM chain").fetchall()
    if len(found) != 1 or not is_whole("chain", found[0]):
        raise Damaged("the row that each commit writes is not what was written")
    _, _, number, digest, in_use = found[0]
    return Chain(number, digest, bool(in_use))


def is_whole(table: str, row: Sequence[Any]) -> bool:
    """Return whether a row, with its checksum as the second value, is undamaged."""
    try:
        return bool(row[1] == checksum(table, (row[0], *row[2:])))
    except (ValueError, TypeError, OverflowError):  # for example, text that can't be encoded
        return False


def insert(connection: sqlite3.Connection, table: str, rows: Iterable[Sequence[Any]]) -> None:
    """Insert undamaged rows; those of an earlier version with checksums are converted to this version."""
    for row in rows:
        values = (row[0], *row[2:])
        if table == "states" and len(values) < len(TABLES[table]):
            values = _converted(row)
        connection.execute(_INSERT[table], (values[0], checksum(table, values), *values[1:]))


def _converted(row: Sequence[Any]) -> tuple[Any, ...]:
    """Return the values of a state of version 3 or 4 in this version's columns, without its checksum.

    Unknown durations become None, and whether the result was a stream is taken as False.
    """
    sequence, _, status, started_at, completed_at, *durations, content_type, replica_id, ends, error, result = row
    times = (started_at, completed_at, *(durations or (None, None)))
    return (sequence, status, *times, content_type, replica_id, ends, 0, error, result)


def verify(connection: sqlite3.Connection, version: int) -> Chain:
    """Check all rows against their checksums, and the checksums against the chain. Raises `Damaged`."""
    digest = 0
    for table in TABLES:
        if table == "chain" or (table in OF_DATA and version < WITH_DATA):
            continue
        for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608
            if not is_whole(table, row):
                raise Damaged(f"a row of {table} is not what was written")
            digest += row[1]
    chain = read_chain(connection)
    if digest % MODULUS != chain.digest:
        raise Damaged("rows are missing, or are from an earlier commit")
    return chain


def read_identity(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the values that identify the emulator across runs, by name; nothing if there are none."""
    return dict(connection.execute("SELECT name, value FROM identity").fetchall())


def read_state(connection: sqlite3.Connection, lost: list[str] | None = None) -> SavedState:
    """Return the saved state of the lifecycle.

    What of the datasets and data streams lacks a part is described in the list `lost`; without such a list it raises a
    `ValueError`.
    """
    schemas = _by_runtime(connection, "schemas", FunctionSchema)
    replicas = _by_runtime(connection, "replicas", SavedReplica)
    sessions = read_sessions(connection, schemas, replicas)
    of_rows = connection.execute("SELECT records FROM apps ORDER BY id")
    apps = [each for (records,) in of_rows for each in _many(records, DeployedApp)]
    jobs = [read_job(*row) for row in connection.execute(ALL_JOBS)]
    return SavedState(sessions, apps, jobs, *read_data(connection, lost))


def read_sessions(
    connection: sqlite3.Connection, schemas: dict[str, list[FunctionSchema]], replicas: dict[str, list[SavedReplica]]
) -> list[SavedSession]:
    """Return the sessions of the runtimes, each with the runtime's schemas and replicas."""
    return [
        SavedSession(msgspec.json.decode(record, type=Runtime), schemas.get(name, []), replicas.get(name, []), evicted)
        for name, evicted, record in connection.execute(
            "SELECT runtime_id, evicted, record FROM runtimes ORDER BY position"
        )
    ]


ALL_JOBS = """
    SELECT sequence, job_id, runtime_id, query_type, query, source, queued_at, deployed_app_rid, deployed_app_branch,
        user_id, status, started_at, completed_at, queue_clock, run_clock, result, result_content_type, error_message,
        replica_id, ends_with_kernel, streamed
    FROM jobs LEFT JOIN states USING (sequence) ORDER BY sequence
"""


def read_job(*row: Any) -> Job:
    """Return the job of a row of `ALL_JOBS`."""
    sequence, job_id, runtime_id, query_type, query, source, queued_at, rid, branch, user_id, *state = row
    status, started_at, completed_at, queue_clock, run_clock, *outcome = state
    result, content_type, error_message, replica_id, ends_with_kernel, streamed = outcome
    names = (runtime_id, query_type, rid, branch, user_id, content_type, replica_id)
    runtime_id, query_type, rid, branch, user_id, content_type, replica_id = (name and one_text(name) for name in names)
    return Job(
        *(job_id, sequence, runtime_id, query_type, query, JobSource(source), queued_at, rid, branch),
        JobStatus(status or JobStatus.QUEUED),
        *(started_at, completed_at, result, content_type),
        None if error_message is None else error_message.decode(errors="surrogatepass"),
        replica_id,
        bool(ends_with_kernel),
        user_id,
        queue_clock,
        run_clock,
        bool(streamed),
    )


def _by_runtime(connection: sqlite3.Connection, table: str, kind: type[T]) -> dict[str, list[T]]:
    rows = connection.execute(f"SELECT runtime_id, records FROM {table}")  # noqa: S608
    return {runtime_id: _many(records, kind) for runtime_id, records in rows}


def _many(records: bytes, kind: type[T]) -> list[T]:
    return msgspec.json.decode(records, type=list[kind])  # type: ignore[valid-type]


def _encoded(text: str | None) -> bytes | None:
    # The error of a function may contain lone surrogates, which SQLite's text can't.
    return None if text is None else text.encode(errors="surrogatepass")
