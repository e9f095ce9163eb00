"""The emulator's private event loop.

It has a class of its own with the run methods of asyncio's base classes, so patches of the kernel's loop
(`nest_asyncio.apply()`) never affect it, and its patches never affect the kernel's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import signal
import sys
import threading
import warnings
from asyncio.selector_events import BaseSelectorEventLoop
from typing import TYPE_CHECKING, Any, TypeVar

from cmemu_nb.tracebacks import shortened

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine, Iterator

T = TypeVar("T")
QUICK_SWITCH = 0.0005


class EmulatorLoop(BaseSelectorEventLoop):
    """A selector loop that can be driven step by step, from one thread at a time."""

    _stopping: bool

    def __init__(self) -> None:
        # Without free file descriptors this fails half way; then __del__ must not close what was not opened.
        self._closed = True
        selector = selectors.DefaultSelector()
        try:
            super().__init__(selector)
        except BaseException:
            selector.close()
            self._closed = True
            raise
        self._nested = 0
        self._stop_asked = False

    def fileno(self) -> int:
        """Return the descriptor that is readable when the loop has something to do; ValueError if there is none."""
        number: int = self._selector.fileno()  # type: ignore[attr-defined]
        return number

    def due_in(self) -> float | None:
        """Return the seconds until the next callback or timer is due; None if there is none."""
        if self._ready:  # type: ignore[attr-defined]
            return 0.0
        try:
            when: float = self._scheduled[0].when()  # type: ignore[attr-defined]
        except IndexError:
            return None
        return max(0.0, when - self.time())

    def drive(self, seconds: float = 0.0) -> None:
        """Run the callbacks that are ready, and for that many seconds also those that they make ready, without waiting.

        Another loop may be running in this thread.
        """
        self._pause_at = self.time() + seconds
        self._pausing = self.call_soon(self._pause)
        with set_aside_running_loop():
            try:
                self.run_forever()
            finally:
                self._pausing.cancel()

    def _pause(self) -> None:
        """Stop the loop, or schedule this again behind the callbacks that are ready."""
        if self._ready and self.time() < self._pause_at:  # type: ignore[attr-defined]
            self._pausing = self.call_soon(self._pause)
        else:
            self.stop()

    def stop(self) -> None:
        """Stop after this iteration, or after the nested call that is running."""
        if self._nested:
            self._stop_asked = True
        else:
            super().stop()

    def run_nested(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end from inside one of the loop's own callbacks.

        nest-asyncio2 is imported only here, because it replaces `asyncio.Task` in the whole process. It also replaces
        `asyncio.run`, which is restored, because its replacement never closes a loop
        (https://github.com/Chaoses-Ib/nest-asyncio2). An interrupt cancels the coroutine instead of being raised in the
        middle of another handler.
        """
        import nest_asyncio2  # noqa: PLC0415

        run = asyncio.run
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nest_asyncio2.apply(self)
        asyncio.run = run
        stopping, self._stopping = self._stopping, False
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]
        left = len(ready)
        self._nested += 1
        try:
            task = self.create_task(coroutine)
            with cancel_on_interrupt(self, task):
                result: T = self.run_until_complete(task)
                return result
        finally:
            # The interrupted iteration has counted its callbacks before it began, and fails if fewer are left.
            for _ in range(left - len(ready)):
                self.call_soon(int)
            self._nested -= 1
            self._stopping = stopping or (self._stop_asked and not self._nested)
            self._stop_asked = self._stop_asked and bool(self._nested)


def is_all_that_is_ready(loop: asyncio.AbstractEventLoop, handle: asyncio.Handle | None) -> bool:
    """Return whether this callback is the only one that a loop has ready."""
    ready: deque[asyncio.Handle] = loop._ready  # type: ignore[attr-defined]  # noqa: SLF001 - asyncio's own loops have it
    return len(ready) == 1 and ready[0] is handle


@contextlib.contextmanager
def set_aside_running_loop() -> Iterator[None]:
    """Let another loop run in a thread whose own loop is in the middle of a callback."""
    outer = asyncio._get_running_loop()  # noqa: SLF001 - meant for implementers of event loops
    asyncio._set_running_loop(None)  # noqa: SLF001
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)  # noqa: SLF001


@contextlib.contextmanager
def cancel_on_interrupt(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> Iterator[None]:
    """Turn an interrupt into the task's cancellation, and that into KeyboardInterrupt."""
    hit = []

    def on_interrupt(*_: object) -> None:
        hit.append(True)
        loop.call_soon_threadsafe(task.cancel)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    except asyncio.CancelledError:
        if hit:
            raise shortened(KeyboardInterrupt()) from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)


class Interrupts(list[bool]):
    """A signal handler that only records interrupts: the list is not empty as soon as an interrupt has arrived."""

    def __call__(self, *_: object) -> None:
        """Record an interrupt."""
        self.append(True)


@contextlib.contextmanager
def defer_interrupts(raise_after: Callable[[], bool]) -> Iterator[list[bool]]:
    """Keep an interrupt out of the emulator's code; it is raised afterwards if `raise_after` returns True.

    The context manager returns a list that is not empty as soon as an interrupt has arrived. Inside another such block
    it is the list of that block, which then raises the interrupt.
    """
    on_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if on_main_thread else None
    hit = handler if isinstance(handler, Interrupts) else Interrupts()
    if handler is not signal.default_int_handler:
        yield hit
        return
    signal.signal(signal.SIGINT, hit)
    try:
        yield hit
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hit and raise_after():
        raise shortened(KeyboardInterrupt())


def raise_if_interrupted(interrupts: list[bool]) -> None:
    """Raise the interrupt that `defer_interrupts` has recorded."""
    if interrupts:
        raise shortened(KeyboardInterrupt())


@contextlib.contextmanager
def quick_switches() -> Iterator[None]:
    """Make Python switch threads every 0.5 ms: an answer needs several switches beside a cell that computes."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(QUICK_SWITCH)
    try:
        yield
    finally:
        # Other code may have set another interval meanwhile.
        if abs(sys.getswitchinterval() - QUICK_SWITCH) < QUICK_SWITCH / 10:
            sys.setswitchinterval(before)
