"""A pool of threads that run functions."""

from __future__ import annotations

import contextvars
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Task = Callable[[], object]

IDLE = "cmemu-job-idle"


class ThreadPool:
    """Runs each task in an idle thread, or in a new thread if none is idle.

    The threads are daemons: a task that never returns delays neither other tasks nor the end of the kernel.
    """

    def __init__(self) -> None:
        self._tasks: SimpleQueue[tuple[str, Task] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)

    def run(self, name: str, task: Task) -> None:
        """Run a task in an empty context; its thread has the given name meanwhile."""
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._run_tasks, name=name, daemon=True).start()
        self._tasks.put((name, task))

    def close(self) -> None:
        """End the idle threads now, and each busy thread after its task."""
        self._tasks.put(None)

    def _run_tasks(self) -> None:
        while (named_task := self._tasks.get()) is not None:
            threading.current_thread().name, task = named_task
            contextvars.Context().run(task)
            threading.current_thread().name = IDLE
            del named_task, task  # an idle thread must not keep the objects of its last job alive
            self._idle.release()
        self._tasks.put(None)  # ends the next thread
