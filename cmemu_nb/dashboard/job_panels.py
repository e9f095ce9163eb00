"""The dashboard's data of jobs: JSON values whose texts the browser shows as they are."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.dashboard.panels import TONES, Part, badge, plain, time_of_day
from cmemu_nb.display.text import duration
from cmemu_nb.lifecycle.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.dashboard.job_list import JobList
    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.state import State

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
