"""That one emulator at a time has a journal, by whatever name, and that its files are still those that it opened."""

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
    """A lock of the file itself, so that neither a hard link nor a deleted folder gets around it. Linux only.

    There `flock` and the locks of SQLite don't see each other; elsewhere they may. A process loses SQLite's locks as
    soon as it closes the file anywhere, so one that has it already must not even open it: that is asked first.
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
            # A forked child would hold the lock when the emulator is long gone.
            close_in_children([file])
            self._file = file
        _held_here().add(self._identity)

    def close(self) -> None:
        """Let others have the file, which SQLite must have closed before."""
        _held_here().discard(self._identity)
        if self._file is not None:
            self._file.close()


def _held_here() -> set[Identity]:
    # On sys: a module's globals are wiped by %autoreload.
    held: set[Identity] | None = getattr(sys, "_cmemu_nb_journals", None)
    if held is None:
        held = sys._cmemu_nb_journals = set()  # type: ignore[attr-defined]  # noqa: SLF001
    return held


class FileReplaced(OSError):
    """A file of the journal is not there any more, or another one is in its place."""


class Watch:
    """Knows which files these paths led to when it was made."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._files = [(path, *identity(path)) for path in map(str, paths)]

    def check(self) -> None:
        """Raise `FileReplaced` when one of the files was deleted, or another one is in its place."""
        for path, device, number in self._files:
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                raise FileReplaced(f"{path} was deleted") from None
            if found.st_ino != number or found.st_dev != device:
                raise FileReplaced(f"{path} was replaced by another file")


def identity(path: str) -> Identity:
    """Return what tells a file from every other one: its device and its number there."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino
