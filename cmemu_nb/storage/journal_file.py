"""The file of a journal: an SQLite database to which one emulator at a time writes."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from typing import IO, TYPE_CHECKING

import msgspec

from cmemu_nb.errors import NotPrivate
from cmemu_nb.eventloop.forks import close_in_children
from cmemu_nb.storage import journal_tables as tables
from cmemu_nb.storage.journal_check import APPLICATION_ID, VERSION, advice, beside, check, failure, log_bytes
from cmemu_nb.storage.journal_data import unused_contents
from cmemu_nb.storage.journal_lock import FileLock, Watch
from cmemu_nb.storage.journal_mark import Mark, folder_of, mark_of
from cmemu_nb.storage.journal_upgrade import upgrade
from cmemu_nb.storage.owner_only import check_file, make_folder, open_in
from cmemu_nb.storage.private_files import is_locked_now

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cmemu_nb.errors import JournalError
    from cmemu_nb.lifecycle.snapshot import SavedState

CACHE_KIB = 8_000
BUSY_SECONDS = 0.1
MAX_LOG_BYTES = 64 * 1024 * 1024


class JournalFile:
    """An open journal. `folder`, beside it, has the private files of its emulator; `new` is True if it was just made.

    `sync` is "normal", which survives the end of the process at any moment, or "full", which survives a power cut.
    Raises `JournalError` for a file that is not a journal, or is damaged, incomplete, of a newer version or in use; the
    file is not changed.
    """

    def __init__(self, path: Path, sync: str) -> None:
        self.path = path
        self.folder = folder_of(path)
        self._parts = contextlib.ExitStack()
        made = not self.folder.exists()
        try:
            with self._parts:
                self._lock = self._take_lock()
                self._parts.callback(self._lock.close)
                try:
                    self._open(sync)
                except BaseException:
                    if made:
                        (self.folder / "lock").unlink()
                        with contextlib.suppress(OSError):  # the folder already has a mark
                            self.folder.rmdir()
                    raise
                self._parts = self._parts.pop_all()
        except OSError as error:
            raise self._error(f"can't be opened: {error.strerror or error}. Choose another path.") from None
        except NotPrivate as error:
            raise self._error(f"can't be used: {error}") from None

    def _take_lock(self) -> IO[str]:
        if self.path.exists() and not self.path.is_file():
            raise self._error("can't be opened: it is a directory, or not a regular file. Choose another path.")
        make_folder(self.folder)
        lock = os.fdopen(open_in(self.folder, "lock", os.O_RDWR | os.O_CREAT | os.O_APPEND), "a+")
        if not is_locked_now(lock):
            lock.seek(0)
            holder = lock.read().strip()
            lock.close()
            raise self._error(
                f"is in use by another emulator (process {holder or 'unknown'}). Stop that one, or choose another file."
            )
        try:
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        except OSError:
            lock.detach()
            raise
        # A forked child would otherwise hold the lock after the emulator has ended.
        close_in_children([lock])
        return lock

    def _open(self, sync: str) -> None:
        try:
            number = self._prepare()
            for each in self._files():
                with contextlib.suppress(FileNotFoundError):
                    each.chmod(0o600)
            self.connection = self._connect()
            self._parts.callback(self.connection.close)
            (version,) = self.connection.execute("PRAGMA user_version").fetchone()
            if version < VERSION:
                upgrade(self.connection, APPLICATION_ID, VERSION)
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute(f"PRAGMA synchronous = {sync.upper()}")
            self.connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            # Checkpoints are made beside the emulator's loop, because they wait for the disk.
            self.connection.execute("PRAGMA wal_autocheckpoint = 0")
            # Without this limit the log would keep its largest size, and always be taken for a log that is too large.
            self.connection.execute(f"PRAGMA journal_size_limit = {MAX_LOG_BYTES // 2}")
            self._begin(number)
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            remedy = "Make room on the disk, then start again." if full else "Choose another file."
            raise self._error(f"can't be opened: {error}. {remedy}") from None

    def _prepare(self) -> int:
        """Create the file if it is missing, lock it, check an existing one, and return the number of its commits."""
        for each in (*self._files(), mark_of(self.path)):
            check_file(each, by_any_name=each == self.path)
        self.new = not self.path.exists() or not self.path.stat().st_size
        if self.new:
            self._refuse_remains()
            self._create()
        try:
            self._parts.callback(FileLock(self.path).close)
        except BlockingIOError:
            raise self._error(
                "is in use by another emulator, under another name of the file, or from before its folder was deleted. "
                "Stop that emulator, or choose another file."
            ) from None
        return 0 if self.new else check(self.path)

    def _files(self) -> list[Path]:
        """Return the paths of the database and of the files that SQLite keeps beside it."""
        return [beside(self.path, ending) for ending in ("", "-wal", "-shm", "-journal")]

    def _refuse_remains(self) -> None:
        used = [beside(self.path, "-wal"), mark_of(self.path)]
        if self.path.exists():  # a deleted file is meant as a new beginning, but an empty one is not
            used.append(self.folder / "ca.pem")
        left = [each for each in used if each.exists() and each.stat().st_size]
        if left:
            raise self._error(
                f"is {'empty' if self.path.exists() else 'missing'}, but a part of it, {left[0]}, is still there. "
                f"Restore the file; to start a new journal, delete {beside(self.path, '-wal')} and {self.folder}."
            )

    def _create(self) -> None:
        """Create the file under another name and rename it, so that it is complete even if this process is killed."""
        new = self.folder / "new"
        for left in (new, self.folder / "new-journal"):
            left.unlink(missing_ok=True)
        os.close(open_in(self.folder, new.name, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            tables.create(connection, APPLICATION_ID, VERSION)
            connection.execute("COMMIT")
        new.replace(self.path)

    def _begin(self, number: int) -> None:
        """Record that the file is in use, also in the file itself, where it is found even if the log is missing."""
        self._tables = tables.Tables(self.connection)
        with self._tables.transaction():
            # If nothing can be written, this fails before there is a mark.
            self.connection.execute("UPDATE chain SET in_use = 1")
            self._mark = Mark(mark_of(self.path), number)
            self._parts.callback(self._mark.close)
        self.checkpoint_here()
        self._mark.write(self._tables.number)
        self._watch = Watch([self.path, beside(self.path, "-wal"), beside(self.path, "-shm"), mark_of(self.path)])

    @contextlib.contextmanager
    def transaction(self) -> Iterator[tables.Tables]:
        """Write all changes that are made inside, or none.

        Raises an `OSError` if the file, its log or its folder was deleted or replaced.
        """
        with self._tables.transaction():
            yield self._tables
        self._watch.check()
        self._mark.write(self._tables.number)

    def _error(self, what: str) -> JournalError:
        return failure(self.path, what)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)

    def close(self) -> None:
        """Merge the log into the file and release the file."""
        clean = False
        with self._parts:
            with contextlib.suppress(sqlite3.Error, OSError):
                with self._tables.transaction(in_use=False):
                    self._watch.check()
                clean = True
            with contextlib.suppress(
                sqlite3.Error
            ):  # if another program reads the file, the next opener merges the log
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if clean:
                self._mark.remove()

    def identity(self) -> dict[str, str]:
        """Return the values that identify the emulator across runs, by name; nothing for a new file."""
        with self._explained():
            return tables.read_identity(self.connection)

    def remember(self, identity: dict[str, str]) -> None:
        """Store the values that identify the emulator across runs."""
        with self._explained(), self.transaction() as rows:
            rows.put_identity(identity)

    def load(self) -> SavedState:
        """Return the saved state of the lifecycle."""
        with self._explained():
            return tables.read_state(self.connection)

    def free_bytes(self) -> int:
        """Return how many bytes can be added to the file: those that its disk has free, and unused ones in the file."""
        (pages,) = self.connection.execute("PRAGMA freelist_count").fetchone()
        (page_bytes,) = self.connection.execute("PRAGMA page_size").fetchone()
        return shutil.disk_usage(self.path.parent).free + int(pages * page_bytes)

    def new_content(self) -> int:
        """Return a new number for the bytes of a file."""
        return self._tables.new_content()

    def unused_contents(self) -> list[int]:
        """Return the contents that no file has: a process ended while it wrote or deleted them."""
        with self._explained():
            return unused_contents(self.connection)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of reading and writing into a `JournalError`."""
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise self._error(f"can't be used: {error}. End the program that holds it, or make room.") from None
        except (sqlite3.Error, msgspec.MsgspecError, ValueError, TypeError, AttributeError) as error:
            raise self._error(f"is damaged ({error}). {advice(self.path)}") from None

    @property
    def log_bytes(self) -> int:
        """The size of the write-ahead log in bytes."""
        return log_bytes(self.path)

    def checkpoint(self) -> None:
        """Copy as much of the log into the file as possible, in any thread and without blocking other connections."""
        with contextlib.suppress(sqlite3.Error), contextlib.closing(self._connect()) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def checkpoint_here(self) -> None:
        """Copy the rest of the log into the file, so that the log starts again. This waits for the disk."""
        self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
