"""The mark of a journal: how many commits were acknowledged, in a small file outside of the database and its log.

SQLite ends a damaged or truncated log silently at its last sound commit. The mark tells such a loss from what kill -9
leaves: it is written after each commit and before anybody hears of it, and removed when the journal is closed.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

from cmemu_nb.storage.owner_only import open_in, read

if TYPE_CHECKING:
    from pathlib import Path

NAME = "mark"


class Mark:
    """The mark of a journal that is open; `path` is its file."""

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        # In place, since the one that a killed process left counts until there is a newer one.
        self._file = os.fdopen(open_in(path.parent, path.name, os.O_RDWR | os.O_CREAT), "r+b", buffering=0)
        self.write(number)
        # Written over in place from now on: after a power cut there is this number, or a later one.
        os.fsync(self._file.fileno())

    def write(self, number: int) -> None:
        """Note the number of the last commit."""
        self._file.seek(0)
        self._file.write(_line(number))

    def close(self) -> None:
        """Close the file, and leave it there."""
        self._file.close()

    def remove(self) -> None:
        """Remove the file, when all is in the database."""
        self.path.unlink(missing_ok=True)


def folder_of(path: Path) -> Path:
    """Return the folder beside a journal, for the private files of its emulator."""
    return path.parent / f"{path.name}-files"


def mark_of(path: Path) -> Path:
    """Return the path of a journal's mark."""
    return folder_of(path) / NAME


def read_mark(path: Path) -> int | None:
    """Return the number of the last commit, None if there is no mark; a `ValueError` if it is damaged."""
    line = read(path)
    if not line:  # it was never written, by a process that was killed at its start
        return None
    if not line[:20].isdigit() or line != _line(int(line[:20])):
        raise ValueError(f"{path} is not what was written")
    return int(line[:20])


def _line(number: int) -> bytes:
    digits = b"%020d" % number
    return b"%b %08x\n" % (digits, zlib.crc32(digits))
