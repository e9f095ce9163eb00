"""Where the prints and logs of functions go: to their jobs, whatever cell is running.

While functions run, the streams that stand as `sys.stdout` and `sys.stderr` write what comes from a function's
own context to its job's log. The streams themselves stay in place, because logging handlers hold on to them.
Threads that a function starts write to its job's log too: Python gives a new thread an empty context.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from cmemu_nb.eventloop.ending import shielded
from cmemu_nb.executors.sdk.prompts import allow_prompts, refuse_prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Write = Callable[[str], object]

_write: ContextVar[Write | None] = ContextVar("cmemu_job_log", default=None)
_lock = threading.Lock()
_routed: list[tuple[Any, type | None]] = []
_running = 0
_start_plainly = threading.Thread.start


@contextlib.contextmanager
def output_to(write: Write) -> Iterator[None]:
    """Send all that this thread prints and logs in the block to `write`, text by text."""
    global _running  # noqa: PLW0603 - sys.stdout is one for all threads, so this is too
    token = _write.set(write)
    with _lock:
        _running += 1
        _swap_start(_start_plainly, _start_in_job)
        for stream in (sys.stdout, sys.stderr):
            _route(stream)
        refuse_prompts(_in_job)
    try:
        yield
    finally:
        _write.reset(token)
        with _lock:
            _running -= 1
            if not _running:
                _restore()


def _route(stream: Any) -> None:
    if stream is None or any(stream is each for each, _ in _routed):
        return
    kind: type | None = type(stream)
    try:
        stream.__class__ = _routing(kind)
    except TypeError:  # a stream of the interpreter's own, outside notebooks
        stream.write = _Writer(stream.write)
        kind = None
    _routed.append((stream, kind))


@functools.cache
def _routing(kind: Any) -> type:
    """Return a class of streams whose `write` asks first whose text it is, whatever is put into its place.

    IPython replaces the attribute in each cell, and puts back what it has found there.
    """

    def write(self: Any) -> _Writer:
        return _Writer(_beneath(self.__dict__.get("write")) or kind.write.__get__(self))

    def replace(self: Any, value: Any) -> None:
        self.__dict__["write"] = _beneath(value)

    def remove(self: Any) -> None:
        self.__dict__.pop("write", None)

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind,), {**names, "write": property(write, replace, remove)})


class _Writer:
    """Writes to the job's log what comes from a job, and the rest as before."""

    __slots__ = ("beneath",)

    def __init__(self, beneath: Callable[..., Any]) -> None:
        self.beneath = beneath

    def __call__(self, text: str, *more: Any) -> Any:
        write = _write.get()
        if write is None:
            return self.beneath(text, *more)
        with shielded():
            write(text)
        return len(text)


def _beneath(write: Any) -> Any:
    """Take our own writers off, or they would pile up cell by cell."""
    return write.beneath if isinstance(write, _Writer) else write


def _swap_start(old: object, new: object) -> None:
    if threading.Thread.start is old:  # else somebody has put theirs on top, and it stays there
        setattr(threading.Thread, "start", new)  # noqa: B010 - to a checker it is a method, which can't be replaced


def _start_in_job(thread: threading.Thread) -> None:
    write = _write.get()
    if write is not None:
        thread.run = functools.partial(_run_in_job, write, thread.run)  # type: ignore[method-assign]
    _start_plainly(thread)


def _run_in_job(write: Write, run: Callable[[], None]) -> None:
    _write.set(write)
    run()


def _in_job() -> bool:
    return _write.get() is not None


def _restore() -> None:
    allow_prompts()
    _swap_start(_start_in_job, _start_plainly)
    while _routed:
        stream, kind = _routed.pop()
        if kind is not None:
            stream.__class__ = kind
            continue
        with contextlib.suppress(AttributeError):
            del stream.write
