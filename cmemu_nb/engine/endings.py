"""How everything that an emulator has begun ends, so that nothing is forgotten."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Endings:
    """What ends each part that has begun. The last one is called first, and all are called even if some fail.

    `contextlib.ExitStack` does the same, but keeps only the last error; here `failures` has all of them.
    """

    def __init__(self) -> None:
        self._ends: list[Callable[[], object]] = []
        self.failures: list[BaseException] = []

    def add(self, end: Callable[..., object], *arguments: Any) -> None:
        """Note how a part ends."""
        self._ends.append(partial(end, *arguments))

    def end(self) -> None:
        """End all parts. Nothing when there are none."""
        while self._ends:
            try:
                self._ends.pop()()
            except BaseException as error:  # noqa: BLE001 - whatever it is, the other parts must end, too
                self.failures.append(error)

    async def aend(self) -> None:
        """End all parts, on an event loop: those that are coroutines, too."""
        while self._ends:
            try:
                ended = self._ends.pop()()
                if inspect.isawaitable(ended):
                    await ended
            except BaseException as error:  # noqa: BLE001 - whatever it is, the other parts must end, too
                self.failures.append(error)
