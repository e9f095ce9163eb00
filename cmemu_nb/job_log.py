"""What a job's function prints and logs, kept with the job."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_CHARACTERS = 1_000_000


class JobLog:
    """The text of one job, its newest million characters. Every method may be called from any thread.

    `explanation` says what is wrong with a result that can't be encoded; "" of any other.
    """

    __slots__ = ("_echo", "_lock", "_pieces", "_size", "_written", "explanation")

    def __init__(self) -> None:
        self.explanation = ""
        self._lock = threading.Lock()
        self._pieces: list[str] = []
        self._size = 0
        self._written = 0
        self._echo: Callable[[str], object] | None = None

    def write(self, text: str) -> None:
        """Append a text; beyond a million characters the oldest are dropped."""
        with self._lock:
            self._pieces.append(text)
            self._size += len(text)
            self._written += len(text)
            if self._size >= 2 * MOST_CHARACTERS:  # not at every text, since that copies all that is kept
                self._pieces = [self._newest()]
                self._size = MOST_CHARACTERS
            if self._echo is not None:
                self._echo(text)

    def _newest(self) -> str:
        return "".join(self._pieces)[-MOST_CHARACTERS:]

    def echo(self, show: Callable[[str], object]) -> None:
        """Call `show(text)` with all that there is, and with every text that comes."""
        with self._lock:
            if self._pieces:
                show(self._newest())
            self._echo = show

    @property
    def text(self) -> str:
        """All that is kept, with a first line that says how much is not."""
        with self._lock:
            kept = self._newest()
            dropped = self._written - len(kept)
            return f"… {dropped:,} characters before this were dropped …\n{kept}" if dropped else kept
