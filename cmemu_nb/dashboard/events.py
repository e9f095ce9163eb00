"""The dashboard's data of the events: the newest ones that match a filter, those of a job in one line."""

from __future__ import annotations

import time
from collections import deque
from itertools import takewhile
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from cmemu_nb.dashboard.panels import TONES, Part, last_line, plain, time_of_day
from cmemu_nb.display.text import duration
from cmemu_nb.lifecycle.events import KINDS, QUIET
from cmemu_nb.lifecycle.records import NS_PER_MS, JobStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cmemu_nb.lifecycle.events import Event, EventLog
    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.state import State

MAX_EVENTS = 300
FLOOD_SECONDS = 1.0
# The state that a job has reached by an event, for a job that is not kept any more.
REACHED = {
    "job_queued": "queued",
    "job_started": "running",
    "job_given_back": "queued",
    "job_succeeded": "succeeded",
    "job_failed": "failed",
    "job_cleared": "cleared",
}
# The colours of what needs attention: what is fine has none.
ATTENTION = ("blue", "amber", "red")


class EventFilter(NamedTuple):
    """A filter of events. `pause` is the number of the last event that a paused list shows, 0 for a live one."""

    text: str = ""
    kind: str = ""
    all: bool = False
    pause: int = 0

    def matches(self, event: Event) -> bool:
        """Return whether an event matches the filter."""
        return self.kind in ("", event.kind) and _has_text(event, self.text.casefold())


class EventList:
    """The newest events that match a filter. After the first call each further one costs as much as the new events."""

    def __init__(self, wanted: EventFilter) -> None:
        self.wanted = wanted
        # Kept apart, because the log drops quiet events and other events at different ages.
        self._found: dict[bool, deque[Event]] = {quiet: deque(maxlen=MAX_EVENTS) for quiet in (False, True)}
        self._newer = 0
        self._seen = 0
        self._made_at = 0.0
        self._part: Part = {}

    def part(self, log: EventLog, state: State) -> Part:
        """Return the events as lines, the newest first; a paused list counts the newer events only.

        While all lines would be others at each update, which nobody can read, they are made once a second.
        """
        now = time.monotonic()
        if log.newest - self._seen <= MAX_EVENTS or now - self._made_at >= FLOOD_SECONDS:
            self._part, self._made_at = self._new_part(log, state), now
        return self._part

    def _new_part(self, log: EventLog, state: State) -> Part:
        events = log.recent(all=self.wanted.all)
        new = takewhile(lambda event: event.sequence > self._seen, reversed(events))
        for event in reversed([event for event in new if self.wanted.matches(event)]):
            if 0 < self.wanted.pause < event.sequence:
                self._newer += 1
            else:
                self._found[event.kind in QUIET].append(event)
        self._seen = events[-1].sequence if events else 0
        kept = [event for found in self._found.values() for event in found if log.keeps(event)]
        newest = sorted(kept, key=attrgetter("sequence"), reverse=True)[:MAX_EVENTS]
        return {
            "lines": [_line(group, state) for group in _groups(newest)],
            "kinds": list(KINDS),
            "newest": self._seen,
            "newer": self._newer,
            "every": len(events),
            "asked": list(self.wanted),
        }


def _has_text(event: Event, text: str) -> bool:
    fields = (event.kind, event.runtime_id, event.job_id, event.detail)
    return not text or any(text in each.casefold() for each in fields if each)


def _groups(newest: Sequence[Event]) -> list[list[Event]]:
    """Put the events of each job into one group, at the place of its newest; each other event is a group of its own."""
    groups: dict[object, list[Event]] = {}
    for event in newest:
        groups.setdefault(event.job_id or event.sequence, []).append(event)
    return list(groups.values())


def _line(group: Sequence[Event], state: State) -> Part:
    newest = group[0]
    line = {"at": _at(newest), "runtime": plain(newest.runtime_id or "", 60)}
    if newest.job_id is None:
        return line | {"key": str(newest.sequence), "kind": newest.kind, "detail": _detail(newest.detail or "")}
    job = state.find_job(newest.job_id)
    return line | {
        "key": newest.job_id,
        "job": newest.job_id,
        "function": plain(job.query_type, 60) if job else "",
        "chain": chain(job)
        if job
        else [[REACHED[each.kind], "", ""] for each in reversed(group) if each.kind in REACHED],
        "events": [
            {"at": _at(each), "kind": each.kind, "detail": _detail(each.detail or "")} for each in reversed(group)
        ],
    }


def chain(job: Job) -> list[list[str]]:
    """Return the states that a job has had, each with how long it lasted, "" if it still lasts, and its colour."""
    steps = [["queued", "" if job.status == JobStatus.QUEUED else duration(job.queue_time()), ""]]
    if job.started_at is not None:
        steps.append(["running", duration(job.run_time()) if job.finished else "", "" if job.finished else "blue"])
    if job.outcome is not None:
        tone = TONES[job.outcome]
        steps.append([str(job.outcome), "", tone if tone in ATTENTION else ""])
    return steps


def _at(event: Event) -> str:
    return f"{time_of_day(event.at)}.{event.at // NS_PER_MS % 1000:03}"


def _detail(text: str) -> str:
    """Return one line of an event's detail: the last one of a traceback."""
    return (
        f"{plain(last_line(text), 300)} (the DataFrame of events has all of it)"
        if "\n" in text.rstrip()
        else plain(text, 300)
    )
