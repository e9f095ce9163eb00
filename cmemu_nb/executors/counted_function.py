"""The outcomes and run times of a function's jobs, for functions in cells and those of launched modules alike."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from cmemu_nb.display.percentiles import MAX_TIMES, percentile
from cmemu_nb.display.text import tally
from cmemu_nb.lifecycle.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmemu_nb.lifecycle.records import Job

MAX_RECENT = 50


class CountedFunction:
    """A function of a runtime; `outcomes` counts its finished jobs by outcome, whatever version of it they ran.

    `version` counts the definitions of a function in a cell; it is 0 for a function of a launched module. `recent` has
    the run times in nanoseconds, None for a job that never ran, and the outcomes of its last 50 jobs. `last_error` is
    the id of the last job that ended with a function error or failed, "" without one.
    """

    def __init__(self, runtime_id: str, name: str) -> None:
        self.runtime_id = runtime_id
        self.name = name
        self.version = 0
        self.outcomes: Counter[str] = Counter()
        self.recent: deque[tuple[int | None, Outcome]] = deque(maxlen=MAX_RECENT)
        self.last_error = ""
        self._times: deque[int] = deque(maxlen=MAX_TIMES)

    @property
    def label(self) -> str:
        """The function's name, with its version if it has one."""
        return f"{self.name} v{self.version}" if self.version else self.name

    @property
    def calls(self) -> int:
        """How many of its jobs have ended."""
        return self.outcomes.total()

    @property
    def errors(self) -> int:
        """How many of its jobs ended with a function error or failed."""
        return self.calls - self.outcomes[Outcome.OK]

    @property
    def summary(self) -> str:
        """The first line of the function's docstring; "" where that is not known."""
        return ""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The defaults of the function's inputs, as JSON values by name, where they are known."""
        return {}

    def count(self, job: Job) -> None:
        """Count a job that has ended, and record its run time."""
        run_time = job.run_time()
        if (outcome := job.outcome) is not None:
            self.outcomes[outcome] += 1
            self.recent.append((run_time, outcome))
            if outcome != Outcome.OK:
                self.last_error = job.job_id
        if run_time is not None:
            self._times.append(run_time)

    def percentile(self, percent: int) -> int | None:
        """Return a percentile of the run times of its last 1,000 jobs, in nanoseconds; None before a job has run."""
        return percentile(sorted(self._times.copy()), percent)

    def __repr__(self) -> str:
        outcomes = f" ({tally(self.outcomes)})" if self.calls else ""
        return f"<{self.label} on {self.runtime_id!r}, calls: {self.calls}{outcomes}>"
