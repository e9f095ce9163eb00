"""Figures of the last minute: how many jobs ended, and their queue times and run times."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cmemu_nb.display.percentiles import rank
from cmemu_nb.lifecycle.records import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.lifecycle.records import Job

SECONDS = 60
# Times are counted by their first three digits, and in whole seconds from a minute on, because no more is ever shown:
# so a minute with a thousand jobs a second costs little more than one with ten, and the percentiles shown are exact.
MAX_DIGITS = 3


@dataclass
class _Second:
    at: int
    finished: int = 0
    queue: Counter[int] = field(default_factory=Counter)
    run: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True)
class Figures:
    """The figures of a minute. Times are in nanoseconds, None without jobs; `each_second` ends with the newest."""

    per_second: float
    each_second: list[int]
    queue_p50: int | None
    queue_p95: int | None
    run_p50: int | None
    run_p95: int | None


class Activity:
    """Counts of finished jobs in each second of a minute. One thread adds jobs, any thread may read."""

    def __init__(self) -> None:
        self._seconds: dict[int, _Second] = {}

    def add(self, job: Job) -> None:
        """Count a job that has ended."""
        ended = job.completed_at or 0
        at = ended // NS_PER_S
        second = self._seconds.get(at)
        if second is None:
            # Remove seconds older than a minute, and future ones if the clock was set back.
            for old in [each for each in self._seconds if abs(each - at) > SECONDS]:
                del self._seconds[old]
            second = self._seconds[at] = _Second(at)
        second.finished += 1
        for times, time in ((second.queue, job.queue_time()), (second.run, job.run_time())):
            if time is not None:
                times[shortened(time)] += 1

    def seconds(self) -> list[_Second]:
        """Return the counts of each second that has any."""
        return list(self._seconds.values())


def activity_of(jobs: Iterable[Job], now: int) -> Activity:
    """Count the jobs that ended in the minute up to `now`, in Unix nanoseconds."""
    since = now - SECONDS * NS_PER_S
    activity = Activity()
    for job in jobs:
        if since < (job.completed_at or 0) <= now:
            activity.add(job)
    return activity


def figures(activities: Iterable[Activity], now: int, started_at: int) -> Figures:
    """Add up the minute before `now`, or the time since `started_at` if that is less; both are Unix nanoseconds."""
    newest, oldest = now // NS_PER_S, started_at // NS_PER_S
    each_second, queue, run = [0] * SECONDS, Counter[int](), Counter[int]()
    for second in (second for activity in activities for second in activity.seconds()):
        age = newest - second.at
        if 0 <= age < SECONDS and second.at >= oldest:
            each_second[SECONDS - 1 - age] += second.finished
            queue.update(second.queue.copy())
            run.update(second.run.copy())
    seconds = max(1.0, min(SECONDS, (now - started_at) / NS_PER_S))
    return Figures(sum(each_second) / seconds, each_second, *_percentiles(queue), *_percentiles(run))


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
