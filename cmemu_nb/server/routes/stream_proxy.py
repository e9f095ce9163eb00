"""The stream proxy: how programs without an SDK read and write data streams, such as the documentation's pipelines.

`/records` and `/jsonRecord` are those of the documentation's example [page]. The routes with the RID of a view, and the
form of their answers, are those that public programs use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.errors import ApiError
from cmemu_nb.lifecycle.state import DEFAULT_BRANCH
from cmemu_nb.phrases import quoted
from cmemu_nb.server.api.streams_v2 import (
    DENIED,
    MAX_READ,
    NAMES,
    NOT_FOUND,
    STORED_RECORD,
    publish,
    record_routes,
    stream_of,
)
from cmemu_nb.server.api.subscribers import position_routes
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import examples
from cmemu_nb.server.openapi.schemas import COUNT, TEXT, array, described, members, with_examples
from cmemu_nb.server.response import Response, json_response
from cmemu_nb.server.routing import Route
from cmemu_nb.wire.json_input import Fields, decode
from cmemu_nb.wire.paths import STREAM_PROXY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.lifecycle.data_streams import StreamLog
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.openapi.schemas import Schema
    from cmemu_nb.server.request import Request


def newest_records(context: Context, request: Request) -> Response:
    """Answer with the newest records of a stream, at most 10,000, in the order of their arrival.

    Each has its `value`. A program that must not miss or repeat records reads them by their offsets instead, with
    `getRecords`.
    """
    newest = stream_of(context, request).records()[-MAX_READ:]
    return json_response(200, [each.wire() for each in newest])


async def put_json_record(context: Context, request: Request) -> Response:
    """Publish one record, which is the body, if it matches the schema of the stream."""
    return await _put(context, stream_of(context, request), [request.body])


async def put_json_records(context: Context, request: Request) -> Response:
    """Publish records, if all of them match the schema of the stream."""
    return await _put(context, stream_of(context, request), _values(request))


async def put_json_record_to_view(context: Context, request: Request) -> Response:
    """Publish one record to the view of a stream, if it is the current one and the record matches its schema."""
    return await _put(context, _of_view(context, request), [request.body])


async def put_json_records_to_view(context: Context, request: Request) -> Response:
    """Publish records to the view of a stream, if it is the current one and all of them match its schema."""
    return await _put(context, _of_view(context, request), _values(request))


def _of_view(context: Context, request: Request) -> StreamLog:
    rid, view_rid = request.params["datasetRid"], request.params["viewRid"]
    for stream in context.lifecycle.data_streams():
        if (stream.rid, stream.view_rid) == (rid, view_rid):
            return context.lifecycle.data_stream(rid, stream.branch)
    context.lifecycle.data_stream(rid, DEFAULT_BRANCH)
    message = f"The stream {quoted(rid)} has no view {quoted(view_rid)}: a reset of a stream gives it a new view."
    raise ApiError(404, "ViewNotFound", message, viewRid=view_rid)


def _values(request: Request) -> Iterable[bytes]:
    what = "Publishing records"
    for number, record in enumerate(decode(request.body, list[msgspec.Raw], what)):
        yield Fields(bytes(record), f"{what} (record {number})").required("value")


async def _put(context: Context, log: StreamLog, records: Iterable[bytes]) -> Response:
    published = await publish(context, log, records)
    placed = [{"offset": each.offset, "partitionId": each.partition} for each in published]
    return json_response(200, {"topic": log.stream.view_rid, "offsetAndPartitionIds": placed})


_RECORD: Schema = {"type": "object", "description": "The record: an object with the fields of the schema"}
_RECORD_BODY = with_examples(_RECORD, examples.RECORD)
_VALUE: Schema = {"type": "object", "required": ["value"], "properties": {"value": _RECORD}}
_RECORDS_BODY = with_examples(array(_VALUE), [{"value": examples.RECORD}])
_PLACE = members({"offset": described(COUNT, "Its offset"), "partitionId": described(COUNT, "Its partition")})
_PLACES = with_examples(
    members(
        {
            "topic": described(TEXT, "The RID of the view"),
            "offsetAndPartitionIds": described(array(_PLACE), "Where the records are"),
        }
    ),
    examples.PLACES,
)
_NEWEST = with_examples(array(STORED_RECORD), examples.STREAM_RECORDS)
_BRANCH = f"{STREAM_PROXY}/streams/{{datasetRid}}/branches/{{streamBranchName}}"
_VIEW = f"{STREAM_PROXY}/streams/{{datasetRid}}/views/{{viewRid}}"
_PUBLISHED = {200: "The records are published", 400: "A record does not match the schema", **NOT_FOUND}
_NAMES = {**NAMES, 400: "RecordDoesNotMatchStreamSchema"}

routes = (
    Route(
        "GET",
        f"{_BRANCH}/records",
        newest_records,
        Auth.DATA,
        {200: "The records", **NOT_FOUND},
        "Get the newest records of a stream",
        answer=_NEWEST,
        error_names=NAMES,
        denied=DENIED["getRecords"],
    ),
    *(
        Route("POST", path, handler, Auth.DATA, _PUBLISHED, summary, body, _PLACES, error_names=_NAMES, denied=denied)
        for path, handler, summary, body, denied in (
            (f"{_BRANCH}/jsonRecord", put_json_record, "Publish a record", _RECORD_BODY, DENIED["publishRecord"]),
            (f"{_BRANCH}/jsonRecords", put_json_records, "Publish records", _RECORDS_BODY, DENIED["publishRecords"]),
            (
                f"{_VIEW}/jsonRecord",
                put_json_record_to_view,
                "Publish a record to a view",
                _RECORD_BODY,
                DENIED["publishRecord"],
            ),
            (
                f"{_VIEW}/jsonRecords",
                put_json_records_to_view,
                "Publish records to a view",
                _RECORDS_BODY,
                DENIED["publishRecords"],
            ),
        )
    ),
    *record_routes(f"{STREAM_PROXY}/"),
    *position_routes(f"{STREAM_PROXY}/"),
)
