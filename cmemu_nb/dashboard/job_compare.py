"""The dashboard's comparison of two jobs of one function: outcome, times, query, and result or error, line by line."""

from __future__ import annotations

from difflib import SequenceMatcher
from functools import lru_cache
from itertools import islice, zip_longest
from typing import TYPE_CHECKING

from cmemu_nb.dashboard.bodies import readable
from cmemu_nb.dashboard.job_error import error_of
from cmemu_nb.dashboard.panels import Part, plain, time_of_day
from cmemu_nb.display.text import MISSING, duration, short_id, when

if TYPE_CHECKING:
    from cmemu_nb.emulator import Emulator
    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.state import State

MAX_OTHERS = 30
MAX_LOOKED_AT = 2_000
# Comparing takes a time that grows with the square of the number of lines.
MAX_LINES = 300
CONTEXT_LINES = 3
LEFT_OUT = ["…", "…", "…"]


def compare_part(emulator: Emulator, job_id: str, other_id: str, now: int) -> Part:
    """Return what differs between a job and another of its function: by default the one that was submitted before it.

    `choices` are the newest jobs that it can be compared with. `now` is on the steady clock.
    """
    state = emulator.lifecycle
    job = state.find_job(job_id)
    if job is None:
        return {}
    others = _others(state, job)
    before = (each for each in others if each.sequence < job.sequence)
    other = state.find_job(other_id) if other_id else next(before, others[0] if others else None)
    part: Part = {"key": job_id, "choices": [{"value": each.job_id, "words": _words(each, now)} for each in others]}
    if other is None:
        nothing = (
            "The other job was removed." if other_id else "There is no other job of this function to compare with."
        )
        return {**part, "other": other_id, "nothing": nothing}
    pair = (other, job)
    texts = [_outcome_text(each, state.log(each.job_id).explanation) for each in pair]
    return {
        **part,
        "other": other.job_id,
        "names": [short_id(each.job_id) for each in pair],
        "facts": _facts(other, job, now),
        "query": _differences(*(readable(each.query)["text"] for each in pair)),
        "result": _differences(*texts),
    }


def _others(state: State, job: Job) -> list[Job]:
    newest = state.newest_jobs(MAX_LOOKED_AT)
    same = (each for each in newest if each.query_type == job.query_type and each.job_id != job.job_id)
    return list(islice(same, MAX_OTHERS))


def _words(job: Job, now: int) -> str:
    end = job.outcome or job.status
    return plain(f"{short_id(job.job_id)} · {end} · {duration(job.run_time(now))} · {time_of_day(job.queued_at)}")


def _facts(other: Job, job: Job, now: int) -> list[list[str]]:
    """Return rows of a name and two values, without those that neither job has."""
    rows = [
        ["outcome", *(str(each.outcome or each.status) for each in (other, job))],
        ["queued at", *(when(each.queued_at) for each in (other, job))],
        ["queue time", *(duration(each.queue_time(now)) for each in (other, job))],
        ["run time", *(duration(each.run_time(now)) for each in (other, job))],
        ["runtime", *(plain(each.runtime_id) for each in (other, job))],
        ["replica", *(plain(each.replica_id or MISSING) for each in (other, job))],
    ]
    return [row for row in rows if row[1:] != [MISSING, MISSING]]


def _outcome_text(job: Job, explanation: str) -> str:
    """Return the result of a job, or its error."""
    error = error_of(job, explanation)
    if error is not None:
        return error["trace"] or f"{error['type']}: {error['message']}"
    return "" if job.result is None else readable(job.result)["text"]


@lru_cache(maxsize=8)
def _differences(left: str, right: str) -> list[list[str]]:
    """Return rows of a mark and two lines: "=" for equal lines, "~" for others, "…" for lines that are left out."""
    old, new = (text.split("\n")[:MAX_LINES] if text else [] for text in (left, right))
    rows: list[list[str]] = []
    for kind, start, end, other_start, other_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        pairs = zip_longest(old[start:end], new[other_start:other_end], fillvalue="")
        rows += [["=" if kind == "equal" else "~", *pair] for pair in pairs]
    cut = any(text.count("\n") >= MAX_LINES for text in (left, right))
    return [*_without_equal(rows), *([LEFT_OUT] if cut else [])]


def _without_equal(rows: list[list[str]]) -> list[list[str]]:
    """Leave out the equal lines that are far from those that differ."""
    near = {
        each
        for position, row in enumerate(rows)
        if row[0] == "~"
        for each in range(position - CONTEXT_LINES, position + CONTEXT_LINES + 1)
    }
    shown: list[list[str]] = []
    for position, row in enumerate(rows):
        if position in near or len(rows) <= 2 * CONTEXT_LINES:
            shown.append(row)
        elif not shown or shown[-1][0] != "…":
            shown.append(LEFT_OUT)
    return shown
