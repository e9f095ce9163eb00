"""The log of a job: what its function prints and logs, kept with the job."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cmemu_nb.wire.labels import size_of

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CHARACTERS = 1_000_000
# Pieces are joined by blocks: a text of one character takes 50 bytes as an item of a list.
PIECES_IN_A_BLOCK = 1000


class Printed:
    """How many bytes the logs of one emulator have; any thread may add to it."""

    __slots__ = ("_lock", "size")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.size = 0

    def add(self, size: int) -> None:
        """Add a size, which may be negative."""
        with self._lock:
            self.size += size


class JobLog:
    """The text that one job has printed, its newest million characters. Every method may be called from any thread.

    `explanation` says why there is no value when the executor knows more than the posted error says, else it is "".
    `stream_error` is the exception that, as a launched module says, breaks off the result's stream, else "".
    `printed` counts the bytes that are kept, until the log is closed.
    """

    __slots__ = (
        *("_blocks", "_counted", "_echo", "_lock", "_pieces", "_printed", "_size", "_written", "explanation"),
        "stream_error",
    )

    def __init__(self, printed: Printed | None = None) -> None:
        self.explanation = ""
        self.stream_error = ""
        self._lock = threading.Lock()
        self._printed = printed
        self._counted = 0
        self._blocks: list[str] = []
        self._pieces: list[str] = []
        self._size = 0
        self._written = 0
        self._echo: Callable[[str], object] | None = None

    def write(self, text: str) -> None:
        """Append a text; beyond a million characters the oldest ones are dropped."""
        with self._lock:
            kept = text[-MAX_CHARACTERS:]
            self._pieces.append(kept)
            self._size += len(kept)
            self._written += len(text)
            self._count(self._counted + size_of(kept))
            if len(self._pieces) >= PIECES_IN_A_BLOCK:
                self._blocks.append("".join(self._pieces))
                self._pieces = []
            if self._size >= 2 * MAX_CHARACTERS:  # not for every text, since this copies all that is kept
                self._blocks, self._pieces = [self._newest()], []
                self._size = MAX_CHARACTERS
                self._count(size_of(self._blocks[0]))
            if self._echo is not None:
                self._echo(text)

    def close(self) -> None:
        """Count the bytes of this log no longer: its job is evicted or cleared."""
        with self._lock:
            self._count(0)
            self._printed = None

    def _count(self, size: int) -> None:
        if self._printed is not None:
            self._printed.add(size - self._counted)
            self._counted = size

    def _newest(self) -> str:
        return "".join([*self._blocks, *self._pieces])[-MAX_CHARACTERS:]

    def explain(self, explanation: str) -> None:
        """Set the explanation: why there is no value, in more words than the posted error has."""
        self.explanation = explanation

    def explain_stream(self, error: str) -> None:
        """Set the exception that breaks off the result's stream, as a launched module reports it."""
        self.stream_error = error

    def echo(self, show: Callable[[str], object]) -> None:
        """Call `show(text)` with all that is kept, and then with every text that is written."""
        with self._lock:
            if self._size:
                show(self._newest())
            self._echo = show

    @property
    def text(self) -> str:
        """The text that is kept, with a first line that says how much was dropped, if any was."""
        with self._lock:
            kept = self._newest()
            dropped = self._written - len(kept)
            return f"… {dropped:,} characters before this were dropped …\n{kept}" if dropped else kept
