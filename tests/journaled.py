"""An emulator with a journal in a process of its own, which can be killed at any moment."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.storage import journal_tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = """
import json, sys, traceback
from cmemu_nb import Emulator

emu = Emulator(port=0, home="thread", **json.loads(sys.argv[1])).start()
names = {"emu": emu}
print(json.dumps([emu.url, emu.platform_url, emu.token]), flush=True)
for line in sys.stdin:
    code = json.loads(line)
    try:
        exec(code, names)
        answer = names.pop("answer", None)
    except Exception:
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer), flush=True)
emu.stop()
"""


class Process:
    """The emulator's process; `run()` runs code in it, where it is `emu`, and returns what the code calls `answer`."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self.url, self.platform_url, self.token = json.loads(self._read())

    def _read(self) -> str:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line, "the process has ended"
        return line

    def run(self, code: str) -> Any:
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(code) + "\n")
        self.popen.stdin.flush()
        answer = json.loads(self._read())
        assert not (isinstance(answer, dict) and "error" in answer), answer["error"]
        return answer

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.popen.kill()
        self.popen.wait()

    def stop(self) -> None:
        """Have it stop its emulator and end."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        assert self.popen.wait(30) == 0


OLDER_TABLES = """
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
    PRAGMA user_version = 2;
"""


FIRST_WITH_CHECKSUMS = 3
DURATIONS = {3: "", 4: "queue_clock, run_clock, ", 5: "queue_clock, run_clock, "}
STREAMED = {5: "streamed, "}


def _leave_out_columns(path: Path, version: int) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            f"SELECT sequence, status, started_at, completed_at, {DURATIONS[version]}result_content_type, replica_id, "
            f"ends_with_kernel, {STREAMED.get(version, '')}error_message, result FROM states"
        ).fetchall()
        _, _, number, digest, _ = connection.execute("SELECT * FROM chain").fetchone()
        digest -= sum(each for (each,) in connection.execute("SELECT checksum FROM states"))
        connection.execute("DROP TABLE states")
        for table in ("data", "contents", "batches"):
            digest -= sum(each for (each,) in connection.execute(f"SELECT checksum FROM {table}"))
            connection.execute(f"DROP TABLE {table}")
        connection.execute(dict(journal_tables.definitions(version))["states"])
        for row in rows:
            checksum = journal_tables.checksum("states", row)
            digest += checksum
            values = ", ".join("?" * (len(row) + 1))
            connection.execute(f"INSERT INTO states VALUES ({values})", (row[0], checksum, *row[1:]))
        head = (1, number, digest % journal_tables.MODULUS, 0)
        connection.execute("DELETE FROM chain")
        connection.execute(
            "INSERT INTO chain VALUES (?, ?, ?, ?, ?)", (1, journal_tables.checksum("chain", head), *head[1:])
        )
        connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()


def make_older(path: Path, version: int) -> None:
    """Make a journal that is not in use one of an earlier version, 1 to 5."""
    if version >= FIRST_WITH_CHECKSUMS:
        _leave_out_columns(path, version)
        return
    with contextlib.closing(sqlite3.connect(path)) as connection:
        identity, state = journal_tables.read_identity(connection), journal_tables.read_state(connection)
        jobs = connection.execute(
            "SELECT sequence, job_id, runtime_id, query_type, query, source, queued_at, deployed_app_rid, "
            "deployed_app_branch, user_id FROM jobs"
        ).fetchall()
        states = connection.execute(
            "SELECT sequence, status, started_at, completed_at, result, result_content_type, error_message, "
            "replica_id, ends_with_kernel FROM states"
        ).fetchall()
        drop = "".join(f"DROP TABLE {table};" for table in journal_tables.TABLES)
        connection.executescript(drop + OLDER_TABLES)
        rows: dict[str, list[tuple[object, ...]]] = {"identity": [*identity.items()], "jobs": jobs, "states": states}
        rows["apps"] = [(msgspec.json.encode(app),) for app in state.apps]
        for each in state.sessions:
            name = each.runtime.runtime_id
            rows.setdefault("runtimes", []).append((None, name, each.evicted, msgspec.json.encode(each.runtime)))
            for table, records in (("schemas", each.schemas), ("replicas", each.replicas)):
                rows.setdefault(table, []).extend((name, msgspec.json.encode(record)) for record in records)
        for table, values in rows.items():
            for row in values:
                connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        if version == 1:
            connection.execute("ALTER TABLE jobs DROP COLUMN user_id")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()


@contextlib.contextmanager
def process(journal: Path, **settings: Any) -> Iterator[Process]:
    """Run an emulator with this journal; it is killed at the end."""
    given = {"journal": str(journal), **settings}
    command = [sys.executable, "-c", PROGRAM, json.dumps(given)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as popen:
        try:
            yield Process(popen)
        finally:
            popen.kill()
