"""The file of a journal: an SQLite database that one emulator at a time writes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import IO, TYPE_CHECKING

import msgspec

from cmemu_nb.errors import NotPrivate
from cmemu_nb.eventloop.forks import close_in_children
from cmemu_nb.storage import journal_tables as tables
from cmemu_nb.storage.journal_check import APPLICATION_ID, VERSION, advice, beside, check, failure, log_bytes
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
    """An open journal. `folder` beside it is for the private files of its emulator, `new` says that it was just made.

    `sync` is "normal", which survives the end of the process at any moment, or "full", which survives a power cut.
    Raises `JournalError` for a file that is no journal, damaged, incomplete, of a newer version or in use, and leaves
    it as it is.
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
                        with contextlib.suppress(OSError):  # there is a mark already
                            self.folder.rmdir()
                    raise
                self._parts = self._parts.pop_all()
        except OSError as error:
            raise self._error(f"can't be opened: {error.strerror or error}. Choose another path.") from None
        except NotPrivate as error:
            raise self._error(f"can't be used: {error}") from None

    def _take_lock(self) -> IO[str]:
        if self.path.exists() and not self.path.is_file():
            raise self._error("can't be opened: it is a directory, or no regular file. Choose another path.")
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
        # A forked child would hold the lock when the emulator is long gone.
        close_in_children([lock])
        return lock

    def _open(self, sync: str) -> None:
        try:
            number = self._look()
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
            # The checkpoints are made beside the emulator's loop, since they wait for the disk.
            self.connection.execute("PRAGMA wal_autocheckpoint = 0")
            # Or a log that was once as large as it may be would be taken for one that is so ever after.
            self.connection.execute(f"PRAGMA journal_size_limit = {MAX_LOG_BYTES // 2}")
            self._begin(number)
        except sqlite3.Error as error:
            raise self._error(f"can't be opened: {error}. Choose another file.") from None

    def _look(self) -> int:
        """Make the file if there is none, lock it and look at one that exists; returns the number of its commits."""
        for each in (*self._files(), mark_of(self.path)):
            check_file(each, by_any_name=each == self.path)
        self.new = not self.path.exists() or not self.path.stat().st_size
        if self.new:
            self._refuse_what_is_left()
            self._create()
        try:
            self._parts.callback(FileLock(self.path).close)
        except BlockingIOError:
            raise self._error(
                "is in use by another emulator, by another name of the file, or since its folder was deleted. Stop "
                "that one, or choose another file."
            ) from None
        return 0 if self.new else check(self.path)

    def _files(self) -> list[Path]:
        """Return the paths of the database and of what SQLite keeps beside it."""
        return [beside(self.path, ending) for ending in ("", "-wal", "-shm", "-journal")]

    def _refuse_what_is_left(self) -> None:
        used = [beside(self.path, "-wal"), mark_of(self.path)]
        if self.path.exists():  # who deletes it begins anew, but nobody empties a file
            used.append(self.folder / "ca.pem")
        left = [each for each in used if each.exists() and each.stat().st_size]
        if left:
            raise self._error(
                f"is {'empty' if self.path.exists() else 'missing'}, but not all of it: {left[0]} is still there. Put "
                f"the file back; to begin anew delete {beside(self.path, '-wal')} and {self.folder}."
            )

    def _create(self) -> None:
        """Make the file aside and move it there, so that it is whole whenever this process ends."""
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
        """Write down that the file is in use, in the file itself too, where it is found without the log."""
        self._tables = tables.Tables(self.connection)
        with self._tables.transaction():
            # Fails where nothing can be written, before there is a mark.
            self.connection.execute("UPDATE chain SET in_use = 1")
            self._mark = Mark(mark_of(self.path), number)
            self._parts.callback(self._mark.close)
        self.checkpoint_here()
        self._mark.write(self._tables.number)
        self._watch = Watch([self.path, beside(self.path, "-wal"), beside(self.path, "-shm"), mark_of(self.path)])

    @contextlib.contextmanager
    def transaction(self) -> Iterator[tables.Tables]:
        """Write all of what is put and deleted inside, or nothing.

        Raises an `OSError` when somebody has deleted or replaced the file, its log or its folder.
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
        """Merge the log into the file and let others have it."""
        clean = False
        with self._parts:
            with contextlib.suppress(sqlite3.Error, OSError):
                with self._tables.transaction(in_use=False):
                    self._watch.check()
                clean = True
            with contextlib.suppress(sqlite3.Error):  # somebody is reading it: the next to open it does that
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if clean:
                self._mark.remove()

    def identity(self) -> dict[str, str]:
        """Return what makes it the same emulator again, by name; nothing in a new file."""
        with self._explained():
            return tables.read_identity(self.connection)

    def remember(self, identity: dict[str, str]) -> None:
        """Keep what makes it the same emulator again."""
        with self._explained(), self.transaction() as rows:
            rows.put_identity(identity)

    def load(self) -> SavedState:
        """Read all that the lifecycle had."""
        with self._explained():
            return tables.read_state(self.connection)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Make a `JournalError` of whatever goes wrong."""
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise self._error(f"can't be used: {error}. End the program that holds it, or make room.") from None
        except (sqlite3.Error, msgspec.MsgspecError, ValueError, TypeError, AttributeError) as error:
            raise self._error(f"is damaged ({error}). {advice(self.path)}") from None

    @property
    def log_bytes(self) -> int:
        """How large the write-ahead log is."""
        return log_bytes(self.path)

    def checkpoint(self) -> None:
        """Copy the log into the file as far as it goes, from any thread and holding up nobody."""
        with contextlib.suppress(sqlite3.Error), contextlib.closing(self._connect()) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def checkpoint_here(self) -> None:
        """Copy what is left of the log, so that it begins anew. Waits for the disk."""
        self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
