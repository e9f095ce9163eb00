"""The lock of a journal for one emulator, under any name of the file, and the check that its files are unchanged."""

from __future__ import annotations

import os
import sys
from typing import IO, TYPE_CHECKING

from cmemu_nb.eventloop.forks import close_in_children
from cmemu_nb.storage.owner_only import without_following
from cmemu_nb.storage.private_files import is_locked_now

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Identity = tuple[int, int]


class FileLock:
    """A lock of the file itself, which neither a hard link nor a deleted folder circumvents. Linux only.

    On Linux, `flock` and the locks of SQLite don't interact; on other systems they may. A process loses SQLite's locks
    as soon as it closes the file anywhere, so a process that has the journal open must not even open the file: this is
    checked first.
    """

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] | None = None
        self._identity = identity(str(path))
        if self._identity in _held_here():
            raise BlockingIOError
        if sys.platform == "linux":
            file = open(path, "r+b", buffering=0, opener=without_following)  # noqa: SIM115 - kept open
            if not is_locked_now(file):
                file.close()
                raise BlockingIOError
            # A forked child would otherwise hold the lock after the emulator has ended.
            close_in_children([file])
            self._file = file
        _held_here().add(self._identity)

    def close(self) -> None:
        """Release the file, which SQLite must have closed before."""
        _held_here().discard(self._identity)
        if self._file is not None:
            self._file.close()


def _held_here() -> set[Identity]:
    # It is kept on sys because %autoreload clears the globals of modules.
    held: set[Identity] | None = getattr(sys, "_cmemu_nb_journals", None)
    if held is None:
        held = sys._cmemu_nb_journals = set()  # type: ignore[attr-defined]  # noqa: SLF001
    return held


class FileReplaced(OSError):
    """A file of the journal was deleted or replaced by another file."""


class Watch:
    """The identities of the files at some paths, at the time when it was made."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._files = [(path, *identity(path)) for path in map(str, paths)]

    def check(self) -> None:
        """Raise `FileReplaced` if one of the files was deleted or replaced by another file."""
        for path, device, number in self._files:
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                raise FileReplaced(f"{path} was deleted") from None
            if found.st_ino != number or found.st_dev != device:
                raise FileReplaced(f"{path} was replaced by another file")


def identity(path: str) -> Identity:
    """Return the identity of a file: its device and its number there."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino
