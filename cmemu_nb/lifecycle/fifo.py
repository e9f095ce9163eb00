"""A first-in, first-out queue of texts that may grow very long without slowing down the kernel's garbage collector."""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHUNK = 1024


class LongQueue:
    """A first-in, first-out queue of texts, most of which the garbage collector need not visit.

    A full collection visits every item of each list or deque in the whole process; a million of them take a quarter of
    a second. The collector untracks tuples of texts, so the middle of the queue is kept in such tuples.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._oldest: deque[str] = deque()
        self._middle: deque[tuple[str, ...]] = deque()
        self._newest: list[str] = []
        self._length = 0
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a text at the end."""
        self._newest.append(text)
        self._length += 1
        if len(self._newest) == CHUNK:
            self._middle.append(tuple(self._newest))
            self._newest.clear()

    def popleft(self) -> str:
        """Remove and return the oldest text; an `IndexError` when there is none."""
        if not self._oldest and self._middle:
            self._oldest.extend(self._middle.popleft())
        elif not self._oldest:
            self._oldest.extend(self._newest)
            self._newest.clear()
        text = self._oldest.popleft()
        self._length -= 1
        return text

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[str]:
        return chain(self._oldest, chain.from_iterable(self._middle), self._newest)
