"""A job as an executor receives it."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.tracebacks import in_one_line


class _Head(msgspec.Struct):
    job_id: str = msgspec.field(name="jobId")
    query_type: str = msgspec.field(name="queryType")


class _Envelope(msgspec.Struct):
    job: _Head = msgspec.field(name="computeModuleJobV1")


class ReceivedJob:
    """A job from the answer to a poll. Its id and query type can be read even if its query can't."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        head = msgspec.json.decode(body, type=_Envelope).job
        self.job_id, self.query_type = head.job_id, head.query_type

    def envelope(self) -> dict[str, Any]:
        """Decode the job as the official SDK does. Raises `InvalidRequest` if the SDK can't read it [foundry]."""
        try:
            envelope: dict[str, Any] = json.loads(self._body)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(
                f"the official SDK can't read the query ({in_one_line(error)}). In production it only logs this, and "
                "the job never ends. Send very long integers as text, and flatten deeply nested values."
            ) from None
        return envelope


def not_started(error: BaseException) -> str:
    """Return the error message of a job that could not be started."""
    reason = str(error) if isinstance(error, InvalidRequest) else in_one_line(error)
    return f"the job could not be started: {reason}"


def not_posted(error: object) -> str:
    """Return the error message of a job whose result the emulator did not accept."""
    return f"the result could not be posted: {error}"


def without_result(reason: str) -> str:
    """Return the error message of a job whose function ended although the official SDK has no result to post."""
    return f"the function ended without a result: {reason}"
