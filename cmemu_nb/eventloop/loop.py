"""The emulator's private event loop.

Its class is its own, and takes its run methods from asyncio's base classes, so whatever somebody
patches into the kernel's loop (`nest_asyncio.apply()`) never reaches it, and the other way round.
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
    """A selector loop that can be driven bit by bit, from one thread at a time."""

    _stopping: bool

    def __init__(self) -> None:
        # Without file descriptors this ends half way, and the collector must not close what is not there.
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
        """Return the descriptor that is readable when the loop has something to do; ValueError where there is none."""
        number: int = self._selector.fileno()  # type: ignore[attr-defined]
        return number

    def due_in(self) -> float | None:
        """Return in how many seconds something is to be done that is not I/O; None for nothing."""
        if self._ready:  # type: ignore[attr-defined]
            return 0.0
        try:
            when: float = self._scheduled[0].when()  # type: ignore[attr-defined]
        except IndexError:
            return None
        return max(0.0, when - self.time())

    def drive(self, seconds: float = 0.0) -> None:
        """Do what is ready, and for so long also what that makes ready, without waiting.

        Other loops may be running in this thread.
        """
        self._rest_at = self.time() + seconds
        self._resting = self.call_soon(self._rest)
        with set_aside_running_loop():
            try:
                self.run_forever()
            finally:
                self._resting.cancel()

    def _rest(self) -> None:
        """Stop the loop, or come again as the last thing to do."""
        if self._ready and self.time() < self._rest_at:  # type: ignore[attr-defined]
            self._resting = self.call_soon(self._rest)
        else:
            self.stop()

    def stop(self) -> None:
        """Stop after this iteration; while a nested call runs, after that."""
        if self._nested:
            self._stop_asked = True
        else:
            super().stop()

    def run_nested(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end from inside one of the loop's own callbacks.

        Only here is nest-asyncio2 imported: it replaces `asyncio.Task` in the whole process, and `asyncio.run`, which
        is put back, since its own never closes a loop (https://github.com/Chaoses-Ib/nest-asyncio2). An interrupt
        cancels the coroutine instead of landing in the middle of somebody's handler.
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
            # The interrupted iteration counted these before it began, and is not content with fewer.
            for _ in range(left - len(ready)):
                self.call_soon(int)
            self._nested -= 1
            self._stopping = stopping or (self._stop_asked and not self._nested)
            self._stop_asked = self._stop_asked and bool(self._nested)


def is_all_that_is_ready(loop: asyncio.AbstractEventLoop, handle: asyncio.Handle | None) -> bool:
    """Tell whether a loop has this one callback to do next, and nothing else at the moment."""
    ready: deque[asyncio.Handle] = loop._ready  # type: ignore[attr-defined]  # noqa: SLF001 - asyncio's own loops have it
    return len(ready) == 1 and ready[0] is handle


@contextlib.contextmanager
def set_aside_running_loop() -> Iterator[None]:
    """Let another loop run in a thread whose own loop is in the middle of a callback."""
    outer = asyncio._get_running_loop()  # noqa: SLF001 - made for those who implement loops
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
    """The signal handler that only notes interrupts: it has something in it as soon as one came."""

    def __call__(self, *_: object) -> None:
        """Note an interrupt."""
        self.append(True)


@contextlib.contextmanager
def defer_interrupts(raise_after: Callable[[], bool]) -> Iterator[list[bool]]:
    """Keep an interrupt out of the emulator's code; it is raised afterwards, if `raise_after` agrees.

    Gives a list that has something in it as soon as one came. Within another such block it is that block's list, and
    that block raises.
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
    """Raise the interrupt that `defer_interrupts` has noted."""
    if interrupts:
        raise shortened(KeyboardInterrupt())


@contextlib.contextmanager
def quick_switches() -> Iterator[None]:
    """Let threads take turns every 0.5 ms: beside a cell that computes, an answer waits for several of them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(QUICK_SWITCH)
    try:
        yield
    finally:
        # Somebody may have set their own meanwhile.
        if abs(sys.getswitchinterval() - QUICK_SWITCH) < QUICK_SWITCH / 10:
            sys.setswitchinterval(before)
