"""The check that a journal is complete and undamaged, at an emulator's start and by `cmemu journal check`."""

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
VERSION = 6
CHAINED = 3
"""The first version whose rows have checksums, and whose commits are a chain."""


def advice(path: Path) -> str:
    """Return the advice for a journal that can't be used."""
    return f"It was left as it is: 'cmemu journal salvage {path}' writes its undamaged part to a new file."


def failure(path: Path, what: str) -> JournalError:
    """Return the error for a journal, with the reason `what`."""
    return JournalError(f"The journal {path} {what}")


def beside(path: Path, ending: str) -> Path:
    """Return the path of a file that SQLite keeps beside a database."""
    return path.with_name(f"{path.name}{ending}")


def log_bytes(path: Path) -> int:
    """Return the size of a journal's write-ahead log in bytes; 0 if there is none."""
    try:
        return beside(path, "-wal").stat().st_size
    except FileNotFoundError:
        return 0


def look(path: Path) -> sqlite3.Connection:
    """Open a database for reading, without changing it."""
    # Without a log, SQLite needs no other file, but would leave an empty log beside the database unless immutable.
    how = "mode=ro" if log_bytes(path) or beside(path, "-journal").exists() else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None)
    # Damaged text is found by the checksum of its row, which gives a better message than a decoding error.
    connection.text_factory = lambda text: text.decode(errors="surrogateescape")
    return connection


def check(path: Path) -> int:
    """Return the number of a journal's commits; 0 for a journal of an earlier version, which doesn't count them.

    Raises `JournalError` for a file that is not a journal, or is damaged, incomplete or of a newer version.
    """
    try:
        # The mark is read before the database, which may be written to meanwhile.
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
        raise failure(path, f"is not a journal, or is damaged ({error}). {advice(path)}") from None


def _check_kind(path: Path, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (damage,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    # Without SQLite's internal tables, such as one that journals of earlier versions keep.
    named = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    found, ours = set(connection.execute(named)), set(tables.definitions(version))
    chained = found >= ours
    if application != APPLICATION_ID and not chained:
        raise failure(path, "is another program's database, not a journal. Choose another file.")
    if version > VERSION:
        raise failure(
            path,
            f"was written by a newer cmemu_nb (its version is {version}, this one knows {VERSION}). "
            "Upgrade cmemu_nb, or choose another file.",
        )
    if damage != "ok":
        raise Damaged(str(damage).splitlines()[-1])
    if (application, version >= CHAINED) != (APPLICATION_ID, chained) or (chained and found != ours):
        raise Damaged("its header or its tables are not what was written")


def _check_rows(path: Path, connection: sqlite3.Connection, marked: int | None) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < CHAINED:
        return 0
    chain = tables.verify(connection, version)
    if marked is None and chain.in_use:
        raise failure(
            path,
            f"is incomplete: its emulator was not stopped, and {mark_of(path)} is missing, which counts the "
            f"acknowledged changes. Restore the files that were beside it. {advice(path)}",
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
