"""The filter that records the emulator's log lines of Tornado and asyncio as events, not in the cells' output."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from cmemu_nb.lifecycle.lifecycle import Lifecycle

LOGGERS = ("tornado.access", "tornado.application", "tornado.general", "asyncio")
MAX_LINES_A_SECOND = 20
EVERYTHING = 1  # a level


class OwnLog(logging.Filter):
    """Records as events the log records that are made on the emulator's loop, and keeps them from other handlers.

    Other packages raise the levels of these loggers: `distributed` silences Tornado as soon as it is imported
    (https://github.com/dask/distributed/blob/main/distributed/config.py, `_initialize_logging_old_style`). So each
    logger takes everything while an emulator runs, and the filter drops what its level would have dropped.
    """

    _levels: ClassVar[dict[str, int]] = {}  # of the loggers, before the first emulator started

    def __init__(self, loop: asyncio.AbstractEventLoop, lifecycle: Lifecycle) -> None:
        super().__init__()
        self._loop = loop
        self._lifecycle = lifecycle
        self._formatter = logging.Formatter("%(name)s: %(message)s")
        self._window: asyncio.TimerHandle | None = None
        self._lines = 0
        loop.set_exception_handler(self._on_loop_error)
        for logger in map(logging.getLogger, LOGGERS):
            logger.addFilter(self)
            self._levels.setdefault(logger.name, logger.level)
            logger.setLevel(EVERYTHING)

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass a record that does not come from an emulator, if it would have passed without one."""
        loop = asyncio._get_running_loop()  # noqa: SLF001 - None when no loop runs, without an exception
        logger = logging.getLogger(record.name)
        if loop is self._loop:
            if record.levelno >= logging.WARNING:
                self._note("log", record)
            return False
        another = any(isinstance(each, OwnLog) and each._loop is loop for each in logger.filters)  # noqa: SLF001
        return another or record.levelno >= self._level_without(logger)

    def _level_without(self, logger: logging.Logger) -> int:
        own = self._levels[logger.name] if logger.level == EVERYTHING else logger.level
        return own or (logger.parent.getEffectiveLevel() if logger.parent else logging.NOTSET)

    def _note(self, kind: str, record: logging.LogRecord) -> None:
        """Record a line as an event, at most 20 in a second; then only their number, as any client can cause lines."""
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
        """Remove the filter and restore the levels of the loggers."""
        if self._window is not None:
            self._window.cancel()
            self._end_window()
        for logger in map(logging.getLogger, LOGGERS):
            logger.removeFilter(self)
            if not any(isinstance(each, OwnLog) for each in logger.filters):
                level = self._levels.pop(logger.name)
                if logger.level == EVERYTHING:
                    logger.setLevel(level)
