"""Writing to stderr from a thread of its own, so that a terminal or pipe that is not read blocks no other thread."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

from cmemu_nb.cli.parser import complain
from cmemu_nb.display.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINES = 1_000
END_SECONDS = 2.0


class StderrWriter:
    """A queue of lines for stderr, of at most `max_lines`; further lines are dropped and counted."""

    def __init__(self, max_lines: int = MAX_LINES) -> None:
        self._max_lines = max_lines
        self._lines: deque[str] = deque()
        self._left_out = 0
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._write_all, name="cmemu-stderr", daemon=True)
        self._thread.start()

    def add(self, line: str) -> None:
        """Queue a line; may be called from any thread and does not wait."""
        with self._lock:
            if len(self._lines) < self._max_lines:
                self._lines.append(line)
            else:
                self._left_out += 1
        self._news.set()

    def end(self) -> None:
        """Write the lines that are still queued, for at most two seconds."""
        self._ended = True
        self._news.set()
        self._thread.join(END_SECONDS)

    def _write_all(self) -> None:
        ended = False
        while not ended:
            self._news.wait()
            self._news.clear()
            ended = self._ended
            for line in self._take():
                _write(line)

    def _take(self) -> Iterator[str]:
        while True:
            with self._lock:
                line = self._lines.popleft() if self._lines else None
                left_out, self._left_out = (self._left_out, 0) if line is None else (0, self._left_out)
            if left_out:
                yield f"{left_out:,} more lines were omitted, because stderr was not read."
            if line is None:
                return
            yield line


def _write(line: str) -> None:
    try:
        number = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # stderr is not a file, for instance in a test
        complain(line)
        return
    text = memoryview(f"{visible(line, lines=True)}\n".encode(errors="backslashreplace"))
    # This bypasses Python's buffer: a thread that blocks there holds a lock that the exit of the process needs.
    with contextlib.suppress(OSError):
        while text:
            text = text[os.write(number, text) :]
