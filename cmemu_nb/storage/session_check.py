"""Checks of a session's records beyond their types, so that a damaged file is refused before it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.lifecycle.records import FunctionSchema, Job, JobStatus
from cmemu_nb.wire.job_ids import ending_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

MAX_INTEGER = 2**63 - 1
# Which of these fields are set in each state: a job that was taken, has ended, has a result, has an error message.
FIELDS = ("started_at", "completed_at", "result", "error_message")
IN_STATE = {
    JobStatus.QUEUED: (False, False, False, False),
    JobStatus.RUNNING: (True, False, False, False),
    JobStatus.SUCCEEDED: (True, True, True, False),
    JobStatus.FAILED: (None, True, False, True),
}


def check_record(record: msgspec.Struct) -> None:
    """Raise `ValueError` for a record with an impossible time or count, a body that is not JSON, and similar errors."""
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, int) and not 0 <= value <= MAX_INTEGER:
            raise ValueError(f"{name} must be a number from 0 to 2**63 - 1")
    if isinstance(record, Job):
        if not record.job_id or record.job_id != ending_of(record.job_id):  # it could not be found by its id
            raise ValueError("its job_id is empty, or has spaces or dots around it")
        _check_json("query", record.query)
        _check_state(record)
    elif isinstance(record, FunctionSchema):
        _check_json("schema_payload", record.schema_payload)


def _check_json(name: str, text: bytes) -> None:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except RecursionError:  # it will be shown as text
        pass
    except msgspec.DecodeError as error:
        raise ValueError(f"its {name} is not JSON ({error})") from None


def _check_state(job: Job) -> None:
    for name, expected in zip(FIELDS, IN_STATE[job.status], strict=True):
        if expected is not None and (getattr(job, name) is not None) != expected:
            raise ValueError(f"the job is {job.status}, but its {name} is {'missing' if expected else 'set'}")


def check_unique(what: str, names: Iterable[Hashable]) -> None:
    """Raise `ValueError` for a name that occurs twice."""
    seen = set()
    for name in names:
        if name in seen:
            raise ValueError(f"it has two {what} {name!r}")
        seen.add(name)
