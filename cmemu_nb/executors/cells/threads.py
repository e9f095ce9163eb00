"""Threads that run functions, each used again for the next job."""

from __future__ import annotations

import contextvars
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], object]

IDLE = "cmemu-job-idle"


class Workers:
    """Runs each work in a thread that has nothing else to do, or in a new one.

    The threads are daemons: one whose work never returns holds up neither the others nor the end of the kernel.
    """

    def __init__(self) -> None:
        self._works: SimpleQueue[tuple[str, Work] | None] = SimpleQueue()
        self._free = threading.Semaphore(0)

    def run(self, name: str, work: Work) -> None:
        """Run a work in a context of its own; meanwhile its thread has that name."""
        if not self._free.acquire(blocking=False):
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        self._works.put((name, work))

    def close(self) -> None:
        """End the idle threads now, and every other when its work is done."""
        self._works.put(None)

    def _serve(self) -> None:
        while (task := self._works.get()) is not None:
            threading.current_thread().name, work = task
            contextvars.Context().run(work)
            threading.current_thread().name = IDLE
            del task, work  # what the job has held is free while the thread waits
            self._free.release()
        self._works.put(None)  # for the next one
