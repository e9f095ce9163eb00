"""The dashboard's data of jobs and events: JSON values whose texts the browser shows as they are."""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from itertools import islice, takewhile
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.calls.wait_line import PATIENCE_SECONDS
from cmemu_nb.dashboard.bodies import MAX_PARSED, MAX_SHOWN, readable
from cmemu_nb.dashboard.curl import curl_commands
from cmemu_nb.dashboard.panels import TONES, Part, badge, last_line, plain, time_of_day
from cmemu_nb.display.text import cut, duration, visible, when
from cmemu_nb.lifecycle.events import KINDS, QUIET
from cmemu_nb.lifecycle.records import NS_PER_MS, NS_PER_S, Outcome, app_label
from cmemu_nb.phrases import plural
from cmemu_nb.wire.results import why_no_value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.dashboard.job_list import JobList
    from cmemu_nb.emulator import Emulator
    from cmemu_nb.lifecycle.events import Event, EventLog
    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.session import ResultStream
    from cmemu_nb.lifecycle.state import State

MAX_LOG = 20_000
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


# One job


def job_part(emulator: Emulator, job_id: str, now: int) -> Part:
    """Return the details of one job; `now` is on the steady clock."""
    state = emulator.lifecycle
    job = state.find_job(job_id)
    if job is None:
        return {"key": job_id, "removed": "This job was removed: it was evicted, or its runtime was reset or deleted."}
    stream = state.stream(job_id)
    log, why = state.log(job_id).text, why_no_value(job, state.log(job_id).explanation)
    return {
        "key": job_id,
        "function": plain(job.query_type),
        "state": job_badge(job),
        "finished": job.finished,
        "diagnosis": _diagnosis(emulator, job, now),
        "facts": _facts(job),
        "timeline": _steps(job, emulator.looked_at(), now),
        "query": _readable(job.query),
        "result": None if job.result is None or why else _readable(job.result),
        "arrived": _arrived(stream) if stream else None,
        "error": visible("".join(cut(why, MAX_LOG)), lines=True),
        "logs": visible(log[-MAX_LOG:], lines=True).encode(errors="replace").decode(),
        "logs_note": f"the last {MAX_LOG:,} of {len(log):,} characters" if len(log) > MAX_LOG else "",
        "curl": [visible(line, lines=True) for line in curl_commands(job, emulator.url, emulator.name)],
    }


def _diagnosis(emulator: Emulator, job: Job, now: int) -> str:
    """Return why a job has no result, as soon as a waiting call would show it; '' before."""
    waited = (job.queue_time(now) if job.started_at is None else job.run_time(now)) or 0
    if job.finished or waited < PATIENCE_SECONDS * NS_PER_S:
        return ""
    return emulator.job(job.job_id).diagnosis


_cached = lru_cache(maxsize=8)(readable)


def _readable(body: bytes) -> dict[str, str]:
    """Make a body readable; an open job is shown five times a second, so small bodies are cached."""
    return readable(body) if len(body) > MAX_PARSED else _cached(body)


def _arrived(stream: ResultStream) -> dict[str, str]:
    """Return the beginning of a result that is still arriving."""
    return {
        **readable(bytes(stream.body[:MAX_SHOWN]), complete=False),
        "note": f"{plural(stream.size, 'byte')} so far",
    }


def _facts(job: Job) -> list[list[str]]:
    app = app_label(job.deployed_app_rid, job.deployed_app_branch) if job.deployed_app_rid else "none: runtime-direct"
    facts = [("id", job.job_id), ("runtime", job.runtime_id), ("deployed app", app), ("submitted by", str(job.source))]
    if job.user_id:
        facts.append(("asked for by", job.user_id))
    if job.replica_id:
        facts.append(("replica", job.replica_id))
    if job.result_content_type:
        facts.append(("content type", job.result_content_type))
    return [[name, plain(value, 300)] for name, value in facts]


def _steps(job: Job, at: int, now: int) -> list[list[str]]:
    steps = [["queued", when(job.queued_at), ""]]
    if job.started_at is not None:
        steps.append(["running", when(job.started_at), f"after {duration(job.queue_time(now))}"])
    last = duration(job.queue_time(now) if job.started_at is None else job.run_time(now))
    if job.completed_at is not None:
        steps.append([str(job.status), when(job.completed_at), f"after {last}"])
    else:
        steps.append(["now", when(at), f"{job.status} for {last}"])
    return steps


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
