"""The application's client: it submits jobs and fetches their results, through the contour routes."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from cmemu_nb import errors
from cmemu_nb.clients.http import HttpClient, Reply, wire_error
from cmemu_nb.tokens import Token
from cmemu_nb.wire.labels import checked_text
from cmemu_nb.wire.paths import CONTOUR, MAX_WAIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

BUSY_SECONDS = 1.0


class ContourClient:
    """Submits jobs to an emulator and waits for them, over HTTP. Its methods run on the emulator's loop."""

    def __init__(self, url: str, token: str) -> None:
        self._http = HttpClient(url)
        self._headers = {"Authorization": Token(f"Bearer {token}"), "Content-Type": "application/json"}

    async def submit(self, deployed_app_rid: str, branch: str | None, query_type: str, query: bytes) -> str:
        """Submit a job and return its id; `query` is JSON text."""
        fields = {
            "deployedAppRid": checked_text("deployed app RID", deployed_app_rid),
            "deployedAppBranch": None if branch is None else checked_text("branch", branch),
            "queryType": checked_text("query type", query_type),
            "query": msgspec.Raw(query),
        }
        reply = await self._send("POST", f"{CONTOUR}/deployed-apps/jobs", fields)
        job_id: str = msgspec.json.decode(reply.body)["id"]
        return job_id

    async def result(self, job_id: str, timeout: float | None) -> bytes:  # noqa: ASYNC109 - None is no limit
        """Wait for a job and return the bytes of its result. `timeout` is in seconds; None waits without a limit.

        Raises `JobFailed` with the job's error message, `JobTimeout`, and `NotFound` for an unknown job.
        """
        check_timeout(timeout)
        try:
            async with asyncio.timeout(timeout):
                return await self._result(job_id, timeout)
        except TimeoutError:
            raise errors.JobTimeout(f"Job '{job_id}' was not done within {timeout:g} s.") from None

    async def _result(self, job_id: str, timeout: float | None) -> bytes:  # noqa: ASYNC109
        wait = MAX_WAIT_SECONDS if timeout is None else max(1, min(MAX_WAIT_SECONDS, math.ceil(timeout)))
        while True:
            try:
                reply = await self._send("PUT", f"{CONTOUR}/jobs/result/v2", {"id": job_id}, {"Prefer": f"wait={wait}"})
            except errors.JobNotReady:
                continue
            except errors.TooBusy:
                await asyncio.sleep(BUSY_SECONDS)
                continue
            return reply.body

    async def stream(self, job_id: str, receive: Callable[[bytes], object]) -> None:
        """Wait for a job and call `receive` with each chunk of its result as it arrives.

        Raises `JobFailed`, `NotFound`, and `NotRunning` if the stream breaks off.
        """
        exchange = await self._http.begin("GET", _result_path(job_id), {"Content-Length": "0", **self._headers})
        reply = await exchange.end(receive=receive)
        if reply.status != 200:  # noqa: PLR2004
            raise wire_error(reply)

    async def streamed(self, job_id: str) -> bool:
        """Return whether the result of a job that has succeeded is a stream; False if the job was evicted meanwhile."""
        reply = await self._http.request("HEAD", _result_path(job_id), self._headers)
        return reply.status == 200 and "Content-Length" not in reply.headers  # noqa: PLR2004

    async def _send(
        self, method: str, path: str, fields: dict[str, Any], headers: dict[str, str] | None = None
    ) -> Reply:
        reply = await self._http.request(
            method, path, {**self._headers, **(headers or {})}, msgspec.json.encode(fields)
        )
        if reply.status == 200:  # noqa: PLR2004
            return reply
        raise wire_error(reply)

    def close(self) -> None:
        """Close the idle connections."""
        self._http.close()


def _result_path(job_id: str) -> str:
    return f"{CONTOUR}/jobs/{quote(job_id, safe='')}/result"


def check_timeout(timeout: object) -> None:
    """Raise `InvalidRequest` for a timeout that is neither None nor a number of seconds."""
    if timeout is not None and not (isinstance(timeout, int | float) and timeout >= 0):
        raise errors.InvalidRequest(f"The timeout must be a number of seconds or None, not {timeout!r}.")
