"""The dashboard's data of one job: JSON values whose texts the browser shows as they are."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from cmemu_nb.calls.wait_line import PATIENCE_SECONDS
from cmemu_nb.dashboard.bodies import MAX_PARSED, MAX_SHOWN, readable
from cmemu_nb.dashboard.curl import curl_commands
from cmemu_nb.dashboard.functions import form_part
from cmemu_nb.dashboard.job_error import error_of
from cmemu_nb.dashboard.panels import TONES, Part, badge, plain
from cmemu_nb.display.text import duration, visible, when
from cmemu_nb.errors import NotFound
from cmemu_nb.lifecycle.records import NS_PER_S, Outcome, app_label
from cmemu_nb.phrases import plural

if TYPE_CHECKING:
    from cmemu_nb.emulator import Emulator
    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.session import ResultStream

MAX_LOG = 20_000


def job_part(emulator: Emulator, job_id: str, now: int) -> Part:
    """Return the details of one job; `now` is on the steady clock."""
    state = emulator.lifecycle
    job = state.find_job(job_id)
    if job is None:
        return {"key": job_id, "removed": "This job was removed: it was evicted, or its runtime was reset or deleted."}
    stream = state.stream(job_id)
    log, error = state.log(job_id).text, error_of(job, state.log(job_id).explanation)
    return {
        "key": job_id,
        "function": plain(job.query_type),
        "state": _state(job),
        "finished": job.finished,
        "diagnosis": _diagnosis(emulator, job, now),
        "error": error,
        **_timeline(job, emulator.looked_at(), now),
        "query": _readable(job.query),
        "result": None if job.result is None or error else _readable(job.result),
        "arrived": _arrived(stream) if stream else None,
        "logs": visible(log[-MAX_LOG:], lines=True).encode(errors="replace").decode(),
        "logs_note": f"the last {MAX_LOG:,} of {len(log):,} characters" if len(log) > MAX_LOG else "",
        "facts": _facts(job),
        "curl": [visible(line, lines=True) for line in curl_commands(job, emulator.url, emulator.name)],
    }


def _state(job: Job) -> Part:
    """Return the badge of a job: its outcome, or its status before; what is fine has no colour."""
    return badge(
        str(job.outcome or job.status), "grey" if job.outcome == Outcome.OK else TONES[job.outcome or job.status]
    )


def edit_part(emulator: Emulator, job_id: str) -> Part:
    """Return the data from which the browser makes the form of a job's function, filled with the job's query."""
    job = emulator.lifecycle.find_job(job_id)
    if job is None:
        return {}
    try:
        schema = emulator.lifecycle.find_schema(job.runtime_id, job.query_type)
    except NotFound:
        return {}  # the runtime was deleted at this moment
    long = (
        f"The query has {len(job.query):,} bytes, which is too many for a form." if len(job.query) > MAX_PARSED else ""
    )
    form = form_part(emulator, schema)
    return {
        "key": job_id,
        "schema": form.get("schema"),
        "checked": bool(form),
        "query": job.query.decode() * (not long),
        "long": long,
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


def _timeline(job: Job, at: int, now: int) -> Part:
    """Return the moments of a job with their times, and for each span between them its length and how it is drawn."""
    moments = [["queued", when(job.queued_at)]]
    spans = [_span(job.queue_time(now), "grey")]
    if job.started_at is not None:
        moments.append(["running", when(job.started_at)])
        spans.append(_span(job.run_time(now), TONES[job.outcome or job.status]))
    end, ended_at = ("now", at) if job.completed_at is None else (str(job.status), job.completed_at)
    return {"moments": [*moments, [end, when(ended_at)]], "spans": spans}


def _span(nanoseconds: int | None, tone: str) -> Part:
    return {"time": duration(nanoseconds), "length": nanoseconds or 0, "tone": tone}


def _facts(job: Job) -> list[list[str]]:
    """Return the facts of a job as names and values; the id is the first."""
    app = app_label(job.deployed_app_rid, job.deployed_app_branch) if job.deployed_app_rid else "none: runtime-direct"
    facts = {
        "id": job.job_id,
        "runtime": job.runtime_id,
        "app": app,
        "source": str(job.source),
        "user": job.user_id,
        "replica": job.replica_id,
        "content type": job.result_content_type,
    }
    return [[name, plain(value, 300)] for name, value in facts.items() if value]
