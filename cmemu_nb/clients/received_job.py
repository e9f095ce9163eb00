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
    """A job from the body of a poll's answer: its id and query type can be read whatever its query is."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        head = msgspec.json.decode(body, type=_Envelope).job
        self.job_id, self.query_type = head.job_id, head.query_type

    def envelope(self) -> dict[str, Any]:
        """Decode it as the official SDK does; `InvalidRequest` for what that does not read [foundry]."""
        try:
            envelope: dict[str, Any] = json.loads(self._body)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(
                f"the official SDK can't read the query ({in_one_line(error)}). In production it only logs this, and "
                "the job never ends. Send very long integers as text, and flatten what is nested deeply."
            ) from None
        return envelope


def not_started(error: BaseException) -> str:
    """Return why a job has failed that could not be started."""
    said = str(error) if isinstance(error, InvalidRequest) else in_one_line(error)
    return f"the job could not be started: {said}"
