"""The cleanup steps of everything that an emulator has started, so that a stop leaves nothing behind."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Endings:
    """Cleanup steps, run in reverse order of their addition; all of them run even if some fail.

    `contextlib.ExitStack` does the same, but keeps only the last error; here `failures` has all of them.
    """

    def __init__(self) -> None:
        self._ends: list[Callable[[], object]] = []
        self.failures: list[BaseException] = []

    def add(self, end: Callable[..., object], *arguments: Any) -> None:
        """Add a cleanup step: a function to call, with its arguments."""
        self._ends.append(partial(end, *arguments))

    def end(self) -> None:
        """Run all steps and remove them."""
        while self._ends:
            try:
                self._ends.pop()()
            except BaseException as error:  # noqa: BLE001 - the other steps must run after any error
                self.failures.append(error)

    async def aend(self) -> None:
        """Run all steps and remove them, on an event loop; a step may be a coroutine function."""
        while self._ends:
            try:
                ended = self._ends.pop()()
                if inspect.isawaitable(ended):
                    await ended
            except BaseException as error:  # noqa: BLE001 - the other steps must run after any error
                self.failures.append(error)
