"""Starting the replicas of a module again after their programs have exited, as the platform does: it backs off.

The delay before a restart doubles each time. A replica whose program exits too often is not started again.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmemu_nb.eventloop.loop import EmulatorLoop

MAX_RESTARTS = 5
RESTART_SECONDS = 1.0
WINDOW_SECONDS = 600.0


class Restarts:
    """The restarts of one module's replicas, which are known by their numbers; `start(number)` starts one again."""

    def __init__(self, loop: Callable[[], EmulatorLoop], start: Callable[[int], None]) -> None:
        self._loop = loop
        self._start = start
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._times: defaultdict[int, deque[float]] = defaultdict(deque)

    def schedule(self, number: int) -> float | None:
        """Start a replica again after a delay, which is returned in seconds; None if that was done too often."""
        loop, times = self._loop(), self._times[number]
        while times and times[0] <= loop.time() - WINDOW_SECONDS:
            times.popleft()
        if len(times) >= MAX_RESTARTS:
            return None
        delay: float = RESTART_SECONDS * 2 ** len(times)
        times.append(loop.time())
        self._timers[number] = loop.call_later(delay, self._restart, number)
        return delay

    def seconds_left(self, number: int) -> float | None:
        """Return in how many seconds a replica is started again; None if it is not to be. From any thread."""
        timer = self._timers.get(number)
        return None if timer is None else max(0.0, timer.when() - time.monotonic())

    @property
    def pending(self) -> bool:
        """Whether any replica is to be started again."""
        return bool(self._timers)

    def cancel_one(self, number: int) -> None:
        """Do not start a replica again."""
        if (timer := self._timers.pop(number, None)) is not None:
            timer.cancel()

    def cancel(self) -> None:
        """Start no replica again, and forget how often that was done."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._times.clear()

    def _restart(self, number: int) -> None:
        try:
            self._start(number)
        finally:
            del self._timers[number]
