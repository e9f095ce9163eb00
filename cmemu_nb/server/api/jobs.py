"""The jobs that calls through the public API submit, and their results [foundry]."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cmemu_nb.errors import ExecutionFailed, JobFailed, JobTimeout
from cmemu_nb.lifecycle.records import JobSource
from cmemu_nb.server.api.calls import api_error, value_of
from cmemu_nb.server.response import Response, StreamResponse
from cmemu_nb.server.routes.contour import CLIENT_DISCONNECTED, result_in_time

if TYPE_CHECKING:
    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.server.api.queries import Query
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request
    from cmemu_nb.server.response import Answer


async def call(context: Context, request: Request, query: Query, arguments: bytes) -> bytes:
    """Call a function and return its value as JSON text. Raises the error of the API if the call fails."""
    answer = await run(context, request, query, arguments)
    if isinstance(answer, ExecutionFailed):
        raise answer
    try:
        body = answer.body if isinstance(answer, Response) else b"".join([chunk async for chunk in answer.chunks])
    except JobFailed as error:
        raise api_error(query, error) from None
    return await value_of(query, body, streamed=isinstance(answer, StreamResponse))


async def run(context: Context, request: Request, query: Query, arguments: bytes) -> Answer | ExecutionFailed:
    """Call a function and return its result, as soon as the first byte has arrived, or the error instead."""
    job_id = submit(context, request, query, arguments, JobSource.CONTOUR_SYNC).job_id
    try:
        return await result_in_time(context, job_id, limited=context.call_timers.seconds is None)
    except (JobFailed, JobTimeout) as error:
        return api_error(query, error)


def submit(context: Context, request: Request, query: Query, arguments: bytes, source: JobSource) -> Job:
    """Submit the job of a call, unless its client has disconnected."""
    if request.client_disconnected():
        raise JobFailed(CLIENT_DISCONNECTED)
    user = context.tokens.user(request)
    rid, branch = query.deployed_app_rid, query.branch
    job = context.lifecycle.submit_to_app(rid, branch, query.name, arguments, source, user)
    context.call_timers.start(asyncio.get_running_loop(), job.job_id)
    return context.submitted(request, job)
