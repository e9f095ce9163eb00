"""The output of functions goes to their jobs' logs, whatever cell is running.

While functions run, `sys.stdout` and `sys.stderr` write text that comes from a function's context to its job's log.
The stream objects are not replaced, because logging handlers keep references to them. Threads that a function starts
write to its job's log too; that takes a hook, because Python gives a new thread an empty context.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from cmemu_nb.eventloop.ending import shielded
from cmemu_nb.executors.sdk.log_lines import write_json, write_text
from cmemu_nb.executors.sdk.prompts import refuse_prompts, restore_prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Write = Callable[[str], object]

_write: ContextVar[Write | None] = ContextVar("cmemu_job_log", default=None)
_lock = threading.Lock()
_routed: list[tuple[Any, type | None]] = []
_running = 0
_start_thread = threading.Thread.start


@contextlib.contextmanager
def output_to(write: Write) -> Iterator[None]:
    """Send all that this thread prints and logs in the block to `write(text)`."""
    global _running  # noqa: PLW0603 - all threads share sys.stdout, so they share this count
    token = _write.set(write)
    with _lock:
        if not _running:
            write_text()
        _running += 1
        _replace_start(_start_thread, _start_in_job)
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
    except TypeError:  # outside notebooks, where the interpreter's own streams have a fixed class
        stream.write = _Writer(stream.write)
        kind = None
    _routed.append((stream, kind))


@functools.cache
def _routing(kind: Any) -> type:
    """Return a class of streams whose `write` separates the text of jobs, even after somebody replaces the attribute.

    IPython replaces the attribute `write` in each cell, and restores it afterwards.
    """

    def write(self: Any) -> _Writer:
        return _Writer(_unwrap(self.__dict__.get("write")) or kind.write.__get__(self))

    def replace(self: Any, value: Any) -> None:
        self.__dict__["write"] = _unwrap(value)

    def remove(self: Any) -> None:
        self.__dict__.pop("write", None)

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind,), {**names, "write": property(write, replace, remove)})


class _Writer:
    """Writes a job's text to the job's log, and any other text as before."""

    __slots__ = ("original",)

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original

    def __call__(self, text: str, *more: Any) -> Any:
        write = _write.get()
        if write is None:
            return self.original(text, *more)
        with shielded():
            write(text)
        return len(text)


def _unwrap(write: Any) -> Any:
    """Return the original of a `_Writer`: otherwise each cell would add another one around it."""
    return write.original if isinstance(write, _Writer) else write


def _replace_start(old: object, new: object) -> None:
    if threading.Thread.start is old:  # else another package has wrapped it, and its wrapper stays
        setattr(threading.Thread, "start", new)  # noqa: B010 - mypy refuses an assignment to a method


def _start_in_job(thread: threading.Thread) -> None:
    write = _write.get()
    if write is not None:
        thread.run = functools.partial(_run_in_job, write, thread.run)  # type: ignore[method-assign]
    _start_thread(thread)


def _run_in_job(write: Write, run: Callable[[], None]) -> None:
    _write.set(write)
    run()


def _in_job() -> bool:
    return _write.get() is not None


def _restore() -> None:
    write_json()
    restore_prompts()
    _replace_start(_start_in_job, _start_thread)
    while _routed:
        stream, kind = _routed.pop()
        if kind is not None:
            stream.__class__ = kind
            continue
        with contextlib.suppress(AttributeError):
            del stream.write
