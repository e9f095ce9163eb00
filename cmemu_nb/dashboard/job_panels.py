"""The dashboard's data of jobs: JSON values whose texts the browser shows as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.dashboard.panels import TONES, Part, badge, plain, time_of_day
from cmemu_nb.display.text import duration
from cmemu_nb.lifecycle.records import Outcome

if TYPE_CHECKING:
    from cmemu_nb.lifecycle.records import Job


# Jobs


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
