"""Whether a journal is whole: what its emulator finds out at its start, and `cmemu journal check` at any time."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from cmemu_nb.errors import JournalError
from cmemu_nb.phrases import plural
from cmemu_nb.storage import journal_tables as tables
from cmemu_nb.storage.journal_mark import mark_of, read_mark
from cmemu_nb.storage.journal_tables import Damaged

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION_ID = 0x636D656D  # "cmem"
VERSION = 4
CHAINED = 3
"""The first version whose rows have checksums, and whose commits are a chain."""


def advice(path: Path) -> str:
    """Say what can be done with a journal that can't be used."""
    return f"It was left as it is: 'cmemu journal salvage {path}' writes what is whole of it to a new file."


def failure(path: Path, what: str) -> JournalError:
    """Return the error that says what is wrong with a journal."""
    return JournalError(f"The journal {path} {what}")


def beside(path: Path, ending: str) -> Path:
    """Return the path of what SQLite keeps beside a database."""
    return path.with_name(f"{path.name}{ending}")


def log_bytes(path: Path) -> int:
    """Return how large the write-ahead log of a journal is; 0 if there is none."""
    try:
        return beside(path, "-wal").stat().st_size
    except FileNotFoundError:
        return 0


def look(path: Path) -> sqlite3.Connection:
    """Open a database for reading, without changing it."""
    # Without a log nothing is needed beside the file; SQLite would leave an empty one there.
    how = "mode=ro" if log_bytes(path) or beside(path, "-journal").exists() else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None)
    # A damaged text is found by its row's checksum, which says more than that it can't be decoded.
    connection.text_factory = lambda text: text.decode(errors="surrogateescape")
    return connection


def check(path: Path) -> int:
    """Return how many commits a journal has, 0 for one of an earlier version, which doesn't count them.

    Raises `JournalError` for a file that is no journal, damaged, incomplete or of a newer version.
    """
    try:
        # Before the database, which may be written to meanwhile.
        marked = read_mark(mark_of(path))
        with contextlib.closing(look(path)) as connection:
            connection.execute("BEGIN")
            _check_kind(path, connection)
            return _check_rows(path, connection, marked)
    except (Damaged, ValueError) as error:
        raise failure(path, f"is damaged ({error}). {advice(path)}") from None
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        raise failure(path, f"is damaged ({error}). {advice(path)}") from None
    except sqlite3.DatabaseError as error:
        raise failure(path, f"is no journal, or damaged ({error}). {advice(path)}") from None


def _check_kind(path: Path, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (damage,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    # Without SQLite's own, such as one that journals of earlier versions have for ever.
    named = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    there, ours = set(connection.execute(named)), set(tables.definitions(version))
    chained = there >= ours
    if application != APPLICATION_ID and not chained:
        raise failure(path, "is another program's database, no journal. Choose another file.")
    if version > VERSION:
        raise failure(
            path,
            f"was written by a newer cmemu_nb (its version is {version}, this one knows {VERSION}). "
            "Upgrade cmemu_nb, or choose another file.",
        )
    if damage != "ok":
        raise Damaged(str(damage).splitlines()[-1])
    if (application, version >= CHAINED) != (APPLICATION_ID, chained) or (chained and there != ours):
        raise Damaged("its head or its tables are not what was written")


def _check_rows(path: Path, connection: sqlite3.Connection, marked: int | None) -> int:
    if connection.execute("PRAGMA user_version").fetchone()[0] < CHAINED:
        return 0
    chain = tables.verify(connection)
    if marked is None and chain.in_use:
        raise failure(
            path,
            f"is not all there is: its emulator was not stopped, and {mark_of(path)} is missing, which counts what was "
            f"acknowledged. Put back what was beside the file. {advice(path)}",
        )
    if marked is not None and chain.number < marked:
        lost = marked - chain.number
        what = "change that was" if lost == 1 else f"{plural(lost, 'change')} that were"
        raise failure(
            path,
            f"lacks the last {what} acknowledged: its log {beside(path, '-wal')} is missing, cut off or damaged, or "
            f"the machine lost power. {advice(path)}",
        )
    return chain.number
