"""The dashboard's data of jobs and events: JSON values whose texts the browser shows as they are."""

from __future__ import annotations

from collections import deque
from itertools import islice, takewhile
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.dashboard.panels import TONES, Part, badge, last_line, plain, time_of_day
from cmemu_nb.display.text import duration
from cmemu_nb.lifecycle.events import KINDS, QUIET
from cmemu_nb.lifecycle.records import NS_PER_MS, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.dashboard.job_list import JobList
    from cmemu_nb.lifecycle.events import Event, EventLog
    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.state import State

MAX_EVENTS = 200
MAX_CHOICES = 2_000


# Jobs


def jobs_part(state: State, jobs: JobList, most: int, now: int) -> Part:
    """Return the newest jobs that match the filter, and their number; `now` is on the steady clock."""
    return {
        "rows": [job_row(job, now) for job in jobs.newest(most)],
        "found": len(jobs),
        "every": state.count().total(),
        "asked": [msgspec.to_builtins(jobs.filter), most],
    }


def choices_part(state: State) -> Part:
    """Return the runtimes and functions that jobs can be filtered by."""
    functions = [*{job.query_type for job in state.newest_jobs(100)}, *state.function_names()]
    return {"runtimes": _choices(each.runtime_id for each in state.runtimes()), "functions": _choices(functions)}


def _choices(names: Iterable[str]) -> list[Part]:
    return [{"value": name, "words": plain(name, 60)} for name in sorted(set(islice(names, MAX_CHOICES)))]


def job_row(job: Job, now: int) -> Part:
    """Return the table row of a job; `now` is on the steady clock."""
    return {
        "key": job.job_id,
        "function": plain(job.query_type, 60),
        "runtime": plain(job.runtime_id, 60),
        "state": job_badge(job),
        "queued_at": time_of_day(job.queued_at),
        "queue_time": duration(job.queue_time(now)),
        "run_time": duration(job.run_time(now)),
    }


def job_badge(job: Job) -> Part:
    """Return the badge of a job: its status, and its outcome where that says more."""
    end = job.outcome
    says_more = end in (Outcome.OK, Outcome.FUNCTION_ERROR)
    return badge(f"{job.status} · {end}" if says_more else str(job.status), TONES[end or job.status])


# Events


class EventList:
    """The newest events that match a filter. After the first call each further one costs as much as the new events."""

    def __init__(self, text: str, kind: str, *, all: bool) -> None:  # noqa: A002 - as in the log
        self.wanted = (text, kind, all)
        # Kept apart, because the log drops quiet events and other events at different ages.
        self._found: dict[bool, deque[Event]] = {quiet: deque(maxlen=MAX_EVENTS) for quiet in (False, True)}
        self._seen = 0

    def part(self, log: EventLog) -> Part:
        """Return the events as table rows, newest first."""
        text, kind, all_events = self.wanted
        events, folded = log.recent(all=all_events), text.casefold()
        new = takewhile(lambda event: event.sequence > self._seen, reversed(events))
        for event in reversed([event for event in new if kind in ("", event.kind) and _has_text(event, folded)]):
            self._found[event.kind in QUIET].append(event)
        self._seen = events[-1].sequence if events else 0
        kept = [event for found in self._found.values() for event in found if log.keeps(event)]
        newest = sorted(kept, key=attrgetter("sequence"), reverse=True)[:MAX_EVENTS]
        rows = [_event_row(event) for event in newest]
        return {"rows": rows, "kinds": list(KINDS), "every": len(events), "asked": list(self.wanted)}


def _has_text(event: Event, text: str) -> bool:
    fields = (event.kind, event.runtime_id, event.job_id, event.detail)
    return not text or any(text in each.casefold() for each in fields if each)


def _detail(text: str) -> str:
    """Return one line of an event's detail: the last one of a traceback."""
    return (
        f"{plain(last_line(text), 300)} (the DataFrame of events has all of it)"
        if "\n" in text.rstrip()
        else plain(text, 300)
    )


def _event_row(event: Event) -> Part:
    at = event.at
    return {
        "key": str(event.sequence),
        "at": f"{time_of_day(at)}.{at // NS_PER_MS % 1000:03}",
        "kind": event.kind,
        "runtime": plain(event.runtime_id or "", 60),
        "job": event.job_id or "",
        "detail": _detail(event.detail or ""),
    }
