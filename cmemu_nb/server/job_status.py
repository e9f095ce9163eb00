"""The status of a job, and the errors, in the words of the contour routes.

The setting `contour` chooses the words: `page` has those that Palantir documents, `foundry` those of the types in
Palantir's npm package `@osdk/client.unstable`.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from cmemu_nb.lifecycle.records import JobStatus, milliseconds
from cmemu_nb.server.api.errors import error_fields

if TYPE_CHECKING:
    from cmemu_nb.errors import WireError
    from cmemu_nb.lifecycle.records import Job

FOUNDRY = "foundry"


def status_of(job: Job, words: str) -> dict[str, Any]:
    """Return the status of a job in the words of the setting `contour`."""
    if job.status == JobStatus.QUEUED:
        return {"type": "queued", "queued": {"queueInfo": "NORMAL_OPERATION"}}
    return _tagged(*(_foundry if words == FOUNDRY else _page)(job))


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
