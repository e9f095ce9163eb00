"""The upgrade of journals of earlier versions.

Version 5 had no datasets and data streams. Version 4 did not store which results were streams either, and version 3 no
durations. Earlier versions had no checksums: such journals are read and rewritten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from cmemu_nb.lifecycle.records import DeployedApp, FunctionSchema, JobStatus
from cmemu_nb.lifecycle.snapshot import SavedReplica, SavedState
from cmemu_nb.storage import journal_tables as tables
from cmemu_nb.storage.journal_data import DataRows

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")
WITH_CHECKSUMS = 3


def upgrade(connection: sqlite3.Connection, application_id: int, version: int) -> None:
    """Convert a journal of an earlier version to this version, completely or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        (older,) = connection.execute("PRAGMA user_version").fetchone()
        if older < WITH_CHECKSUMS:
            _rewrite(connection, application_id, version)
        else:
            writer = tables.Tables(connection)
            with writer.chained(in_use=False):
                if older < max(tables.ADDED):
                    writer.convert_states()
                writer.add_data()
            connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _rewrite(connection: sqlite3.Connection, application_id: int, version: int) -> None:
    identity, state = tables.read_identity(connection), _read(connection)
    for table in tables.TABLES:
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    tables.create(connection, application_id, version)
    writer = tables.Tables(connection)
    with writer.chained(in_use=False):
        write(writer, identity, state)


def _read(connection: sqlite3.Connection) -> SavedState:
    schemas = _by_runtime(connection, "schemas", FunctionSchema)
    replicas = _by_runtime(connection, "replicas", SavedReplica)
    sessions = tables.read_sessions(connection, schemas, replicas)
    rows = connection.execute("SELECT record FROM apps ORDER BY rowid")
    apps = [msgspec.json.decode(record, type=DeployedApp) for (record,) in rows]
    columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(jobs)")]
    # The first version did not store who had submitted a job.
    jobs = tables.ALL_JOBS.replace("queue_clock, run_clock", "NULL, NULL").replace("streamed", "0")
    jobs = jobs if "user_id" in columns else jobs.replace("user_id", "NULL")
    return SavedState(sessions, apps, [tables.read_job(*row) for row in connection.execute(jobs)])


def write(writer: tables.Tables, identity: dict[str, str], state: SavedState) -> None:
    """Write the content of a journal to empty tables."""
    writer.put_identity(identity)
    for session in state.sessions:
        writer.put_session(session)
    for app in state.apps:
        writer.put_app(app.deployed_app_rid, app.branch, app)
    writer.put_jobs(state.jobs)
    writer.put_states(job for job in state.jobs if job.status != JobStatus.QUEUED)
    DataRows(writer).write_saved(state.datasets, state.streams, state.subscribers)


def _by_runtime(connection: sqlite3.Connection, table: str, kind: type[T]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {}
    for runtime_id, record in connection.execute(f"SELECT runtime_id, record FROM {table} ORDER BY rowid"):  # noqa: S608
        found.setdefault(runtime_id, []).append(msgspec.json.decode(record, type=kind))
    return found
