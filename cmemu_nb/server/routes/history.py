"""The routes that show what happened [ours]: the events, and what the function of a job printed."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from cmemu_nb.errors import InvalidRequest, JobEvicted, NotFound
from cmemu_nb.lifecycle.events import Event
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.listing import listing
from cmemu_nb.server.openapi import schemas
from cmemu_nb.server.openapi.schemas import described
from cmemu_nb.server.response import json_response
from cmemu_nb.server.routes.tools import JOBS, PAGE_OPTION, flag, known_options, page_size
from cmemu_nb.server.routing import Route
from cmemu_nb.wire.json_values import encodable

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request
    from cmemu_nb.server.response import Response

EVENTS = "/_emulate/events"
MAX_SEQUENCE = 2**63 - 1


def list_events(context: Context, request: Request) -> Response | Awaitable[Response]:
    """List the events, oldest first, without empty polls and other kinds that come by the thousand.

    `?runtime=` and `?job=` filter the events; `?limit=` and `?after=<sequence>` select a page. With `?newest=true` it
    is the last page instead of the first.
    """
    options = known_options(request, {"runtime", "job", "limit", "after", "newest"})
    limit, newest = page_size(options.get("limit")), flag("newest", options.get("newest"))
    after = _sequence(options.get("after", "0"))
    wanted = {"runtime_id": options.get("runtime"), "job_id": options.get("job")}
    given = [(name, value) for name, value in wanted.items() if value is not None]
    events = context.lifecycle.events.recent()
    found = list(
        islice(
            (
                event
                for event in (reversed(events) if newest else events)
                if event.sequence > after and all(getattr(event, name) == value for name, value in given)
            ),
            limit + 1,
        )
    )
    page = found[:limit][::-1] if newest else found[:limit]
    return listing({"more": len(found) > limit}, "events", page, Event.wire)


def _sequence(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_SEQUENCE))):
        raise InvalidRequest("'after' must be the sequence of an event, a whole number.")
    return int(text)


def show_log(context: Context, request: Request) -> Response:
    """Answer with what the function of a job has printed and logged, at most the newest million characters."""
    job = context.lifecycle.job(request.params["jobId"])
    return json_response(200, {"job_id": job.job_id, "log": encodable(context.lifecycle.log(job.job_id).text)})


routes = (
    Route(
        "GET",
        EVENTS,
        list_events,
        Auth.BEARER,
        {200: "The events, oldest first, and whether there are more"},
        "List the events",
        answer=schemas.EVENTS,
        query={
            "runtime": described(schemas.TEXT, "Only events of the runtime with this id"),
            "job": described(schemas.TEXT, "Only events of the job with this id"),
            "limit": described(PAGE_OPTION, "The maximum number of events in the answer"),
            "after": described(
                {"type": "integer", "minimum": 0}, "The sequence of the last event of the previous page"
            ),
            "newest": described({**schemas.FLAG, "default": False}, "Whether to list the newest events"),
        },
    ),
    Route(
        "GET",
        f"{JOBS}/{{jobId}}/log",
        show_log,
        Auth.BEARER,
        {200: "What the function of the job printed", 404: "The job does not exist"},
        "Show what the function of a job printed",
        answer=schemas.LOG,
        errors=(NotFound, JobEvicted),
    ),
)
