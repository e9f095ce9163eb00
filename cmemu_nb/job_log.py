"""What a job's function prints and logs, kept with the job."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_CHARACTERS = 1_000_000


class JobLog:
    """The text of one job, its newest million characters. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: deque[str] = deque()
        self._size = 0
        self._dropped = 0
        self._echo: Callable[[str], object] | None = None

    def write(self, text: str) -> None:
        """Append a text; beyond a million characters the oldest are dropped."""
        with self._lock:
            self._pieces.append(text)
            self._size += len(text)
            while self._size > MOST_CHARACTERS:
                self._drop(self._size - MOST_CHARACTERS)
            if self._echo is not None:
                self._echo(text)

    def _drop(self, most: int) -> None:
        oldest = self._pieces.popleft()
        rest = oldest[most:]
        if rest:
            self._pieces.appendleft(rest)
        self._size -= len(oldest) - len(rest)
        self._dropped += len(oldest) - len(rest)

    def echo(self, show: Callable[[str], object]) -> None:
        """Call `show(text)` with all that there is, and with every text that comes."""
        with self._lock:
            if self._pieces:
                show("".join(self._pieces))
            self._echo = show

    @property
    def text(self) -> str:
        """All that is kept, with a first line that says how much is not."""
        with self._lock:
            kept = "".join(self._pieces)
            return f"… {self._dropped:,} characters before this were dropped …\n{kept}" if self._dropped else kept
