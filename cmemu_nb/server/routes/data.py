"""The routes that list the datasets and the data streams [ours], whatever a token of a module reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmemu_nb.foundry.summaries import dataset_summary, histories, logs, stream_summary
from cmemu_nb.lifecycle.records import NS_PER_MS
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import schemas
from cmemu_nb.server.own_thread import in_own_thread
from cmemu_nb.server.response import json_response
from cmemu_nb.server.routes.tools import PAGE_OPTION, known_options, page_size
from cmemu_nb.server.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.lifecycle.state import State
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request
    from cmemu_nb.server.response import Response

LISTED_DATASETS = "/_emulate/datasets"
LISTED_STREAMS = "/_emulate/streams"
THREAD = "cmemu-data"


async def list_datasets(context: Context, request: Request) -> Response:
    """List the newest datasets, the oldest of them first, at most `?limit=`. Nothing in their files is decoded."""
    return await _newest(context, request, "datasets", _datasets)


async def list_streams(context: Context, request: Request) -> Response:
    """List the newest data streams with each of their branches, the oldest of them first, at most `?limit=`."""
    return await _newest(context, request, "streams", _streams)


async def _newest(
    context: Context, request: Request, name: str, find: Callable[[State, int], list[dict[str, Any]]]
) -> Response:
    limit = page_size(known_options(request, {"limit"}).get("limit"))
    found = await in_own_thread(THREAD, lambda: find(context.lifecycle, limit + 1))
    return json_response(200, {name: found[-limit:], "more": len(found) > limit})


def _datasets(state: State, most: int) -> list[dict[str, Any]]:
    return [_with_milliseconds(dataset_summary(each), "committed_at") for each in histories(state, most)]


def _streams(state: State, most: int) -> list[dict[str, Any]]:
    return [_with_milliseconds(stream_summary(each), "published_at") for each in logs(state, most)]


def _with_milliseconds(summary: dict[str, Any], name: str) -> dict[str, Any]:
    at = summary[name]
    return {**summary, name: None if at is None else at // NS_PER_MS}


_LIMIT = {"limit": {**PAGE_OPTION, "description": "The maximum number in the answer"}}

routes = (
    Route(
        "GET",
        LISTED_DATASETS,
        list_datasets,
        Auth.BEARER,
        {200: "The datasets, and whether there are older ones"},
        "List the datasets",
        answer=schemas.LISTED_DATASETS,
        query=_LIMIT,
    ),
    Route(
        "GET",
        LISTED_STREAMS,
        list_streams,
        Auth.BEARER,
        {200: "The streams, and whether there are older ones"},
        "List the data streams",
        answer=schemas.LISTED_STREAMS,
        query=_LIMIT,
    ),
)
