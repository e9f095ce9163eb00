"""The end of a function that runs in another thread, by an exception that Python raises in that thread.

`PyThreadState_SetAsyncExc` raises it at the thread's next step of Python code, whichever code that is. Therefore it is
set only once, under a lock, and only while the function's own code runs: all other code runs outside `Ending.call()`,
or is `shielded`.
[Python's documentation: https://docs.python.org/3/c-api/init.html#c.PyThreadState_SetAsyncExc]
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cmemu_nb.errors import JobEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

T = TypeVar("T")
_END = object()
# A function that ends in the middle of these would leave a lock of the whole process held, or a module half imported.
# The last is this package, which the function may have called.
_HARMFUL = (logging.Handler.handle.__code__.co_filename, "<frozen importlib.", f"{Path(__file__).parents[1]}{os.sep}")
_of_this_thread = threading.local()


class Ending:
    """The request to end a function that runs in a thread. `begin()` is called in that thread, `request()` in another.

    `JobEnded` is raised at most once, so a function that catches it continues to run.
    """

    def __init__(self) -> None:
        # Reentrant: if the exception arrives while the lock is being released, the same thread can take it again.
        self._lock = threading.RLock()
        self._thread = 0
        self._requested = False
        self._raised = False
        self._exposed = False
        self.calls: set[Callable[[], object]] = set()
        """Callbacks for the request to end: one for each call of another function for which this function waits."""

    # In other threads

    def request(self) -> bool:
        """Request that the function ends, now or when C code that it has called returns.

        Returns False if the function is logging, importing or calling this package at this moment: then request again
        a little later.
        """
        if not self._requested:
            self._requested = True
            for end_call in list(self.calls):
                end_call()
        if self._raised:
            return True
        with self._lock:
            if not self.runs or self._raised:  # else it is raised as soon as the function's own code runs again
                return True
            if self._is_harmful():
                return False
            self._raised = True
            _raise_in(self._thread)
        return True

    @property
    def runs(self) -> bool:
        """Whether the function's own code is running at this moment."""
        return self._exposed

    def _is_harmful(self) -> bool:
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - there is no other way to see another thread
        while frame is not None and frame.f_code is not Ending.call.__code__:
            if frame.f_code.co_filename.startswith(_HARMFUL):
                return True
            frame = frame.f_back
        return False

    # In the thread itself

    def begin(self) -> None:
        """Record which thread runs the function."""
        self._thread = threading.get_ident()
        _of_this_thread.ending = self

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that may be ended. Raises `JobEnded` if it was, even if it returned at that moment."""
        try:
            try:
                self._expose()
                return function(*arguments)
            finally:
                self._cover()
        except JobEnded:
            self._cover()  # the exception may have interrupted the first call, and is raised only once
            raise

    def items(self, iterable: Iterable[T]) -> Iterator[T]:
        """Iterate over what a function returned; its own code runs in the meantime and may be ended."""
        iterator = self.call(iter, iterable)
        while (item := self.call(next, iterator, _END)) is not _END:
            yield item

    @property
    def due(self) -> bool:
        """Whether the function should end, and `JobEnded` was not raised yet."""
        return self._requested and not self._raised

    def _expose(self) -> None:
        self._exposed = True
        self.raise_if_due()

    def raise_if_due(self) -> None:
        """Raise `JobEnded` if the function should end."""
        if self._requested:
            with self._lock:
                due, self._raised = not self._raised, True
            if due:
                raise JobEnded

    def _cover(self) -> None:
        self._exposed = False
        with self._lock:
            pass  # a thread that saw the function exposed has set the exception by now
        _step()  # the exception is raised here, if it was not raised before


class shielded:  # noqa: N801 - used like a function
    """Keep `JobEnded` out of code that a function in a cell calls; it is raised before or after that code.

    The context manager returns the thread's `Ending`, for code that waits and can stop when it is `due`; or None.
    """

    _covered: Ending | None = None

    def __enter__(self) -> Ending | None:
        ending = ending_here()
        if ending is not None:
            ending._cover()  # noqa: SLF001
            self._covered = ending
        return self._covered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._covered is not None:
            self._covered._expose()  # noqa: SLF001


def ending_here() -> Ending | None:
    """Return the `Ending` of the function in a cell that has called this; None if there is none."""
    ending: Ending | None = getattr(_of_this_thread, "ending", None)
    return ending if ending is not None and ending.runs else None


def _step() -> None:
    """Do nothing. At the beginning of a Python function, Python raises the exception that another thread has set."""


def _raise_in(thread: int) -> None:
    import ctypes  # noqa: PLC0415 - most processes never end a function

    # Access by item returns a function object of our own. Access by attribute would return the one that other code
    # shares, and whose argument types it may set.
    set_exception = ctypes.pythonapi["PyThreadState_SetAsyncExc"]
    set_exception.argtypes = (ctypes.c_ulong, ctypes.py_object)
    set_exception(thread, JobEnded)
    if sys.version_info < (3, 12):
        # Until that thread runs Python code again, which may take long, Python 3.11 signals every thread that there is
        # an exception to raise, and a thread that a debugger traces never gets past the beginning of a function. The
        # signal ends when any exception is raised in this way, and is given to that thread again when it runs.
        try:
            set_exception(threading.get_ident(), JobEnded)
            _step()
        except JobEnded:
            pass
