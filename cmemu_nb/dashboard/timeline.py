"""The dashboard's timeline: what the browser draws it from, in columns of numbers, sent in pieces.

The first message begins a list of jobs, the newest first; those that follow have the jobs that have changed since, and
older ones until all are sent. They are messages and no part of the widget's state, which notebooks save.
"""

from __future__ import annotations

from collections import deque
from itertools import islice, pairwise, takewhile
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.dashboard.panels import plain
from cmemu_nb.display.lanes import Lanes, span_of
from cmemu_nb.lifecycle.records import STATES, JobStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.dashboard.board import Changes
    from cmemu_nb.dashboard.panels import Part
    from cmemu_nb.display.lanes import Lane, Span
    from cmemu_nb.emulator import Emulator
    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.records import Job

MAX_JOBS = 100_000
# So many jobs take a few milliseconds to encode, which nothing else in the process can do meanwhile.
MAX_SENT = 4_000
# While so many jobs change between two updates, older ones are sent in smaller pieces: the jobs need the processor.
MANY_CHANGED, MAX_SENT_BESIDE = 50, 250
NS_PER_US = 1_000
# The events that are drawn as marks, and their names there.
MARKS = {
    "emulator_started": "emulator started",
    "session_opened": "session opened",
    "session_reset": "session reset",
    "session_deleted": "session deleted",
    "runtime_configured": "configured",
    "module_scaled": "module scaled",
    "replica_started": "replica started",
    "replica_ready": "replica ready",
    "replica_unresponsive": "replica unresponsive",
    "replica_exited": "replica exited",
    "replica_removed": "replica removed",
    "upgrade_began": "upgrade began",
    "replicas_switched": "replicas switched",
    "switch_failed": "switch failed",
    "executor_restarted": "executor restarted",
}


class TimelineOptions(msgspec.Struct, frozen=True):
    """What is chosen in the timeline: the window, what colours mean, and the last request of all jobs again."""

    window: str = "all"
    colour: str = "outcome"
    asked: str = ""


class Timeline:
    """The timeline of one dashboard. `number` is that of its last message; `asked` is what asked for its first."""

    def __init__(self, emulator: Emulator) -> None:
        self.number = 0
        self.asked = ""
        self._emulator = emulator
        self.end()

    def end(self) -> None:
        """Send nothing more; the next message will be a first one."""
        self._origin = self._event = 0
        self._lanes = Lanes()
        self._names: dict[str, dict[str | Lane, int]] = {"lanes": {}, "functions": {}, "runtimes": {}}
        self._changed: dict[str, None] = {}
        self._older: deque[str] = deque()

    def message(self, changes: Changes, now: int, steady: int, asked: str) -> Part | None:
        """Return the next message, or None if nothing has changed. `now` and `steady` are as in `span_of`."""
        first = not self._origin
        if first:
            self.asked = asked
            self._begin(now, steady)
        else:
            self._changed |= dict.fromkeys(changes.jobs)
        ids = self._next()
        marks = self._marks()
        if not (first or ids or marks):
            return None
        self.number += 1
        return {
            "number": self.number,
            "first": first,
            "origin": self._origin // NS_PER_US,
            "now": (now - self._origin) // NS_PER_US,
            "left": len(self._changed) + len(self._older),
            "marks": marks,
            **self._jobs(ids, now, steady),
        }

    def _begin(self, now: int, steady: int) -> None:
        self._origin = now
        jobs = self._emulator.lifecycle.newest_jobs(MAX_JOBS)
        self._lanes.place(span_of(job, now, steady) for job in jobs)
        self._older.extend(job.job_id for job in jobs)

    def _next(self) -> list[str]:
        """Return the jobs of the next message: those that have changed, then older ones, the newest first."""
        changed = list(islice(self._changed, MAX_SENT))
        for job_id in changed:
            del self._changed[job_id]
        most = MAX_SENT - len(changed)
        if len(changed) > MANY_CHANGED:
            most = min(most, MAX_SENT_BESIDE)
        return changed + [self._older.popleft() for _ in range(min(most, len(self._older)))]

    def _jobs(self, ids: Iterable[str], now: int, steady: int) -> Part:
        """Return the columns of these jobs, the names that they use first, and the ids of jobs that are not kept."""
        known = {kind: len(names) for kind, names in self._names.items()}
        found = {job_id: self._emulator.lifecycle.find_job(job_id) for job_id in ids}
        # One of them may just have started in the slot of a job that has ended since, which the next message will have.
        self._lanes.place(self._spans(map(self._emulator.lifecycle.find_job, list(self._lanes.running)), now, steady))
        columns = self._columns(self._spans(found.values(), now, steady))
        removed = [job_id for job_id, job in found.items() if job is None]
        for job_id in removed:
            self._lanes.remove(job_id)
        return {
            **{
                kind: [self._shown(name) for name in islice(names, known[kind], None)]
                for kind, names in self._names.items()
            },
            **columns,
            "removed": removed,
        }

    def _spans(self, jobs: Iterable[Job | None], now: int, steady: int) -> list[Span]:
        return [span_of(job, now, steady) for job in jobs if job is not None]

    def _columns(self, spans: list[Span]) -> Part:
        """Return the columns of jobs: times in microseconds, `queued` each after the one before, -1 for what lasts."""
        lanes = self._lanes.place(spans)
        prefix = commonprefix([span.job.job_id for span in spans])  # noqa: RUF071 - of texts, not of paths
        queued = [0, *((span.queued - self._origin) // NS_PER_US for span in spans)]
        return {
            "prefix": prefix,
            "id": [span.job.job_id[len(prefix) :] for span in spans],
            "runtime": [self._index("runtimes", span.job.runtime_id) for span in spans],
            "function": [self._index("functions", span.job.query_type) for span in spans],
            "lane": [self._index("lanes", lanes[span.job.job_id]) if span.ran else -1 for span in spans],
            "state": [STATES.index(span.end) for span in spans],
            "queued": [at - before for before, at in pairwise(queued)],
            "wait": [
                -1 if span.end == JobStatus.QUEUED else (span.left_queue - span.queued) // NS_PER_US for span in spans
            ],
            "run": [(span.ended - span.left_queue) // NS_PER_US if span.job.finished else -1 for span in spans],
        }

    def _index(self, kind: str, name: str | Lane) -> int:
        """Return the number of a name, which the browser is sent once."""
        names = self._names[kind]
        return names.setdefault(name, len(names))

    def _shown(self, name: str | Lane) -> str | list[str | int]:
        """Return a name as the browser shows it: of a lane its runtime, its executor, its number and its label."""
        if isinstance(name, str):
            return plain(name, 60)
        return [self._index("runtimes", name.runtime_id), plain(name.replica_id, 60), name.number, plain(name.label)]

    def _marks(self) -> list[Part]:
        """Return the events since the last message that are drawn."""
        events = self._emulator.lifecycle.events
        if events.newest == self._event:
            return []
        new = list(takewhile(lambda event: event.sequence > self._event, reversed(events.recent())))
        self._event = events.newest
        return [self._mark(event) for event in reversed(new) if event.kind in MARKS]

    def _mark(self, event: Event) -> Part:
        return {
            "at": (event.at - self._origin) // NS_PER_US,
            "kind": event.kind,
            "words": MARKS[event.kind],
            "runtime": plain(event.runtime_id or "", 60),
            "detail": plain(event.detail or "", 160),
        }


def peek(emulator: Emulator, fields: dict[str, Any]) -> str:
    """Return the beginnings of a job's query and of its error message, one line each, for the timeline's tooltip."""
    job = emulator.lifecycle.job(fields["job"])
    lines = [plain(job.query[:200].decode(errors="replace"), 100), plain(job.error_message or "", 100)]
    return "\n".join(filter(None, lines))
