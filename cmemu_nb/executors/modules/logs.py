"""What launched programs write: their lines, with level and job where the official SDK's logs say them."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

MOST_LINES = 10_000
MOST_OF_A_LINE = 20_000
READ_OF_A_LINE = 100_000
MOST_CHARACTERS = 10_000_000
MOST_OF_A_NAME = 200
REPORTED_BY_RESULT = ("Error executing job: ", "Failed to serialize result to json: ")
"""How the Python SDK's log begins to say what the error object that it posts says, too [foundry]."""


class LogLine(msgspec.Struct, frozen=True):
    """One line; `at` is when it arrived, in Unix nanoseconds. Level and job are None in a plain line."""

    at: int
    replica_id: str
    message: str
    level: str | None = None
    job_id: str | None = None

    def __str__(self) -> str:
        return f"{self.level}: {self.message}" if self.level else self.message


class _Sls(msgspec.Struct):
    """The part that we read of the SDK's log lines [foundry]."""

    message: str
    level: str | None = None
    params: dict[str, object] = {}


def read_line(replica_id: str, line: bytes, masked: Callable[[str], str]) -> LogLine:
    """Read one line of output, without secrets; a JSON line of the official SDK's logger is taken apart."""
    now = time.time_ns()
    if line.startswith(b"{"):
        try:
            fields = msgspec.json.decode(line, type=_Sls)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        else:
            given = fields.params.get("job_id")
            job_id = given if isinstance(given, str) and len(given) <= MOST_OF_A_NAME else None
            level, message = fields.level and fields.level[:MOST_OF_A_NAME], masked(fields.message)[:MOST_OF_A_LINE]
            return LogLine(now, replica_id, message, level, job_id)
    return LogLine(now, replica_id, masked(line[:READ_OF_A_LINE].decode(errors="replace"))[:MOST_OF_A_LINE])


class ModuleLogs:
    """The newest 10,000 lines of a launched module's replicas, oldest first; it grows while it is looked at.

    Of long lines there are less: at most ten million characters, and 20,000 of one line.
    """

    def __init__(self) -> None:
        self._lines: deque[LogLine] = deque()
        self._size = 0
        self._tell: Callable[[LogLine], object] | None = None

    def append(self, line: LogLine) -> None:
        """Add a line; the oldest goes when there are too many."""
        self._lines.append(line)
        self._size += len(line.message)
        while len(self._lines) > MOST_LINES or self._size > MOST_CHARACTERS:
            self._size -= len(self._lines.popleft().message)
        if self._tell is not None:
            self._tell(line)

    def follow(self, tell: Callable[[LogLine], object]) -> None:
        """Call `tell(line)` for every line, those that came before too; on the emulator's loop."""
        for line in self:
            tell(line)
        self._tell = tell

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
        import pandas as pd  # noqa: PLC0415 - only who wants a frame waits for pandas

        columns = ("at", "replica_id", "level", "job_id", "message")
        frame = pd.DataFrame([msgspec.structs.asdict(line) for line in self], columns=columns)
        return frame.assign(at=pd.to_datetime(frame["at"], unit="ns", utc=True))

    def __repr__(self) -> str:
        return self.text or "Nothing was written yet."
