"""Figures of the last minutes: how many jobs were submitted, started and ended, how, and after which times."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cmemu_nb.display.percentiles import rank
from cmemu_nb.lifecycle.records import NS_PER_S, JobStatus, Outcome
from cmemu_nb.wire.results import function_error, may_be_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.lifecycle.records import Job

SECONDS = 60
BAR_SECONDS, BARS = 2, 60
HISTORY_SECONDS = BAR_SECONDS * BARS
# Times are counted by their first three digits, and in whole seconds from a minute on, because no more is ever shown:
# so a minute with a thousand jobs a second costs little more than one with ten, and the percentiles shown are exact.
MAX_DIGITS = 3

Ends = tuple[int, int, int]
"""How many jobs ended with each outcome: ok, function error, failed."""


@dataclass
class _Second:
    at: int
    submitted: int = 0
    started: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    maybe_errors: deque[bytes] = field(default_factory=deque)
    queue: Counter[int] = field(default_factory=Counter)
    run: Counter[int] = field(default_factory=Counter)

    def ends(self) -> Ends:
        """Read the results that may be a function's error, and return how many jobs ended with each outcome."""
        while self.maybe_errors:
            error = function_error(self.maybe_errors.popleft()) is not None
            self.outcomes[Outcome.FUNCTION_ERROR if error else Outcome.OK] += 1
        return self.outcomes[Outcome.OK], self.outcomes[Outcome.FUNCTION_ERROR], self.outcomes[Outcome.FAILED]

    def forget_times(self) -> None:
        """Count only the outcomes from now on."""
        self.queue, self.run = Counter(), Counter()


@dataclass(frozen=True)
class Figures:
    """The figures of a minute. Times are in nanoseconds, None without jobs.

    `submitted`, `started` and `finished` are jobs a second; `history` has the ends of jobs in each `BAR_SECONDS` of the
    last two minutes, the newest last.
    """

    submitted: float
    started: float
    finished: float
    history: list[Ends]
    queue_p50: int | None
    queue_p95: int | None
    run_p50: int | None
    run_p95: int | None


class Activity:
    """Counts of jobs in each of the last seconds. One thread adds jobs, and one thread reads the figures."""

    def __init__(self) -> None:
        self._seconds: dict[int, _Second] = {}

    def add_submitted(self, at: int) -> None:
        """Count a job that was submitted, at a time in Unix nanoseconds."""
        self._second(at).submitted += 1

    def add_started(self, at: int) -> None:
        """Count a job that was started, at a time in Unix nanoseconds."""
        self._second(at).started += 1

    def add(self, job: Job) -> None:
        """Count a job that has ended; whether its result is a function's error is found out when it is read."""
        second = self._second(job.completed_at or 0)
        if job.status == JobStatus.FAILED:
            second.outcomes[Outcome.FAILED] += 1
        elif may_be_error(job.result or b""):
            second.maybe_errors.append(job.result or b"")
        else:
            second.outcomes[Outcome.OK] += 1
        for times, time in ((second.queue, job.queue_time()), (second.run, job.run_time())):
            if time is not None:
                times[shortened(time)] += 1

    def _second(self, nanoseconds: int) -> _Second:
        at = nanoseconds // NS_PER_S
        second = self._seconds.get(at)
        if second is None:
            # Remove seconds that are too old, and future ones if the clock was set back. Times count for a minute only.
            for each in list(self._seconds.values()):
                if abs(each.at - at) > HISTORY_SECONDS:
                    del self._seconds[each.at]
                elif abs(each.at - at) > SECONDS:
                    each.forget_times()
            second = self._seconds[at] = _Second(at)
        return second

    def seconds(self) -> list[_Second]:
        """Return the counts of each second that has any."""
        return list(self._seconds.values())


def activity_of(jobs: Iterable[Job], now: int) -> Activity:
    """Count what the jobs did in the last minutes up to `now`, in Unix nanoseconds."""
    since = now - HISTORY_SECONDS * NS_PER_S
    activity = Activity()
    for job in jobs:
        if since < job.queued_at <= now:
            activity.add_submitted(job.queued_at)
        if since < (job.started_at or 0) <= now:
            activity.add_started(job.started_at or 0)
        if since < (job.completed_at or 0) <= now:
            activity.add(job)
    return activity


def figures(activities: Iterable[Activity], now: int, started_at: int) -> Figures:
    """Add up the minute before `now`, or the time since `started_at` if that is less; both are Unix nanoseconds."""
    newest, oldest = now // NS_PER_S, started_at // NS_PER_S
    history, queue, run = [(0, 0, 0)] * BARS, Counter[int](), Counter[int]()
    submitted = started = finished = 0
    for second in (second for activity in activities for second in activity.seconds()):
        if not oldest <= second.at <= newest:
            continue
        ends = second.ends()
        bar = BARS - 1 - (newest // BAR_SECONDS - second.at // BAR_SECONDS)
        if bar >= 0:
            history[bar] = _added(history[bar], ends)
        if newest - second.at < SECONDS:
            submitted, started, finished = submitted + second.submitted, started + second.started, finished + sum(ends)
            queue.update(second.queue.copy())
            run.update(second.run.copy())
    seconds = max(1.0, min(SECONDS, (now - started_at) / NS_PER_S))
    rates = (submitted / seconds, started / seconds, finished / seconds)
    return Figures(*rates, history, *_percentiles(queue), *_percentiles(run))


def _added(one: Ends, other: Ends) -> Ends:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def _percentiles(classes: Counter[int]) -> tuple[int | None, int | None]:
    return _percentile(classes, 50), _percentile(classes, 95)


def _percentile(times: Counter[int], percent: int) -> int | None:
    left = rank(times.total(), percent)
    for time in sorted(times):
        left -= times[time]
        if left <= 0:
            return time
    return None


def shortened(nanoseconds: int) -> int:
    """Return a time rounded down to the digits that are shown."""
    unit = NS_PER_S if nanoseconds >= SECONDS * NS_PER_S else 10 ** max(0, len(str(nanoseconds)) - MAX_DIGITS)
    return nanoseconds - nanoseconds % unit
