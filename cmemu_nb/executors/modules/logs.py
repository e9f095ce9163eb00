"""The output of launched programs, line by line; the official SDK's log lines also name their level and job."""

from __future__ import annotations

import re
import time
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.tracebacks import of_function

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pandas as pd

MAX_LINES = 10_000
MAX_CHARACTERS_OF_A_LINE = 20_000
MAX_MASKED_OF_A_LINE = 100_000
MAX_CHARACTERS = 10_000_000
MAX_CHARACTERS_OF_A_NAME = 200
REPORTED_BY_RESULT = ("Error executing job: ", "Failed to serialize result to json: ")
"""Beginnings of the log messages in which the Python SDK repeats the error object that it posts [foundry]."""

POSTING_FAILED = "POST of job result failed, attempting to re-establish connection: "
"""The beginning of the log message in which the Python SDK names the exception of a stream's function [foundry]."""

PARAMS_OF_THE_SDK = frozenset({"process_id", "job_id", "session_id"})
"""The parameters that the Python SDK adds to each line that it logs [foundry]."""
_TRACEBACK = "\nTraceback (most recent call last):"

# The frames between the heading of a traceback and the place where the SDK takes the next item of a stream.
_HTTP_FRAMES = re.compile(
    r"(Traceback \(most recent call last\):\n)(?:(?!Traceback \().)*?"
    r'(?=  File "[^"\n]*", line \d+, in _iterable_to_json_generator\n)',
    re.DOTALL,
)


class LogLine(msgspec.Struct, frozen=True):
    """One line; `at` is when it arrived, in Unix nanoseconds. `level` and `job_id` are None for a plain line.

    `by_emulator` says that the line is not the program's, but what the emulator adds about its replica.
    """

    at: int
    replica_id: str
    message: str
    level: str | None = None
    job_id: str | None = None
    by_emulator: bool = False

    def __str__(self) -> str:
        return f"{self.level}: {self.message}" if self.level else self.message


class _Sls(msgspec.Struct):
    """The fields of the SDK's log lines that are used here [foundry]."""

    message: str
    level: str | None = None
    params: dict[str, object] = {}
    unsafe_params: dict[str, object] = msgspec.field(default_factory=dict, name="unsafeParams")


def read_line(replica_id: str, line: bytes, masked: Callable[[str], str]) -> LogLine:
    """Read one line of output and mask its secrets; a JSON line of the official SDK's logger is split into fields."""
    now = time.time_ns()
    if line.startswith(b"{"):
        try:
            fields = msgspec.json.decode(line, type=_Sls)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        else:
            given = fields.params.get("job_id")
            job_id = given if isinstance(given, str) and len(given) <= MAX_CHARACTERS_OF_A_NAME else None
            level = fields.level and fields.level[:MAX_CHARACTERS_OF_A_NAME]
            message = with_params(fields.message, fields.params | fields.unsafe_params)
            return LogLine(now, replica_id, masked(message)[:MAX_CHARACTERS_OF_A_LINE], level, job_id)
    text = masked(line[:MAX_MASKED_OF_A_LINE].decode(errors="replace"))
    return LogLine(now, replica_id, text[:MAX_CHARACTERS_OF_A_LINE])


def with_params(message: str, params: Mapping[str, object]) -> str:
    """Return a message with the parameters that its author has logged, such as "order placed (order=12)".

    They come before the traceback if there is one.
    """
    words = ", ".join(f"{name}={value!r}" for name, value in params.items() if name not in PARAMS_OF_THE_SDK)
    if not words:
        return message
    text, header, traceback = message.partition(_TRACEBACK)
    return f"{text} ({words}){header}{traceback}"


def repeats_result(line: LogLine) -> bool:
    """Return whether a line is the SDK's about the error that it posts; with a format of its own it has a beginning."""
    if line.level is not None:
        return line.message.startswith(REPORTED_BY_RESULT)
    return any(each in line.message for each in REPORTED_BY_RESULT)


def stream_error(message: str) -> str:
    """Return the exception that broke off a stream, with its function's traceback; "" for any other log message."""
    if not message.startswith(POSTING_FAILED):
        return ""
    posted = message.removeprefix(POSTING_FAILED).replace(" \n Traceback", ": Traceback", 1)
    return of_function(_HTTP_FRAMES.sub(r"\1", posted)).strip()


class ModuleLogs:
    """The newest 10,000 lines of a launched module's replicas, oldest first; lines are added while they run.

    At most ten million characters are kept, so fewer lines if they are long, and 20,000 characters of each line.
    """

    def __init__(self) -> None:
        self._lines: deque[LogLine] = deque()
        self._size = 0
        self._on_line: Callable[[LogLine], object] | None = None

    def append(self, line: LogLine) -> None:
        """Add a line; the oldest lines are dropped when there are too many."""
        self._lines.append(line)
        self._size += len(line.message)
        while len(self._lines) > MAX_LINES or self._size > MAX_CHARACTERS:
            self._size -= len(self._lines.popleft().message)
        if self._on_line is not None:
            self._on_line(line)

    def follow(self, on_line: Callable[[LogLine], object]) -> None:
        """Call `on_line(line)` for every line, earlier ones included; to be called on the emulator's loop."""
        for line in self:
            on_line(line)
        self._on_line = on_line

    def __iter__(self) -> Iterator[LogLine]:
        return iter(self._lines.copy())

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def text(self) -> str:
        """All lines as text."""
        return "\n".join(map(str, self))

    def tail(self, lines: int = 20) -> str:
        """Return the newest lines as text."""
        return "\n".join(map(str, list(self._lines.copy())[-lines:]))

    @property
    def frame(self) -> pd.DataFrame:
        """The lines as a DataFrame: at, replica_id, level, job_id, message."""
        import pandas as pd  # noqa: PLC0415 - pandas is slow to import, and only this needs it

        columns = ("at", "replica_id", "level", "job_id", "message")
        frame = pd.DataFrame([msgspec.structs.asdict(line) for line in self], columns=columns)
        return frame.assign(at=pd.to_datetime(frame["at"], unit="ns", utc=True))

    def __repr__(self) -> str:
        return self.text or "Nothing was written yet."
