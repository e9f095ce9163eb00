"""Which job is meant: by its id, by the last characters of it, or by an object that is a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.display.text import ago
from cmemu_nb.errors import InvalidRequest, NotFound, known
from cmemu_nb.phrases import MAX_SHOWN_OF_A_NAME, closest, shown
from cmemu_nb.wire.job_ids import ending_of, is_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.state import State

MIN_CHARACTERS = 4
MAX_CANDIDATES = 5


def find_job(state: State, meant: object, now: int) -> Job:
    """Return the job that is meant: by its id, by the last four or more characters of it, by its handle or its record.

    `now` is in Unix nanoseconds. Raises `InvalidRequest` with the candidates when several ids end so, `NotFound` with
    the newest jobs when none does, and `JobEvicted`.
    """
    name = getattr(meant, "job_id", None) or getattr(meant, "id", None) or meant
    if not isinstance(name, str):
        raise InvalidRequest(f"A job is meant by its id, a text, or by itself, not by {shown(meant)}.")
    ending = ending_of(name)
    job = state.find_job(ending)
    if job is not None:
        return job
    if is_whole(ending):
        return _job_or_newest(state, ending, now)
    ids = state.job_ids() if len(ending) >= MIN_CHARACTERS else []
    found = [job for job in map(state.find_job, (each for each in ids if each.endswith(ending))) if job is not None]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(none_ends_in(shown(ending), _newest(state, now)))
    raise InvalidRequest(several_end_in(shown(ending), len(found), _candidates(found, now)))


def find_unfinished(state: State, meant: object, now: int) -> list[str]:
    """Return the ids of the queued and running jobs that are meant: of "all", of a function by its name, or of one job.

    A `NotFound` for a name that is none of these lists the functions that have such jobs.
    """
    job = state.find_job(meant) if isinstance(meant, str) else None
    if job is not None:
        return [] if job.finished else [job.job_id]
    if isinstance(meant, str) and (meant == "all" or state.has_function(meant)):
        return state.unfinished(meant)
    try:
        return state.unfinished(find_job(state, meant, now).job_id)
    except NotFound:
        functions = {job.query_type for job in state.jobs() if not job.finished}
        similar = closest(str(meant), functions | {schema.function_name for schema in state.schemas()})
        names = known(functions, "functions with unfinished jobs") if functions else "No job is queued or running."
        raise NotFound(f"There is no job or function {shown(meant)}.{similar} {names}") from None


def candidate(job_id: str, function: str, stands: str, queued_at: int, now: int) -> str:
    """Say which job one is: its id, its function, where it stands, and when it was submitted, in Unix nanoseconds."""
    return f"{job_id} ({shown(function, MAX_SHOWN_OF_A_NAME)}, {stands}, {ago(queued_at, now)})"


def several_end_in(ending: str, count: int, candidates: Sequence[str]) -> str:
    """Say that it is not clear which job is meant, and which it may be: the newest of them."""
    more = f" and {count - len(candidates)} more" if count > len(candidates) else ""
    return f"{count} jobs have ids that end in {ending}: {', '.join(candidates)}{more}. Give more of the id."


def none_ends_in(ending: str, newest: Sequence[str]) -> str:
    """Say that there is no such job, and which are the newest."""
    return (
        f"There is no job {ending}: no id is that, or ends in that (at least {MIN_CHARACTERS} characters). It was "
        f"never issued, was let go, or went with a reset. {_listed(newest)}"
    )


def _job_or_newest(state: State, job_id: str, now: int) -> Job:
    try:
        return state.job(job_id)
    except NotFound as error:
        raise NotFound(f"{error} {_listed(_newest(state, now))}") from None


def _listed(newest: Sequence[str]) -> str:
    return f"The newest: {', '.join(newest)}." if newest else "There are no jobs yet."


def _newest(state: State, now: int) -> list[str]:
    return _candidates(state.newest_jobs(MAX_CANDIDATES), now)


def _candidates(jobs: Iterable[Job], now: int) -> list[str]:
    newest = sorted(jobs, key=lambda job: job.sequence, reverse=True)[:MAX_CANDIDATES]
    return [candidate(job.job_id, job.query_type, str(job.outcome or job.status), job.queued_at, now) for job in newest]
