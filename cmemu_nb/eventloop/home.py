"""The homes of the emulator's event loop: the threads that drive it.

`ThreadHome` always drives the private loop on a thread of its own. `KernelHome` makes it a guest of the kernel's loop:
the kernel's loop drives it while the kernel is idle or a cell awaits, and a stand-in thread drives it while a cell
blocks the kernel's loop. So nothing hangs, and nothing is served twice: exactly one thread drives the loop at a time,
under one lock.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import os
import select
import sys
import threading
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from cmemu_nb.errors import HomeError, NotRunning
from cmemu_nb.eventloop.ending import shielded
from cmemu_nb.eventloop.loop import EmulatorLoop, defer_interrupts, quick_switches, set_aside_running_loop
from cmemu_nb.ipython import current_shell
from cmemu_nb.tracebacks import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

T = TypeVar("T")

STALL_SECONDS = 0.05
LOOK_SECONDS = 1.0
SLICE_SECONDS = 0.002
TICK_SECONDS = 0.1
PATIENCE_SECONDS = 5.0
STOPPED_MEANWHILE = "The emulator was stopped while this call was waiting. Start it and call again."


class Home:
    """Runs the emulator's event loop, and runs coroutines on it for other threads and loops.

    `on_nested` is called the first time that a synchronous call is made on the emulator's own loop.
    """

    kind: ClassVar[str]

    def __init__(self, on_nested: Callable[[], None]) -> None:
        self.loop = EmulatorLoop()
        self._on_nested: Callable[[], None] | None = on_nested
        self._pid = os.getpid()
        self._entering = threading.RLock()
        self._refuses = False
        self._free = False
        self._closing = False
        self._thread: threading.Thread

    def run(self, coroutine: Coroutine[Any, Any, T], on_tick: Callable[[], object] | None = None) -> T:
        """Run a coroutine on the emulator's loop and wait for its result, from any thread.

        While it waits, it calls `on_tick` ten times a second, for the first time after a tenth of a second. An
        interrupt cancels the coroutine, and so does the end of the job whose function calls this. Raises `NotRunning`
        if the emulator is stopped, and `HomeError` in a forked child.
        """
        self._check(coroutine)
        if asyncio._get_running_loop() is self.loop:  # noqa: SLF001 - None when no loop runs, without an exception
            with self._ticks(on_tick):
                return self._run_nested(coroutine)
        # An interrupt that is raised while the future's lock is being taken would leave it locked, and the thread that
        # drives the loop would hang. So interrupts are only recorded, and this thread has to poll for them.
        with shielded() as ending, defer_interrupts(lambda: True) as interrupts:
            future = self._schedule(coroutine)
            self._hand_over()
            try:
                while not (interrupts or future.done() or (ending and ending.due)):
                    if concurrent.futures.wait([future], TICK_SECONDS).not_done and on_tick is not None:
                        on_tick()
                if interrupts:
                    raise shortened(KeyboardInterrupt())
                if ending is not None:
                    ending.raise_if_due()
                return future.result()
            except concurrent.futures.CancelledError:
                raise NotRunning(STOPPED_MEANWHILE) from None
            finally:
                future.cancel()

    async def arun(self, coroutine: Coroutine[Any, Any, T], on_tick: Callable[[], object] | None = None) -> T:
        """Run a coroutine on the emulator's loop and await its result on another loop or on the same one."""
        self._check(coroutine)
        if asyncio.get_running_loop() is self.loop:
            with self._ticks(on_tick):
                return await coroutine
        with shielded():
            theirs = self._schedule(coroutine)
            ours = asyncio.wrap_future(theirs)
        try:
            while not ours.done():
                # An interrupt of a cell that awaits is noticed only at the next iteration of the kernel's loop.
                await asyncio.wait({ours}, timeout=TICK_SECONDS)
                if on_tick is not None and not ours.done():
                    on_tick()
            if ours.cancelled():
                raise NotRunning(STOPPED_MEANWHILE)
            return ours.result()
        except asyncio.CancelledError as error:  # how an interrupt of a cell that awaits arrives
            shortened(error)
            raise
        finally:
            with shielded():
                theirs.cancel()

    def stop_driving(self) -> None:
        """Refuse new calls and stop driving the loop, so that the calling thread can close it.

        After a `HomeError` nothing has changed.
        """
        if self._free:
            return
        self._refuse_calls(refuse=True)
        try:
            self._stop_driving()
        except BaseException:
            self._refuse_calls(refuse=False)
            raise
        self._free = True

    def close(self, farewell: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Run `farewell`, end every task and close the loop. It does nothing if the loop is closed already."""
        self.stop_driving()
        if self.loop.is_closed():
            return
        try:
            self.loop.drive()  # handles requests to stop that are left, which would end the farewell early
            with set_aside_running_loop():
                if farewell is not None:
                    self.loop.run_until_complete(farewell())
                self._end_tasks()
                self.loop.run_until_complete(self.loop.shutdown_asyncgens())
                self.loop.run_until_complete(self.loop.shutdown_default_executor())
                self._end_tasks()
        finally:
            self.loop.close()

    def _end_tasks(self) -> None:
        """Cancel tasks until there are none: the end of a task may start others, and so may callbacks of threads."""
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    def cell_starts(self, *_: object) -> None:
        """Handle that a cell begins, which may block the kernel's loop."""

    def cell_ends(self, *_: object) -> None:
        """Handle that a cell has ended."""

    def _schedule(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        # Under a lock, so that everything that is scheduled is scheduled before the loop begins to close.
        with self._entering:
            if not self._refuses:
                return asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        coroutine.close()
        raise NotRunning(STOPPED_MEANWHILE)

    def _refuse_calls(self, *, refuse: bool) -> None:
        with self._entering:
            self._refuses = refuse

    def _check(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        if self.loop.is_closed():
            coroutine.close()
            raise NotRunning("The emulator is stopped. Start it again: %cmemu start in a notebook, start() elsewhere.")
        if os.getpid() != self._pid:
            coroutine.close()
            raise HomeError(
                "A forked process can't use its parent's emulator object. Send requests to its URL instead."
            )

    @contextlib.contextmanager
    def _ticks(self, on_tick: Callable[[], object] | None) -> Iterator[None]:
        """Call `on_tick` ten times a second on the emulator's loop while something waits there."""
        if on_tick is None:
            yield
            return

        timer: asyncio.TimerHandle

        def tick() -> None:
            nonlocal timer
            on_tick()
            timer = self.loop.call_later(TICK_SECONDS, tick)

        timer = self.loop.call_later(TICK_SECONDS, tick)
        try:
            yield
        finally:
            timer.cancel()

    def _run_nested(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._on_nested is not None:
            on_nested, self._on_nested = self._on_nested, None
            on_nested()
        return self.loop.run_nested(coroutine)

    def _hand_over(self) -> None:
        """Make sure that another thread drives the loop while the calling thread waits."""

    def _stop_driving(self) -> None:
        """Stop driving the loop, so that the closing thread can: end the thread that drives it."""
        self._closing = True
        self._wake()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_SECONDS)
        if self._thread.is_alive():
            self._closing = False
            raise HomeError(
                f"The emulator can't be stopped: an event callback has not returned for {PATIENCE_SECONDS:g} s. "
                "Let it return, then stop again."
            )

    def _wake(self) -> None:
        """Wake the thread that drives the loop, if it waits for something else than the loop."""


def start_thread(target: Callable[[], None], name: str) -> threading.Thread:
    """Start a daemon thread whose output belongs to the cell that is running now."""
    # The context makes output belong to the starting cell, and ipykernel 7.0 fails without one
    # (https://github.com/ipython/ipykernel/issues/1450). The attributes keep a breakpoint in a cell from suspending
    # the server.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(target,), name=name, daemon=True)
    thread.pydev_do_not_trace = thread.is_pydev_daemon_thread = True  # type: ignore[attr-defined]
    thread.start()
    return thread


class ThreadHome(Home):
    """The loop always runs on a thread of its own: in scripts, in tests, on the command line and on Windows."""

    kind = "thread"

    def __init__(self, on_nested: Callable[[], None]) -> None:
        super().__init__(on_nested)
        self._quick: contextlib.ExitStack | None = None
        try:
            self._thread = start_thread(self._drive, "cmemu-loop")
        except BaseException:
            self.loop.close()
            raise

    def _drive(self) -> None:
        while not self._closing:
            self.loop.run_forever()

    def cell_starts(self, *_: object) -> None:
        """Make Python switch threads more often, so that this thread gets its turn beside a cell that computes."""
        if self._quick is None:
            self._quick = contextlib.ExitStack()
            self._quick.enter_context(quick_switches())

    def cell_ends(self, *_: object) -> None:
        """Restore the interpreter's switch interval."""
        if self._quick is not None:
            self._quick.close()
            self._quick = None

    def _stop_driving(self) -> None:
        self.cell_ends()
        super()._stop_driving()


class KernelHome(Home):
    """The loop is a guest of the kernel's loop; a stand-in thread drives it while a cell blocks the kernel's loop.

    When the stand-in begins to drive, it schedules a callback on the kernel's loop, which takes the emulator's loop
    back as soon as the kernel's loop runs again. Every cell that starts and every synchronous call wakes the stand-in.
    It also wakes by itself if something is pending and the kernel's loop has not run for 50 ms.
    """

    kind = "kernel"

    def __init__(self, on_nested: Callable[[], None], kernel_loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(on_nested)
        self._kernel_loop = kernel_loop
        self._kernel_thread = threading.get_ident()
        self._turn = threading.Lock()
        self._left = threading.Event()
        self._asked_back = False
        self._pumps = 0
        self._timer: asyncio.TimerHandle | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._in_cell = False
        with contextlib.ExitStack() as undo:
            undo.callback(self.loop.close)
            self._bell, self._button = os.pipe()
            undo.callback(self._close_bell)
            os.set_blocking(self._bell, False)
            os.set_blocking(self._button, False)
            # A duplicate of the descriptor, so that its number is not reused before the kernel's loop, which may be
            # busy, has stopped watching it.
            self._watched = os.dup(self.loop.fileno())
            undo.callback(os.close, self._watched)
            kernel_loop.add_reader(self._watched, self._pump)
            undo.callback(kernel_loop.remove_reader, self._watched)
            self._thread = start_thread(self._stand_in, "cmemu-stand-in")
            undo.pop_all()

    def cell_starts(self, *_: object) -> None:
        """Wake the stand-in: the cell may block the kernel's loop."""
        self._hand_over()
        if threading.get_ident() == self._kernel_thread:
            self._in_cell = True
            self._tick()

    def cell_ends(self, *_: object) -> None:
        """Record that the kernel's loop is free again."""
        self._in_cell = False

    def _tick(self) -> None:
        # An interrupt of a cell that awaits is noticed only at the next iteration of the kernel's loop.
        if self._ticker is not None:
            self._ticker.cancel()
        alive = self._in_cell and not self._closing
        self._ticker = self._kernel_loop.call_later(TICK_SECONDS, self._tick) if alive else None

    def _hand_over(self) -> None:
        if threading.get_ident() == self._kernel_thread and not self._left.is_set():
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._button, b"!")

    # On the kernel's loop

    def _pump(self) -> None:
        if self._closing:
            return
        self._pumps += 1
        if not self._turn.acquire(blocking=False):
            self._ask_back()
            return
        try:
            with defer_interrupts(self._in_nested_run):
                self.loop.drive(SLICE_SECONDS)
        finally:
            self._turn.release()
        self._set_timer()

    def _in_nested_run(self) -> bool:
        # An interrupt that is raised into a nested run of the kernel's loop reaches the cell that it is meant for; one
        # that is raised into the outermost run would end the kernel.
        return getattr(self._kernel_loop, "_num_runs_pending", 1) > 1

    def _ask_back(self) -> None:
        self._kernel_loop.remove_reader(self._watched)
        if not self._asked_back:
            self._asked_back = True
            self.loop.call_soon_threadsafe(self.loop.stop)

    def _take_back(self) -> None:
        if not self._closing:
            self._kernel_loop.add_reader(self._watched, self._pump)
            self._pump()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self.loop.due_in()
        self._timer = None if due is None else self._kernel_loop.call_later(due, self._pump)

    # On the stand-in's thread

    def _stand_in(self) -> None:
        while self._wait_for_call():
            with self._turn:
                self._asked_back = False
                self._tell_kernel(self._pump)
                with quick_switches():
                    self.loop.run_forever()
            self._tell_kernel(self._take_back)

    def _tell_kernel(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the kernel's loop is closed: the process is ending
            self._kernel_loop.call_soon_threadsafe(callback)

    def _wait_for_call(self) -> bool:
        """Wait until the stand-in is needed; return False when the home closes."""
        while not self._closing:
            pumps = self._pumps
            if self._rung(self.loop.fileno(), LOOK_SECONDS):
                return not self._closing
            if self._pending() and not self._closing:
                rung = self._rung(None, STALL_SECONDS)
                if rung or (pumps == self._pumps and self._pending()):
                    return not self._closing
        return False

    def _rung(self, also: int | None, seconds: float) -> bool:
        watched = select.poll()
        watched.register(self._bell, select.POLLIN)
        if also is not None:
            watched.register(also, select.POLLIN)
        if self._bell not in dict(watched.poll(seconds * 1000)):
            return False
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell, 4096)
        return True

    def _pending(self) -> bool:
        watched = select.poll()
        watched.register(self.loop.fileno(), select.POLLIN)
        return self.loop.due_in() == 0 or bool(watched.poll(0))

    # Closing

    def _stop_driving(self) -> None:
        super()._stop_driving()
        if threading.get_ident() == self._kernel_thread or self._kernel_loop.is_closed():
            self._leave_kernel_loop()
        else:
            self._tell_kernel(self._leave_kernel_loop)
            self._left.wait(LOOK_SECONDS)

    def _leave_kernel_loop(self) -> None:
        """Close the descriptors and timers that the kernel's thread uses, on that thread."""
        if self._left.is_set():
            return
        self._left.set()
        for timer in (self._timer, self._ticker):
            if timer is not None:
                timer.cancel()
        if not self._kernel_loop.is_closed():
            self._kernel_loop.remove_reader(self._watched)
        os.close(self._watched)
        self._close_bell()

    def _close_bell(self) -> None:
        os.close(self._bell)
        os.close(self._button)


def choose_home(wanted: str, on_nested: Callable[[], None]) -> Home:
    """Make the home of the setting `home`; `auto` is the kernel's loop in a notebook and a thread elsewhere."""
    if wanted == "thread":
        return ThreadHome(on_nested)
    kernel_loop = _kernel_loop()
    if kernel_loop is not None:
        return KernelHome(on_nested, kernel_loop)
    if wanted == "kernel":
        raise HomeError("There is no kernel loop to be a guest of: home='kernel' works in a notebook's own cells.")
    return ThreadHome(on_nested)


def _kernel_loop() -> asyncio.AbstractEventLoop | None:
    """Return the kernel's loop if this is called in a cell on it, and the platform lets one loop watch another."""
    on_main_thread = threading.current_thread() is threading.main_thread()
    if getattr(current_shell(), "kernel", None) is None or not on_main_thread or sys.platform == "win32":
        return None
    return asyncio._get_running_loop()  # noqa: SLF001 - None when no loop runs, without an exception
