"""The status of a job, and the errors, in the words of the contour routes.

The setting `contour` chooses the words: `page` has those that Palantir documents, `foundry` those of the types in
Palantir's npm package `@osdk/client.unstable`.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from cmemu_nb.lifecycle.records import JobStatus, QueueInfo, milliseconds
from cmemu_nb.server.api.errors import error_fields

if TYPE_CHECKING:
    from cmemu_nb.errors import WireError
    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.state import State

FOUNDRY = "foundry"


def status_of(state: State, job: Job, words: str) -> dict[str, Any]:
    """Return the status of a job in the words of the setting `contour`."""
    if job.status == JobStatus.QUEUED:
        return _tagged("queued", {"queueInfo": _queue_info(state, job.runtime_id)})
    return _tagged(*(_foundry if words == FOUNDRY else _page)(job))


def _queue_info(state: State, runtime_id: str) -> QueueInfo:
    """Return why a job of a runtime is queued. Palantir does not explain the words, so which is said when is [ours]."""
    scale = state.scale_of(runtime_id) if state.has_runtime(runtime_id) else None
    if scale is None:
        return QueueInfo.NORMAL
    taking = [each for each in state.replicas(runtime_id) if each.takes_jobs]
    if not taking:
        starts = not scale.replicas or bool(state.replicas(runtime_id))
        return QueueInfo.SCALING_UP_FROM_ZERO if starts else QueueInfo.NORMAL
    if len(taking) < scale.replicas:
        return QueueInfo.SCALING_UP
    is_at_limit = scale.replicas == scale.max and all(each.full for each in taking)
    return QueueInfo.AT_LIMIT if is_at_limit else QueueInfo.NORMAL


def _tagged(kind: str, details: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, kind: details}


def _page(job: Job) -> tuple[str, dict[str, Any]]:
    if job.status == JobStatus.FAILED:
        return "failed", {"message": job.error_message}
    return str(job.status), {"metadata": None, "intermediateJobInfoList": [], "multiplexerJobTiming": _timing(job)}


def _foundry(job: Job) -> tuple[str, dict[str, Any]]:
    if job.status == JobStatus.RUNNING:
        return "inProgress", {"approxNumTasks": None, "completedTasks": 0, "metadata": None}
    if job.status == JobStatus.SUCCEEDED:
        kind, details = _page(job)
        return kind, details | {"numDroppedIntermediateJobs": None}
    if job.cancelled:
        return "canceled", {"exception": _exception(job, "CUSTOM_CLIENT", "JobCanceled")}
    timing = None if job.started_at is None else _timing(job)
    return "failed", {"exception": _exception(job, "INTERNAL", "JobFailed"), "multiplexerJobTiming": timing}


def _exception(job: Job, code: str, name: str) -> dict[str, Any]:
    return {
        "errorType": {"code": code, "name": f"Contour:{name}"},
        "message": job.error_message or "",
        "safeMessage": None,
        "errorInstanceId": str(uuid.uuid5(uuid.NAMESPACE_URL, job.job_id)),  # the same in each answer about this job
        "args": [],
    }


def _timing(job: Job) -> dict[str, Any]:
    times = {
        "multiplexerSubmitTimeMillis": milliseconds(job.queued_at),
        "queueSubmitTimeMillis": milliseconds(job.queued_at),
        "queuedJobDispatchTimeMillis": milliseconds(job.started_at),
        "moduleSubmitTimeMillis": milliseconds(job.started_at),
    }
    return {"type": "queuedJob", "queuedJob": times}


def foundry_error(error: WireError) -> dict[str, Any]:
    """Return the body of an error as the services behind Palantir's types answer it."""
    return error_fields(error) | {"errorName": f"Contour:{type(error).__name__}"}
