"""Finding a job by its id, by the last characters of its id, or by an object that represents it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.display.text import ago
from cmemu_nb.errors import InvalidRequest, NotFound, known
from cmemu_nb.phrases import MAX_SHOWN_OF_A_NAME, abbreviated, closest
from cmemu_nb.wire.job_ids import ending_of, is_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.state import State

MIN_CHARACTERS = 4
MAX_CANDIDATES = 5


def find_job(state: State, meant: object, now: int) -> Job:
    """Return a job: by its id, by the last four or more characters of its id, by its handle or by its record.

    `now` is in Unix nanoseconds. Raises `InvalidRequest` with the candidates when several ids match, `NotFound` with
    the newest jobs when none matches, and `JobEvicted` for a job that was evicted.
    """
    name = getattr(meant, "job_id", None) or getattr(meant, "id", None) or meant
    if not isinstance(name, str):
        raise InvalidRequest(f"{abbreviated(meant)} is not a job. Give a job's id as text, or the job itself.")
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
        raise NotFound(none_ends_in(abbreviated(ending), _newest(state, now)))
    raise InvalidRequest(several_end_in(abbreviated(ending), len(found), _candidates(found, now)))


def find_unfinished(state: State, meant: object, now: int) -> list[str]:
    """Return the ids of queued and running jobs: of "all", of the function with this name, or of one job.

    Raises `NotFound` for any other name, with the functions that have such jobs.
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
        raise NotFound(f"There is no job or function {abbreviated(meant)}.{similar} {names}") from None


def candidate(job_id: str, function: str, state: str, queued_at: int, now: int) -> str:
    """Describe a job by its id, its function, its state, and how long ago it was queued (both in Unix nanoseconds)."""
    return f"{job_id} ({abbreviated(function, MAX_SHOWN_OF_A_NAME)}, {state}, {ago(queued_at, now)})"


def several_end_in(ending: str, count: int, candidates: Sequence[str]) -> str:
    """Return the message for an ending that several ids have, with the newest of these jobs."""
    more = f" and {count - len(candidates)} more" if count > len(candidates) else ""
    return f"{count} jobs have ids that end in {ending}: {', '.join(candidates)}{more}. Give more of the id."


def none_ends_in(ending: str, newest: Sequence[str]) -> str:
    """Return the message for an ending that no id has, with the newest jobs."""
    return (
        f"There is no job {ending}: no job has this id, or an id that ends in it (at least {MIN_CHARACTERS} "
        f"characters). It was never issued, was evicted, or was deleted by a reset. {_listed(newest)}"
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
