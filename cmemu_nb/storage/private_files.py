"""Private files: directories and files that only their owner can read, and that are removed after a process was killed.

A process holds a lock on a file in its directory for as long as it lives, however it ends. So a directory without a
lock is left over, and the next emulator that starts removes it. Process ids are not used, because another process may
have the same id by now.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
import weakref
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cmemu_nb.eventloop.forks import close_in_children
from cmemu_nb.storage.owner_only import (
    FOLDER_RIGHTS,
    check_folder,
    is_ours,
    made_anew,
    make_folder,
    without_following,
    write_in,
)

if TYPE_CHECKING:
    from collections.abc import Collection

PREFIX = "cmemu_nb-"
LOCK = "lock"
# The files that a journal keeps in the directory beside it, apart from the files of replicas outside this process.
KEPT = (LOCK, "mark", "ca.pem", "ca-bundle.pem")


class PrivateFiles:
    """A directory that only its owner can read (0700), for the certificates and tokens that clients need.

    It is a temporary directory, which is removed at `close()`, when this object is collected, and when the interpreter
    ends; or the existing directory `lasting`, which stays.
    """

    def __init__(self, lasting: Path | None = None) -> None:
        self.path, lock = (lasting, None) if lasting else _make_directory()
        self.close = weakref.finalize(self, _remove, self.path, lock, os.getpid())

    def write(self, name: str, content: bytes) -> Path:
        """Write a file that only its owner can read (0600) and return its path. Raises `NotPrivate` if others could."""
        return write_in(self.path, name, content)

    def clean(self, replica_ids: Collection[str]) -> None:
        """Delete files of an earlier process in a lasting directory, except the files of these replicas."""
        for path in self.path.iterdir():
            if path.name not in KEPT and not path.name.endswith(tuple(f"-{each}" for each in replica_ids)):
                delete(path)

    def delete(self, ending: str) -> None:
        """Delete the files and folders whose names have this ending."""
        with contextlib.suppress(FileNotFoundError):  # they, or the whole folder, were deleted already
            for path in [each for each in self.path.iterdir() if each.name.endswith(ending)]:
                delete(path)

    def folder(self, name: str) -> Path:
        """Return a private directory inside it, and create it if it is missing."""
        check_folder(self.path)
        path = self.path / name
        make_folder(path)
        return path


def _make_directory() -> tuple[Path, IO[str]]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Until its lock is held, another process may take it for a left-over directory and remove it.
        with contextlib.suppress(FileNotFoundError):
            lock = open(path / LOCK, "x", opener=made_anew)  # noqa: SIM115 - kept open
            if is_locked_now(lock) and (path / LOCK).exists():
                # A forked child would otherwise hold the lock after this process has ended.
                close_in_children([lock])
                return path, lock
            lock.close()


def _remove(path: Path, lock: IO[str] | None, owner: int) -> None:
    # A forked child inherits this clean-up, but must not remove the files.
    if lock is not None and os.getpid() == owner:
        with lock, contextlib.suppress(OSError):
            _delete(path, lock)


def _delete(path: Path, lock: IO[str]) -> None:
    """Delete a directory, its lock last: if something can't be deleted now, the next start tries again."""
    for child in path.iterdir():
        if child.name != LOCK:
            delete(child)
    lock.close()
    shutil.rmtree(path)


def delete(path: Path) -> None:
    """Delete a file, a symbolic link, or a directory with its content."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)  # it does not follow symbolic links
    else:
        path.unlink()


def remove_left_directories() -> None:
    """Remove the temporary directories of this user's processes that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            _remove_if_left(path)


def _remove_if_left(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or not is_ours(found) or stat.S_IMODE(found.st_mode) != FOLDER_RIGHTS:
        return
    try:
        lock = open(path / LOCK, "r+", opener=without_following)  # noqa: SIM115 - closed below
    except FileNotFoundError:
        path.rmdir()  # its process was killed before it had a lock; this fails for a directory that is not empty
        return
    with lock:
        if is_locked_now(lock):
            _delete(path, lock)


def is_locked_now(file: IO[str] | IO[bytes]) -> bool:
    """Lock a file for this process until it is closed; return False if another process has locked it."""
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
