"""The tables of a journal: records to rows, and rows to records.

A job is one row in `jobs`, which never changes, and one in `states` as soon as it is more than queued: so its query is
written once, and its result too. Both are found by the job's number, so that writing appends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cmemu_nb.model import DeployedApp, FunctionSchema, Job, JobSource, JobStatus, Runtime, one_text
from cmemu_nb.saved import SavedReplica, SavedSession, SavedState

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

T = TypeVar("T")


def create(application_id: int, version: int) -> str:
    """Return the script that makes the tables, all of them or none."""
    return f"""
        BEGIN;
        CREATE TABLE identity (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE runtimes (position INTEGER PRIMARY KEY AUTOINCREMENT, runtime_id TEXT NOT NULL UNIQUE,
            evicted INTEGER NOT NULL, record BLOB NOT NULL);
        CREATE TABLE schemas (runtime_id TEXT NOT NULL, record BLOB NOT NULL);
        CREATE INDEX schemas_of_runtime ON schemas (runtime_id);
        CREATE TABLE replicas (runtime_id TEXT NOT NULL, record BLOB NOT NULL);
        CREATE INDEX replicas_of_runtime ON replicas (runtime_id);
        CREATE TABLE apps (record BLOB NOT NULL);
        CREATE TABLE jobs (sequence INTEGER PRIMARY KEY, job_id TEXT NOT NULL, runtime_id TEXT NOT NULL,
            query_type TEXT NOT NULL, query BLOB NOT NULL, source TEXT NOT NULL, queued_at INTEGER NOT NULL,
            deployed_app_rid TEXT, deployed_app_branch TEXT, user_id TEXT);
        CREATE INDEX jobs_of_runtime ON jobs (runtime_id);
        CREATE TABLE states (sequence INTEGER PRIMARY KEY, status TEXT NOT NULL, started_at INTEGER,
            completed_at INTEGER, result BLOB, result_content_type TEXT, error_message BLOB, replica_id TEXT,
            ends_with_kernel INTEGER NOT NULL);
        PRAGMA application_id = {application_id};
        PRAGMA user_version = {version};
        COMMIT;
    """


UPGRADES = {1: "ALTER TABLE jobs ADD COLUMN user_id TEXT"}
"""What makes of a file of each older version one of the next."""


# Writing


def put_identity(connection: sqlite3.Connection, identity: dict[str, str]) -> None:
    """Keep what makes it the same emulator again, by name."""
    connection.executemany("INSERT OR REPLACE INTO identity VALUES (?, ?)", identity.items())


def put_runtime(connection: sqlite3.Connection, runtime: Runtime, evicted: int) -> None:
    """Insert or update one runtime's session, without what belongs to it."""
    connection.execute(
        "INSERT INTO runtimes (runtime_id, evicted, record) VALUES (?, ?, ?) ON CONFLICT (runtime_id) "
        "DO UPDATE SET evicted = excluded.evicted, record = excluded.record",
        (runtime.runtime_id, evicted, msgspec.json.encode(runtime)),
    )


def put_session(connection: sqlite3.Connection, session: SavedSession) -> None:
    """Insert or update one runtime's session with its schemas and replicas."""
    runtime_id = session.runtime.runtime_id
    put_runtime(connection, session.runtime, session.evicted)
    of_one_runtime: dict[str, Sequence[object]] = {"schemas": session.schemas, "replicas": session.replicas}
    for table, records in of_one_runtime.items():
        connection.execute(f"DELETE FROM {table} WHERE runtime_id = ?", (runtime_id,))  # noqa: S608 - our own names
        rows = [(runtime_id, msgspec.json.encode(record)) for record in records]
        connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", rows)  # noqa: S608


def delete_session(connection: sqlite3.Connection, runtime_id: str) -> None:
    """Forget a runtime, but not its jobs."""
    for table in ("runtimes", "schemas", "replicas"):
        connection.execute(f"DELETE FROM {table} WHERE runtime_id = ?", (runtime_id,))  # noqa: S608


def delete_jobs_of(connection: sqlite3.Connection, runtime_id: str) -> None:
    """Forget all jobs of a runtime."""
    where = "sequence IN (SELECT sequence FROM jobs WHERE runtime_id = ?)"
    connection.execute(f"DELETE FROM states WHERE {where}", (runtime_id,))  # noqa: S608
    connection.execute("DELETE FROM jobs WHERE runtime_id = ?", (runtime_id,))


def put_apps(connection: sqlite3.Connection, apps: Iterable[DeployedApp]) -> None:
    """Keep these bindings and no others."""
    connection.execute("DELETE FROM apps")
    connection.executemany("INSERT INTO apps VALUES (?)", [(msgspec.json.encode(app),) for app in apps])


def put_jobs(connection: sqlite3.Connection, jobs: Iterable[Job]) -> None:
    """Insert jobs, whatever their state is."""
    connection.executemany(
        "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                *(job.sequence, job.job_id, job.runtime_id, job.query_type, job.query),
                *(str(job.source), job.queued_at, job.deployed_app_rid, job.deployed_app_branch, job.user_id),
            )
            for job in jobs
        ],
    )


def put_states(connection: sqlite3.Connection, jobs: Iterable[Job]) -> None:
    """Insert or update the states of jobs."""
    connection.executemany(
        "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                *(job.sequence, str(job.status), job.started_at, job.completed_at, job.result, job.result_content_type),
                *(_encoded(job.error_message), job.replica_id, job.ends_with_kernel),
            )
            for job in jobs
        ],
    )


def delete_jobs(connection: sqlite3.Connection, sequences: Iterable[int]) -> None:
    """Forget single jobs, by their numbers."""
    rows = [(sequence,) for sequence in sequences]
    for table in ("states", "jobs"):
        connection.executemany(f"DELETE FROM {table} WHERE sequence = ?", rows)  # noqa: S608


# Reading


def read_identity(connection: sqlite3.Connection) -> dict[str, str]:
    """Return what makes it the same emulator again, by name; nothing if it never was one."""
    return dict(connection.execute("SELECT name, value FROM identity").fetchall())


def read_state(connection: sqlite3.Connection) -> SavedState:
    """Read everything that the lifecycle had."""
    schemas = _by_runtime(connection, "schemas", FunctionSchema)
    replicas = _by_runtime(connection, "replicas", SavedReplica)
    rows = connection.execute("SELECT runtime_id, evicted, record FROM runtimes ORDER BY position")
    sessions = [
        SavedSession(_decoded(Runtime, record), schemas.get(name, []), replicas.get(name, []), evicted)
        for name, evicted, record in rows
    ]
    apps = [_decoded(DeployedApp, record) for (record,) in connection.execute("SELECT record FROM apps ORDER BY rowid")]
    return SavedState(sessions, apps, [_job(*row) for row in connection.execute(_ALL_JOBS)])


_ALL_JOBS = """
    SELECT sequence, job_id, runtime_id, query_type, query, source, queued_at, deployed_app_rid, deployed_app_branch,
        user_id, status, started_at, completed_at, result, result_content_type, error_message, replica_id,
        ends_with_kernel
    FROM jobs LEFT JOIN states USING (sequence) ORDER BY sequence
"""


def _job(*row: Any) -> Job:
    sequence, job_id, runtime_id, query_type, query, source, queued_at, rid, branch, user_id, *state = row
    status, started_at, completed_at, result, content_type, error_message, replica_id, ends_with_kernel = state
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
    )


def _by_runtime(connection: sqlite3.Connection, table: str, kind: type[T]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {}
    for runtime_id, record in connection.execute(f"SELECT runtime_id, record FROM {table} ORDER BY rowid"):  # noqa: S608
        found.setdefault(runtime_id, []).append(_decoded(kind, record))
    return found


def _decoded(kind: type[T], record: bytes) -> T:
    return msgspec.json.decode(record, type=kind)


def _encoded(text: str | None) -> bytes | None:
    # What a function raised may hold lone surrogates, which SQLite's texts can't.
    return None if text is None else text.encode(errors="surrogatepass")
