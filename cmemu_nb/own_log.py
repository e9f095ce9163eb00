"""Keeps what Tornado and asyncio log about the emulator out of people's cells: it goes into the event log."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmemu_nb.lifecycle import Lifecycle

LOGGERS = ("tornado.access", "tornado.application", "tornado.general", "asyncio")
MAX_LINES_A_SECOND = 20


class OwnLog(logging.Filter):
    """Takes the log records that are made on the emulator's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lifecycle: Lifecycle) -> None:
        super().__init__()
        self._loop = loop
        self._lifecycle = lifecycle
        self._formatter = logging.Formatter("%(name)s: %(message)s")
        self._window: asyncio.TimerHandle | None = None
        self._lines = 0
        loop.set_exception_handler(self._on_loop_error)
        for name in LOGGERS:
            logging.getLogger(name).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Let pass what is not the emulator's."""
        if asyncio._get_running_loop() is not self._loop:  # noqa: SLF001 - None when no loop runs, without an exception
            return True
        if record.levelno >= logging.WARNING:
            self._note("log", record)
        return False

    def _note(self, kind: str, record: logging.LogRecord) -> None:
        """Log a line as an event; of more than twenty in a second, which anybody can cause, only how many they were."""
        if self._window is None:
            self._window = self._loop.call_later(1, self._end_window)
        self._lines += 1
        if self._lines <= MAX_LINES_A_SECOND:
            self._lifecycle.note(kind, detail=self._formatter.format(record))

    def _end_window(self) -> None:
        left_out = self._lines - MAX_LINES_A_SECOND
        self._window, self._lines = None, 0
        if left_out > 0:
            self._lifecycle.note("log", detail=f"{left_out:,} more lines within the same second were left out")

    def _on_loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        info = (type(error), error, error.__traceback__) if error else None
        record = logging.LogRecord("asyncio", logging.ERROR, "", 0, str(context.get("message")), None, info)
        self._note("internal_error", record)

    def close(self) -> None:
        """Let everything pass again."""
        if self._window is not None:
            self._window.cancel()
            self._end_window()
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(self)
