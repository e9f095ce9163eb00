"""The lines of the official SDK's loggers as text in this process, as the logs of launched modules show them.

The SDK writes JSON for the platform's log collector. A program that sets a format of its own, with
`setup_logger_formatter`, keeps it.
"""

from __future__ import annotations

import logging
import threading

from compute_modules.logging import common

from cmemu_nb.executors.modules.logs import with_params

_lock = threading.Lock()
_users = 0


class TextFormatter(logging.Formatter):
    """Formats a record as its level, its message, and the parameters that its author has logged."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is Python's
        """Return the line without its traceback."""
        params = {**getattr(record, common.SLS_PARAMS_KEY, {}), **getattr(record, common.SLS_UNSAFE_PARAMS_KEY, {})}
        return with_params(f"{record.levelname}: {record.message}", params)


_JSON, _TEXT = common.SLS_FORMATTER, TextFormatter()


def write_text() -> None:
    """Have the SDK's loggers write text until `write_json` was called as often."""
    global _users  # noqa: PLW0603 - the SDK's loggers are global, so their users are counted globally
    with _lock:
        _users += 1
        if _users == 1:
            _replace(_JSON, _TEXT)


def write_json() -> None:
    """Undo one call of `write_text`."""
    global _users  # noqa: PLW0603
    with _lock:
        _users -= 1
        if _users == 0:
            _replace(_TEXT, _JSON)


def _replace(old: logging.Formatter, new: logging.Formatter) -> None:
    vars(common)["SLS_FORMATTER"] = new  # for the loggers that are made from now on
    for adapter in list(common.COMPUTE_MODULES_ADAPTER_MANAGER.adapters.values()):
        for handler in adapter.logger.handlers:
            if handler.formatter is old:
                handler.setFormatter(new)
