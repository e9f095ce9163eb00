"""Where injected faults strike: polls, results, schemas and restarts are handled here while any faults are on."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.errors import InjectedFault, PollRejected
from cmemu_nb.lifecycle.records import JobStatus
from cmemu_nb.phrases import plural
from cmemu_nb.server.handlers import BufferedBody, Receiver
from cmemu_nb.server.response import Response
from cmemu_nb.server.routes import forwarder, platform, runtime
from cmemu_nb.server.routes.runtime import envelope, post_schemas

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.faults import Faults
    from cmemu_nb.server.request import Request
    from cmemu_nb.server.routing import Route

POLLS = (runtime.get_job, platform.get_job)
RESULTS = (runtime.receive_result, platform.receive_result, forwarder.receive_result)
RESULT_FAULTS = ("error_rate", "drop_result", "truncate_result")


def faulty_receiver(context: Context, route: Route, request: Request) -> Receiver | None:
    """Return the receiver for a request that faults may strike; None for any other request."""
    if route.handler in POLLS and request.method != "HEAD":
        return BufferedBody(context, request, partial(_poll, route.handler))
    if route.handler is post_schemas:
        return BufferedBody(context, request, _post_schemas)
    if route.handler is platform.restart:
        return BufferedBody(context, request, _restart)
    if route.receiver in RESULTS:
        job = context.lifecycle.find_job(request.params["jobId"])
        if job is not None and job.runtime_id == request.params["runtimeId"] and _waits_for_result(context, job):
            return FaultyResult(context, request, route.receiver, job)
    return None


def _waits_for_result(context: Context, job: Job) -> bool:
    """Return whether a result would be stored; one that is too early, too late or a second one is answered as usual."""
    return job.status == JobStatus.RUNNING and context.lifecycle.stream(job.job_id) is None


def _first(context: Context, fault: str, job: Job, moment: str = "") -> tuple[Faults, Random] | None:
    for faults in context.faults:
        random = faults.strikes(fault, job, moment)
        if random is not None:
            return faults, random
    return None


def _refuse_request(context: Context, fault: str, runtime_id: str, error: InjectedFault) -> None:
    for faults in context.faults:
        if faults.strikes_request(fault, runtime_id):
            faults.tell(fault, f"answered {error.status}", runtime_id)
            raise error


async def _hold_back(context: Context, job: Job, moment: str) -> None:
    """Wait for the sum of the delays that all faults choose."""
    chosen = [(faults, faults.seconds(job, moment)) for faults in context.faults]
    for faults, seconds in chosen:
        if seconds:
            faults.tell("delay", f"delayed the answer to the {moment} by {seconds:.3g} s", job.runtime_id, job.job_id)
    await asyncio.sleep(sum(seconds for _, seconds in chosen))


def _is_cut_off(context: Context, job: Job, moment: str, when: str) -> bool:
    struck = _first(context, "disconnect", job, moment)
    if struck is None:
        return False
    struck[0].tell("disconnect", f"closed the connection {when}", job.runtime_id, job.job_id)
    return True


# Schemas, restarts and polls


def _post_schemas(context: Context, request: Request) -> Response:
    error = InjectedFault("The schemas were not stored: the fault error_rate struck.")
    _refuse_request(context, "error_rate", request.params["runtimeId"], error)
    return post_schemas(context, request)


def _restart(context: Context, request: Request) -> Response:
    error = InjectedFault("The restart was not noted: the fault error_rate struck. Report it again.")
    _refuse_request(context, "error_rate", request.params["runtimeId"], error)
    return platform.restart(context, request)


async def _poll(handler: Any, context: Context, request: Request) -> Response:
    runtime_id = request.params["runtimeId"]
    error = PollRejected("The poll was refused: the fault reject_poll struck. Poll again.")
    _refuse_request(context, "reject_poll", runtime_id, error)
    response = _second_delivery(context, request)
    if response is not None:
        return await _deliver(context, request, response)
    answer = handler(context, request)
    response = answer if isinstance(answer, Response) else await answer
    return await _deliver(context, request, response, first=True)


def _second_delivery(context: Context, request: Request) -> Response | None:
    if request.client_disconnected():
        return None
    for faults in context.faults:
        job = faults.to_repeat(request.params["runtimeId"])
        if job is not None:
            faults.tell("duplicate_dispatch", "handed the job out again", job.runtime_id, job.job_id)
            return Response(200, envelope(context, request, job))
    return None


async def _deliver(context: Context, request: Request, response: Response, *, first: bool = False) -> Response:
    """Answer a poll. Whichever fault strikes, a job whose first delivery fails goes back to its queue."""
    job = _handed_out(context, response)
    if job is None:
        return response
    give_back: Callable[[], None] = response.undelivered or (lambda: None)
    if any(faults.delay for faults in context.faults):
        try:
            await _hold_back(context, job, "poll")
        except asyncio.CancelledError:
            give_back()
            raise
    if request.client_disconnected() or _is_cut_off(context, job, "poll", "instead of handing the job out"):
        give_back()
        request.connection.stream.close()
        return Response(204)
    if first and (struck := _first(context, "duplicate_dispatch", job)):
        struck[0].repeat(job)
    return response


class _Head(msgspec.Struct):
    job_id: str = msgspec.field(name="jobId")


class _Envelope(msgspec.Struct):
    job: _Head = msgspec.field(name="computeModuleJobV1")


def _handed_out(context: Context, response: Response) -> Job | None:
    if not response.body:
        return None
    return context.lifecycle.find_job(msgspec.json.decode(response.body, type=_Envelope).job.job_id)


# Results


class FaultyResult:
    """Receives the result of a running job, which faults may strike. A result to be spoilt is collected first."""

    def __init__(
        self, context: Context, request: Request, receive: Callable[[Context, Request], Receiver], job: Job
    ) -> None:
        self._context = context
        self._request = request
        self._receive = receive
        self._job = job
        struck = ((fault, _first(context, fault, job)) for fault in RESULT_FAULTS)
        self._spoiling = next(((fault, *found) for fault, found in struck if found), None)
        self._inner = BufferedBody(context, request, self._spoil) if self._spoiling else receive(context, request)
        # A result that is collected to be spoilt may be a stream, too.
        self.patient = self._inner.patient or request.chunked

    def receive(self, chunk: bytes) -> None:
        """Take the next chunk."""
        self._inner.receive(chunk)

    def break_off(self) -> None:
        """Handle that the rest will never arrive. Nothing of a result that was to be spoilt has been stored."""
        self._inner.break_off()

    def finish(self) -> Any:
        """Answer, at once or after a delay."""
        response = self._inner.finish()
        if any(faults.delay for faults in self._context.faults):
            return self._answer_later(response)
        return self._answer(response)

    async def _answer_later(self, response: Any) -> Response:
        await _hold_back(self._context, self._job, "result")
        return self._answer(response)

    def _answer(self, response: Any) -> Response:
        job = self._context.lifecycle.find_job(self._job.job_id)
        kept = job if job and job.status == JobStatus.SUCCEEDED else None
        if kept and _is_cut_off(self._context, kept, "result", "after the result was kept"):
            self._request.connection.stream.close()
        return response  # type: ignore[no-any-return]  # receivers of results answer at once

    def _spoil(self, context: Context, request: Request) -> Any:
        assert self._spoiling is not None  # noqa: S101 - only called if it is set
        fault, faults, random = self._spoiling
        size, job_id = len(request.body), self._job.job_id
        ended = not faults.on or context.lifecycle.find_job(job_id) is not self._job
        if ended or (fault == "truncate_result" and not size):
            return self._keep(request.body)
        if fault == "error_rate":
            faults.tell(fault, f"refused the result, {plural(size, 'byte')}, with 500", self._job.runtime_id, job_id)
            error = InjectedFault(f"The result of job '{job_id}' was not kept: the fault error_rate struck.")
            return context.answer_error(error, request)
        kept = 0 if fault == "drop_result" else random.randrange(size)
        whole = plural(size, "byte")
        what = f"threw the result away, {whole}" if fault == "drop_result" else f"kept {kept:,} of {whole}"
        faults.tell(fault, what, self._job.runtime_id, job_id)
        return Response(204) if fault == "drop_result" else self._keep(request.body[:kept])

    def _keep(self, body: bytes) -> Any:
        receiver = self._receive(self._context, self._request)
        if body:
            receiver.receive(body)
        return receiver.finish()
