"""A function that is served: its definition, and the outcomes and run times of its jobs."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from cmemu_nb.display.percentiles import MAX_TIMES, percentile
from cmemu_nb.display.text import tally
from cmemu_nb.lifecycle.records import Outcome
from cmemu_nb.wire.function_schemas import schema_in_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.executors.sdk.adapter import Definition
    from cmemu_nb.lifecycle.records import Job


class ServedFunction:
    """A function that is served on a runtime; `version` counts its definitions.

    `outcomes` counts the finished jobs of all its versions by outcome. `running` jobs run; the functions of `abandoned`
    ones still run although their jobs were ended from outside.
    """

    def __init__(self, runtime_id: str, definition: Definition) -> None:
        self.runtime_id = runtime_id
        self.definition = definition
        self.version = 1
        self.outcomes: Counter[str] = Counter()
        self.running = 0
        self.abandoned = 0
        self.echo: Callable[[str], object] | None = None
        self._times: deque[int] = deque(maxlen=MAX_TIMES)

    @property
    def name(self) -> str:
        """The function's name, on the wire the query type."""
        return self.definition.name

    @property
    def calls(self) -> int:
        """How many of its jobs have ended."""
        return self.outcomes.total()

    @property
    def errors(self) -> int:
        """How many of its jobs ended with a function error or failed."""
        return self.calls - self.outcomes[Outcome.OK]

    @property
    def signature(self) -> str:
        """The function's parameters and result in Python's syntax."""
        return self.definition.signature

    @property
    def schema_in_words(self) -> str:
        """The posted schema in words."""
        return schema_in_words(self.definition.schema)

    def replace(self, definition: Definition) -> None:
        """Serve a new version; running jobs keep the version that they started with."""
        self.definition = definition
        self.version += 1

    def count(self, job: Job) -> None:
        """Count a job that has ended, and record its run time."""
        if (outcome := job.outcome) is not None:
            self.outcomes[outcome] += 1
        if (run_time := job.run_time()) is not None:
            self._times.append(run_time)

    def percentile(self, percent: int) -> int | None:
        """Return a percentile of the run times of its last 1,000 jobs, in nanoseconds; None before a job has run."""
        return percentile(sorted(self._times.copy()), percent)

    def __repr__(self) -> str:
        outcomes = f" ({tally(self.outcomes)})" if self.calls else ""
        return f"<{self.name} v{self.version} on {self.runtime_id!r}, calls: {self.calls}{outcomes}>"
