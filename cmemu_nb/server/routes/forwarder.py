"""The forwarder's routes: the Java SDK calls them, over plain HTTP and without a token [foundry].

They are the platform routes with three differences. A job comes without its `computeModuleJobV1` wrapper, a result is
accepted with 202, and a result in chunks is a whole result and no stream: this SDK sends every result so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.errors import InjectedFault, JobNotRunning, PollRejected
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.handlers import BufferedBody, Receiver
from cmemu_nb.server.routes.platform import LateResult, get_job, is_late, restart, store
from cmemu_nb.server.routes.runtime import post_schemas
from cmemu_nb.server.routing import Route

if TYPE_CHECKING:
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request

RESTART = "/restart-notify"


def receive_result(context: Context, request: Request) -> Receiver:
    """Collect a result, and store it when it is complete."""
    return LateResult(context, request) if is_late(context, request) else WholeResult(context, request, store)


class WholeResult(BufferedBody):
    """The body of a result. A function that returns an `InputStream` may make pauses while it is sent."""

    patient = True


routes = (
    Route(
        "GET",
        "/job",
        get_job,
        Auth.REPLICA,
        {200: "A job, which is running now", 204: "No job was queued in time", 503: "An injected fault"},
        "Poll for the next job",
        waits=True,
        errors=(PollRejected,),
    ),
    Route(
        "POST",
        "/results/{jobId}",
        None,
        Auth.REPLICA,
        {202: "The result is stored, or arrived too late", 409: "The job is not running", 500: "An injected fault"},
        "Post the result of a job",
        receiver=receive_result,
        errors=(JobNotRunning, InjectedFault),
    ),
    Route(
        "POST",
        "/schemas",
        post_schemas,
        Auth.REPLICA,
        {204: "The schemas are stored", 500: "An injected fault"},
        "Post function schemas",
        errors=(InjectedFault,),
    ),
    Route(
        "POST",
        RESTART,
        restart,
        Auth.REPLICA,
        {200: "The ids of the jobs that the replica was running", 500: "An injected fault"},
        "Report that the replica restarted",
        errors=(InjectedFault,),
    ),
)
