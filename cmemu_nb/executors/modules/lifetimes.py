"""How long the replicas of a module live: on the platform, each is replaced before it is a day old [foundry]."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmemu_nb.eventloop.loop import EmulatorLoop
    from cmemu_nb.executors.modules.process import ReplicaProcess

RETRY_SECONDS = 60.0
"""After how long it is tried again to replace a replica whose replacement failed."""


class Lifetimes:
    """The timers of the replicas of one module; `replace(process)` is called when a replica has lived long enough."""

    def __init__(self, loop: Callable[[], EmulatorLoop], replace: Callable[[ReplicaProcess], None]) -> None:
        self._loop = loop
        self._replace = replace
        self._timers: dict[ReplicaProcess, asyncio.TimerHandle] = {}

    def begin(self, process: ReplicaProcess, seconds: float | None) -> None:
        """Call `replace` for a replica after so many seconds; None for never."""
        self.end(process)
        if seconds is not None:
            self._timers[process] = self._loop().call_later(seconds, self._expire, process)

    def end(self, process: ReplicaProcess) -> None:
        """Forget a replica, which is ended or has exited."""
        if (timer := self._timers.pop(process, None)) is not None:
            timer.cancel()

    def _expire(self, process: ReplicaProcess) -> None:
        del self._timers[process]
        self._replace(process)
