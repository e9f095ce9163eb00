"""The rows of the jobs list: previews of a job's query and of its result or error, and its times.

A row does not depend on the present time, so that it is made once for each change of its job: the browser computes how
long ago something was, and how long a job has waited or run.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.dashboard.bodies import unescaped
from cmemu_nb.dashboard.panels import last_line, plain
from cmemu_nb.dashboard.search import outcome_word
from cmemu_nb.display.text import visible
from cmemu_nb.lifecycle.records import NS_PER_MS, JobStatus
from cmemu_nb.phrases import plural
from cmemu_nb.wire.results import why_no_value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.dashboard.job_list import JobList
    from cmemu_nb.dashboard.panels import Part
    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.state import State

MAX_PREVIEWED = 200
MAX_ERROR = 200
MAX_CHOICES = 2_000
_BLANKS = re.compile(r"[ \t\r\n]+")


def jobs_part(state: State, jobs: JobList, rows: JobRows, most: int) -> Part:
    """Return the rows of the jobs that match the filter, and the number of these jobs and of all."""
    return {
        "rows": rows.of(jobs.newest(most)),
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


class JobRows:
    """The rows of the jobs that are shown, each made again only when its job has changed."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Job, Part]] = {}

    def of(self, jobs: Iterable[Job]) -> list[Part]:
        """Return the rows of jobs, and keep them for the next call."""
        made = {}
        for job in jobs:
            kept = self._made.get(job.job_id)
            made[job.job_id] = kept if kept is not None and kept[0] is job else (job, list_row(job))
        self._made = made
        return [row for _, row in made.values()]


def list_row(job: Job) -> Part:
    """Return the row of a job; times are in milliseconds, those of the clock since 1970, and None if there are none.

    `wait` and `run` are durations that have ended: while a job waits or runs, the browser computes them.
    """
    outcome = outcome_word(job)
    error, waits = outcome in ("error", "failed"), outcome == JobStatus.QUEUED
    return {
        "key": job.job_id,
        "function": _name(job.query_type),
        "runtime": _name(job.runtime_id),
        "outcome": outcome,
        "status": str(job.status),
        "query": preview(job.query),
        "result": _reason(job) if error else preview(job.result or b""),
        "queued": _milliseconds(job.queued_at),
        "started": _milliseconds(job.started_at),
        "wait": None if waits else _milliseconds(job.queue_time()),
        "run": _milliseconds(job.run_time()) if job.finished else None,
    }


# Many jobs share few names.
_name = lru_cache(maxsize=1_000)(partial(plain, most=60))


def _milliseconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / NS_PER_MS, 3)


def _reason(job: Job) -> str:
    """Return the line that says why a job has no value: the first, or the last if a traceback comes first."""
    text = why_no_value(job).strip()
    return plain(last_line(text) if text.startswith("Traceback (") else text.partition("\n")[0], MAX_ERROR)


def preview(body: bytes) -> str:
    """Return the beginning of a body as one line of text. Its time does not depend on the size of the body."""
    whole, beginning = len(body) <= MAX_PREVIEWED, body[:MAX_PREVIEWED]
    if beginning.isascii() and b"\\" not in beginning and (text := beginning.decode()).isprintable():
        return text if whole else f"{text}…"  # most bodies; it is several times as fast
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(beginning, final=whole)
    except UnicodeDecodeError:
        return f"binary, {plural(len(body), 'byte')}"
    line = unescaped(_BLANKS.sub(" ", text.strip(" \t\r\n")))
    return visible(line) + ("" if whole else "…")
