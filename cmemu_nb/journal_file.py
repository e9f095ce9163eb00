"""The file of a journal: an SQLite database that one emulator at a time writes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import IO, TYPE_CHECKING

import msgspec

from cmemu_nb import journal_tables as tables
from cmemu_nb.errors import JournalError
from cmemu_nb.listening import close_in_children
from cmemu_nb.private_files import is_locked_now
from cmemu_nb.saved import for_the_owner_only

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cmemu_nb.saved import SavedState

APPLICATION_ID = 0x636D656D  # "cmem"
VERSION = 2
CACHE_KIB = 8_000
BUSY_SECONDS = 0.1
UNTOUCHED = "It was left as it is: choose another file, or try 'sqlite3 FILE .recover' on a copy."


class JournalFile:
    """An open journal. `folder` beside it is for the private files of its emulator, `new` says that it was just made.

    `sync` is "normal", which survives the end of the process at any moment, or "full", which survives a power cut.
    Raises `JournalError` for a file that is no journal, damaged, of a newer version or in use, and leaves it as it is.
    """

    def __init__(self, path: Path, sync: str) -> None:
        self.path = path
        self.folder = path.parent / f"{path.name}-files"
        made = not self.folder.exists()
        try:
            self._lock = self._take_lock()
            try:
                self.connection = self._open(sync)
            except BaseException:
                self._lock.close()
                if made:
                    (self.folder / "lock").unlink()
                    self.folder.rmdir()
                raise
        except OSError as error:
            raise self._error(f"can't be opened: {error.strerror}. Choose another path.") from None
        self._inode = path.stat().st_ino

    def _take_lock(self) -> IO[str]:
        if self.path.exists() and not self.path.is_file():
            raise self._error("can't be opened: it is a directory, or no regular file. Choose another path.")
        self.folder.mkdir(mode=0o700, exist_ok=True)
        lock = open(self.folder / "lock", "a+", opener=for_the_owner_only)  # noqa: SIM115 - kept open
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

    def _open(self, sync: str) -> sqlite3.Connection:
        try:
            self.new = not self.path.exists() or not self.path.stat().st_size
            if self.new:
                self._create()
            else:
                self._check()
            self.path.chmod(0o600)
            connection = self._connect()
            self._upgrade(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {sync.upper()}")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            # The checkpoints are made beside the emulator's loop, since they wait for the disk.
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        except sqlite3.Error as error:
            raise self._error(f"can't be opened: {error}. Choose another file.") from None
        return connection

    def _create(self) -> None:
        """Make the file aside and move it there, so that it is whole whenever this process ends."""
        new = self.folder / "new"
        for left in (new, self.folder / "new-journal"):
            left.unlink(missing_ok=True)
        new.touch(mode=0o600)
        with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as connection:
            connection.executescript(tables.create(APPLICATION_ID, VERSION))
        new.replace(self.path)

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for older in range(version, VERSION):
            upgrade = f"BEGIN IMMEDIATE; {tables.UPGRADES[older]}; PRAGMA user_version = {older + 1}; COMMIT"
            connection.executescript(upgrade)

    def check_there(self) -> None:
        """Raise an `OSError` when somebody has deleted the file, or put another one in its place."""
        if self.path.stat().st_ino != self._inode:
            raise OSError(f"{self.path} was replaced by another file")

    def _check(self) -> None:
        """Look at a file that exists without changing it."""
        # Without a log nothing is needed beside the file; SQLite would leave an empty one there.
        how = "mode=ro" if self.log_bytes or self._beside("-journal").exists() else "mode=ro&immutable=1"
        address = f"{self.path.absolute().as_uri()}?{how}"
        try:
            with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
                (application,) = connection.execute("PRAGMA application_id").fetchone()
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                (damage,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise self._error(f"is no journal, or damaged ({error}). {UNTOUCHED}") from None
        if application != APPLICATION_ID:
            raise self._error("is another program's database, no journal. Choose another file.")
        if version > VERSION:
            raise self._error(
                f"was written by a newer cmemu_nb (its version is {version}, this one knows {VERSION}). "
                "Upgrade cmemu_nb, or choose another file."
            )
        if damage != "ok":
            raise self._error(f"is damaged ({str(damage).splitlines()[-1]}). {UNTOUCHED}")

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(f"{self.path.name}{ending}")

    def _error(self, what: str) -> JournalError:
        return JournalError(f"The journal {self.path} {what}")

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)

    def close(self) -> None:
        """Merge the log into the file and let others have it."""
        with contextlib.suppress(sqlite3.Error):  # somebody is reading it: the next to open it does that
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()
        self._lock.close()

    def identity(self) -> dict[str, str]:
        """Return what makes it the same emulator again, by name; nothing in a new file."""
        with self._explained():
            return tables.read_identity(self.connection)

    def remember(self, identity: dict[str, str]) -> None:
        """Keep what makes it the same emulator again."""
        with self._explained():
            self.connection.execute("BEGIN IMMEDIATE")
            tables.put_identity(self.connection, identity)
            self.connection.execute("COMMIT")

    def load(self) -> SavedState:
        """Read all that the lifecycle had."""
        with self._explained():
            return tables.read_state(self.connection)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Make a `JournalError` of whatever goes wrong."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise self._error(f"can't be used: {error}. End the program that holds it, or make room.") from None
        except (sqlite3.Error, msgspec.MsgspecError, ValueError, TypeError, AttributeError) as error:
            raise self._error(f"is damaged ({error}). {UNTOUCHED}") from None

    @property
    def log_bytes(self) -> int:
        """How large the write-ahead log is."""
        try:
            return self._beside("-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def checkpoint(self) -> None:
        """Copy the log into the file as far as it goes, from any thread and holding up nobody."""
        with contextlib.suppress(sqlite3.Error), contextlib.closing(self._connect()) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def checkpoint_here(self) -> None:
        """Copy what is left of the log, so that it begins anew. Waits for the disk."""
        self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
