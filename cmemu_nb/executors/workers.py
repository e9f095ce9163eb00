"""Threads that run functions, each used again for the next job."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], object]
    Given = SimpleQueue[tuple[str, Work] | None]

IDLE = "cmemu-job-idle"


class Workers:
    """Runs each work in a thread that has nothing else to do, or in a new one.

    The threads are daemons: one whose work never returns holds up neither the others nor the end of the kernel.
    """

    def __init__(self) -> None:
        self._idle: deque[Given] = deque()
        self._closed = False

    def run(self, name: str, work: Work) -> None:
        """Run a work in a context of its own; meanwhile its thread has that name."""
        try:
            given = self._idle.pop()
        except IndexError:
            given = SimpleQueue()
            threading.Thread(target=self._serve, args=(given,), name=name, daemon=True).start()
        given.put((name, work))

    def close(self) -> None:
        """End the idle threads now, and every other when its work is done."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().put(None)

    def _serve(self, given: Given) -> None:
        while (task := given.get()) is not None:
            threading.current_thread().name, work = task
            contextvars.Context().run(work)
            threading.current_thread().name = IDLE
            del task, work  # what the job has held is free while the thread waits
            self._idle.append(given)
            if self._closed:
                self.close()
