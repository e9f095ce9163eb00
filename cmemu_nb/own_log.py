"""Keeps what Tornado and asyncio log about the emulator out of people's cells: it goes into the event log."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmemu_nb.lifecycle import Lifecycle

LOGGERS = ("tornado.access", "tornado.application", "tornado.general", "asyncio")


class OwnLog(logging.Filter):
    """Takes the log records that are made on the emulator's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lifecycle: Lifecycle) -> None:
        super().__init__()
        self._loop = loop
        self._lifecycle = lifecycle
        self._formatter = logging.Formatter("%(name)s: %(message)s")
        loop.set_exception_handler(self._on_loop_error)
        for name in LOGGERS:
            logging.getLogger(name).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Let pass what is not the emulator's."""
        if asyncio._get_running_loop() is not self._loop:  # noqa: SLF001 - None when no loop runs, without an exception
            return True
        if record.levelno >= logging.WARNING:
            self._lifecycle.note("log", detail=self._formatter.format(record))
        return False

    def _on_loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        info = (type(error), error, error.__traceback__) if error else None
        record = logging.LogRecord("asyncio", logging.ERROR, "", 0, str(context.get("message")), None, info)
        self._lifecycle.note("internal_error", detail=self._formatter.format(record))

    def close(self) -> None:
        """Let everything pass again."""
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(self)
