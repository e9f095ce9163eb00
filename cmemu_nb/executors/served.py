"""A function that is served: its versions, and how its jobs went."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from cmemu_nb.dialect import schema_in_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.executors.functions import Definition

MOST_TIMES = 1000


class ServedFunction:
    """A function under its name on a runtime; `version` counts its definitions, the counts are of all of them."""

    def __init__(self, runtime_id: str, definition: Definition) -> None:
        self.runtime_id = runtime_id
        self.definition = definition
        self.version = 1
        self.calls = 0
        self.errors = 0
        self.running = 0
        self.abandoned = 0
        self.echo: Callable[[str], object] | None = None
        self._times: deque[int] = deque(maxlen=MOST_TIMES)

    @property
    def name(self) -> str:
        """The function's name, on the wire the query type."""
        return self.definition.name

    @property
    def signature(self) -> str:
        """The function's parameters and result as they are written in Python."""
        return self.definition.signature

    @property
    def schema_in_words(self) -> str:
        """The schema that is posted, in words."""
        return schema_in_words(self.definition.schema)

    def replace(self, definition: Definition) -> None:
        """Serve a new version; jobs that run go on with theirs."""
        self.definition = definition
        self.version += 1

    def count(self, nanoseconds: int, *, error: bool) -> None:
        """Count a call that has ended, and how long it ran."""
        self.calls += 1
        self.errors += error
        self._times.append(nanoseconds)

    def percentile(self, percent: int) -> int | None:
        """Return the nanoseconds in which so many percent of the last thousand calls were done; None before any."""
        times = sorted(self._times.copy())
        return times[min(len(times) - 1, len(times) * percent // 100)] if times else None

    def __repr__(self) -> str:
        return f"<{self.name} v{self.version} on {self.runtime_id!r}, calls: {self.calls}, errors: {self.errors}>"
