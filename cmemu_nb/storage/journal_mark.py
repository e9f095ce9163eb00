"""The mark of a journal: the number of acknowledged commits, in a small file outside the database and its log.

SQLite silently ends a damaged or truncated log at its last undamaged commit. The mark distinguishes such a loss from
the state that kill -9 leaves: it is written after each commit and before the commit is acknowledged, and removed when
the journal is closed.
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
    """The mark of an open journal; `path` is its file."""

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        # The file is written in place: the mark that a killed process left is valid until there is a newer one.
        self._file = os.fdopen(open_in(path.parent, path.name, os.O_RDWR | os.O_CREAT), "r+b", buffering=0)
        self.write(number)
        # From now on it is overwritten in place: after a power cut it has this number or a later one.
        os.fsync(self._file.fileno())

    def write(self, number: int) -> None:
        """Write the number of the last commit."""
        self._file.seek(0)
        self._file.write(_line(number))

    def close(self) -> None:
        """Close the file without removing it."""
        self._file.close()

    def remove(self) -> None:
        """Remove the file, once everything is in the database."""
        self.path.unlink(missing_ok=True)


def folder_of(path: Path) -> Path:
    """Return the folder beside a journal, for the private files of its emulator."""
    return path.parent / f"{path.name}-files"


def mark_of(path: Path) -> Path:
    """Return the path of a journal's mark."""
    return folder_of(path) / NAME


def read_mark(path: Path) -> int | None:
    """Return the number of the last commit; None if there is no mark. Raises `ValueError` if the mark is damaged."""
    line = read(path)
    if not line:  # the process was killed at its start, before it wrote the mark
        return None
    if not line[:20].isdigit() or line != _line(int(line[:20])):
        raise ValueError(f"{path} is not what was written")
    return int(line[:20])


def _line(number: int) -> bytes:
    digits = b"%020d" % number
    return b"%b %08x\n" % (digits, zlib.crc32(digits))
