"""What holds of the records of a session beyond their types, so that a damaged file is refused before it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.lifecycle.records import FunctionSchema, Job, JobStatus
from cmemu_nb.wire.job_ids import ending_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

MAX_INTEGER = 2**63 - 1
# Which of these a job has in each state: it was taken, it ended, it has a result, it has an error message.
FIELDS = ("started_at", "completed_at", "result", "error_message")
IN_STATE = {
    JobStatus.QUEUED: (False, False, False, False),
    JobStatus.RUNNING: (True, False, False, False),
    JobStatus.SUCCEEDED: (True, True, True, False),
    JobStatus.FAILED: (None, True, False, True),
}


def check_record(record: msgspec.Struct) -> None:
    """Raise a `ValueError` for a number that no time and no count can be, for a body that is no JSON, and the like."""
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, int) and not 0 <= value <= MAX_INTEGER:
            raise ValueError(f"{name} must be a number from 0 to 2**63 - 1")
    if isinstance(record, Job):
        if not record.job_id or record.job_id != ending_of(record.job_id):  # nobody could ask for it
            raise ValueError("its job_id is empty, or has blanks or dots around it")
        _check_json("query", record.query)
        _check_state(record)
    elif isinstance(record, FunctionSchema):
        _check_json("schema_payload", record.schema_payload)


def _check_json(name: str, text: bytes) -> None:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except RecursionError:  # it is shown as text then
        pass
    except msgspec.DecodeError as error:
        raise ValueError(f"its {name} is no JSON ({error})") from None


def _check_state(job: Job) -> None:
    for name, expected in zip(FIELDS, IN_STATE[job.status], strict=True):
        if expected is not None and (getattr(job, name) is not None) != expected:
            raise ValueError(f"the job is {job.status}, but its {name} is {'missing' if expected else 'set'}")


def check_unique(what: str, names: Iterable[Hashable]) -> None:
    """Raise a `ValueError` for a name that comes twice."""
    seen = set()
    for name in names:
        if name in seen:
            raise ValueError(f"it has two {what} {name!r}")
        seen.add(name)
