"""The subscribers of data streams: readers whose positions the platform keeps [foundry].

A subscriber reads from its positions on, and commits the offsets that it has processed. After a reset of the stream it
reads the new view from the beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.lifecycle.records import iso_time
from cmemu_nb.phrases import quoted
from cmemu_nb.server.api.functions import PREVIEW
from cmemu_nb.server.api.streams_v2 import NOT_FOUND, STORED_RECORD, VIEW, VIEW_OPTION, stream_of
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import examples
from cmemu_nb.server.openapi.schemas import COUNT, FLAG, TEXT, array, described, members, one_of, with_examples
from cmemu_nb.server.response import Response, json_response
from cmemu_nb.server.routing import Route, query_options
from cmemu_nb.wire.json_input import Fields
from cmemu_nb.wire.paths import API, HIGH_SCALE, STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cmemu_nb.lifecycle.data_streams import StreamLog, StreamRecord, Subscriber
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.openapi.schemas import Schema
    from cmemu_nb.server.request import Request

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
EARLIEST = {"type": "earliest"}
KINDS = ("earliest", "latest", "specific")


def create(context: Context, request: Request) -> Response:
    """Create a subscriber that reads from a position on, and answer with it; an existing one stays as it is."""
    what = "Creating a subscriber"
    fields, log = Fields(request.body, what), stream_of(context, request)
    name, position = fields.required_text("subscriberId"), fields.values("readPosition") or EARLIEST
    denied = "CreateSubscriberPermissionDenied"
    context.tokens.check_reach(request, denied, subscriberSubscriberId=name)
    start, stream = _start(log, position, what), log.stream
    subscriber = context.lifecycle.create_subscriber(stream.rid, stream.branch, name, position, start)
    return json_response(200, _subscriber(subscriber))


def delete(context: Context, request: Request) -> Response:
    """Delete a subscriber with its positions."""
    context.lifecycle.delete_subscriber(*_address(request))
    return Response(204)


def get_read_position(context: Context, request: Request) -> Response:
    """Answer with the offset from which a subscriber reads each partition next."""
    stream_of(context, request).check_view(query_options(request).get("viewRid"))
    return _answer(context.lifecycle.subscriber(*_address(request)))


def read_records(context: Context, request: Request) -> Response:
    """Answer with records from a subscriber's positions on, by partition; `autoCommit` moves it behind them.

    `limit` is the number of records of all partitions together: 100 by default, 1,000 at most.
    """
    fields, log = Fields(request.body, "Reading the records of a subscriber"), stream_of(context, request)
    log.check_view(fields.text("viewRid"))
    subscriber = context.lifecycle.subscriber(*_address(request))
    limit = fields.count("limit")
    wanted = fields.strings("partitionIds", MAX_LIMIT) if fields.has("partitionIds") else map(str, range(len(log.ends)))
    found = _read(log, subscriber, [log.partition(name) for name in wanted], DEFAULT_LIMIT if limit is None else limit)
    if fields.flag("autoCommit"):
        after = {partition: records[-1].offset + 1 for partition, records in found.items() if records}
        context.lifecycle.move_subscriber(*_address(request), _moved(subscriber, after))
    records = {str(partition): [each.wire() for each in records] for partition, records in found.items()}
    return json_response(200, {"recordsByPartition": records})


def _read(log: StreamLog, subscriber: Subscriber, partitions: list[int], limit: int) -> dict[int, list[StreamRecord]]:
    found, left = {}, min(limit, MAX_LIMIT)
    for partition in partitions:
        found[partition] = log.read(partition, subscriber.positions[partition], left)
        left -= len(found[partition])
    return found


def commit_offsets(context: Context, request: Request) -> Response:
    """Let a subscriber read on behind the last offsets that it has processed, and answer with its positions."""
    what = "Committing offsets"
    fields, log = Fields(request.body, what), stream_of(context, request)
    log.check_view(fields.text("viewRid"))
    subscriber = context.lifecycle.subscriber(*_address(request))
    processed = _offsets(log, fields.values("offsets"), what)
    after = _moved(subscriber, {partition: offset + 1 for partition, offset in processed.items()})
    _check_ends(log, after, what)
    return _answer(context.lifecycle.move_subscriber(*_address(request), after))


def reset_offsets(context: Context, request: Request) -> Response:
    """Let a subscriber read from the beginning, from the end or from given offsets on; answer with its positions."""
    what = "Resetting offsets"
    position = Fields(request.body, what).values("position")
    start = _start(stream_of(context, request), position, what)
    return _answer(context.lifecycle.move_subscriber(*_address(request), start))


def _address(request: Request) -> tuple[str, str, str]:
    params = request.params
    return params["datasetRid"], params["streamBranchName"], params["subscriberSubscriberId"]


def _start(log: StreamLog, position: Mapping[str, Any], what: str) -> tuple[int, ...]:
    kind = position.get("type")
    if kind == "earliest":
        return (0,) * len(log.ends)
    if kind == "latest":
        return tuple(log.ends)
    if kind != "specific":
        raise InvalidRequest(f"{what}: the type of the position is {quoted(str(kind))}. It must be {', '.join(KINDS)}.")
    given = _offsets(log, position.get("offsets"), what)
    start = tuple(given.get(partition, 0) for partition in range(len(log.ends)))
    _check_ends(log, start, what)
    return start


def _offsets(log: StreamLog, given: object, what: str) -> dict[int, int]:
    """Read offsets by partition; a long is text in the official SDK's JSON."""
    try:
        offsets = msgspec.convert(given, dict[str, int], strict=False)
    except msgspec.ValidationError:
        raise InvalidRequest(f"{what}: 'offsets' must be an object with a whole number for each partition.") from None
    return {log.partition(name): offset for name, offset in offsets.items()}


def _check_ends(log: StreamLog, positions: tuple[int, ...], what: str) -> None:
    for partition, (position, end) in enumerate(zip(positions, log.ends, strict=True)):
        if not 0 <= position <= end:
            raise InvalidRequest(
                f"{what}: partition {partition} has no such offset. The next record that is published to it gets {end}."
            )


def _moved(subscriber: Subscriber, after: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(after.get(partition, position) for partition, position in enumerate(subscriber.positions))


def _by_partition(offsets: tuple[int, ...]) -> dict[str, int]:
    return {str(partition): offset for partition, offset in enumerate(offsets)}


def _answer(subscriber: Subscriber) -> Response:
    return json_response(200, _by_partition(subscriber.positions))


def _subscriber(subscriber: Subscriber) -> dict[str, Any]:
    return {
        "subscriberId": subscriber.subscriber_id,
        "readPosition": subscriber.read_position,
        "datasetRid": subscriber.rid,
        "branchName": subscriber.branch,
        "viewRid": subscriber.view_rid,
        "startOffsets": _by_partition(subscriber.start),
        "createdTime": iso_time(subscriber.created_at),
    }


# The OpenAPI document

_OFFSETS: Schema = {"type": "object", "additionalProperties": COUNT}
_POSITION: Schema = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": described(one_of(KINDS), "From the beginning, the end, or given offsets on"),
        "offsets": described(_OFFSETS, "For `specific`: the offsets, by partition"),
    },
}
_NEW_BODY = with_examples(
    {
        "type": "object",
        "required": ["subscriberId"],
        "properties": {
            "subscriberId": described(TEXT, "The id, which no subscriber of another stream may have"),
            "readPosition": described(_POSITION, "Where it begins to read, `earliest` by default"),
        },
    },
    examples.NEW_SUBSCRIBER,
)
_READ_BODY = with_examples(
    {
        "type": "object",
        "properties": {
            "viewRid": VIEW,
            "limit": described(COUNT, "How many records, 100 by default, 1,000 at most"),
            "partitionIds": described(array(TEXT), "The partitions, all by default"),
            "autoCommit": described(FLAG, "Whether the position moves behind the records, false by default"),
        },
    },
    {"limit": 10},
)
_COMMIT_BODY = with_examples(
    {
        "type": "object",
        "required": ["offsets"],
        "properties": {"viewRid": VIEW, "offsets": described(_OFFSETS, "The last processed offsets, by partition")},
    },
    {"offsets": {"0": 0}},
)
_RESET_BODY = with_examples(
    {
        "type": "object",
        "required": ["position"],
        "properties": {"position": described(_POSITION, "Where it reads on")},
    },
    {"position": EARLIEST},
)
_SUBSCRIBER = with_examples(
    members(
        {
            "subscriberId": described(TEXT, "The id"),
            "readPosition": described(_POSITION, "Where it began to read"),
            "datasetRid": described(TEXT, "The RID of the data stream"),
            "branchName": described(TEXT, "The branch of the stream"),
            "viewRid": described(TEXT, "The RID of the view that it reads"),
            "startOffsets": described(_OFFSETS, "The offsets at which it began, by partition"),
            "createdTime": described(TEXT, "When it was created, as ISO text"),
        }
    ),
    examples.SUBSCRIBER,
)
_RECORDS = with_examples(
    members(
        {
            "recordsByPartition": {
                "type": "object",
                "additionalProperties": array(STORED_RECORD),
                "description": "The records, by partition",
            }
        }
    ),
    {"recordsByPartition": {"0": examples.STREAM_RECORDS}},
)
_POSITIONS = {200: "The next offsets, by partition"}
_NAMES = {404: "SubscriberNotFound"}


def position_routes(beginning: str) -> tuple[Route, ...]:
    """Return the routes of the positions of subscribers; their paths begin with `/api/` or the like."""

    def route(
        method: str, name: str, handler: Callable[[Context, Request], Response], summary: str, denied: str, **more: Any
    ) -> Route:
        path = f"{beginning}{HIGH_SCALE}/subscribers/{{subscriberSubscriberId}}/{name}"
        answers = {**more.pop("answers", _POSITIONS), **NOT_FOUND}
        return Route(method, path, handler, Auth.DATA, answers, summary, error_names=_NAMES, denied=denied, **more)

    ends = with_examples(_OFFSETS, {"0": 1})
    begins = with_examples(_OFFSETS, {"0": 0})
    return (
        route(
            "GET",
            "getReadPosition",
            get_read_position,
            "Get the positions of a subscriber",
            "GetSubscriberReadPositionPermissionDenied",
            answer=begins,
            query={**PREVIEW, **VIEW_OPTION},
        ),
        route(
            "POST",
            "readRecords",
            read_records,
            "Read records as a subscriber",
            "ReadRecordsFromSubscriberPermissionDenied",
            body=_READ_BODY,
            answer=_RECORDS,
            query=PREVIEW,
            answers={200: "The records, by partition"},
        ),
        route(
            "POST",
            "commitOffsets",
            commit_offsets,
            "Commit what a subscriber has processed",
            "CommitSubscriberOffsetsPermissionDenied",
            body=_COMMIT_BODY,
            answer=ends,
            query=PREVIEW,
        ),
        route(
            "POST",
            "resetOffsets",
            reset_offsets,
            "Let a subscriber read from elsewhere",
            "ResetSubscriberOffsetsPermissionDenied",
            body=_RESET_BODY,
            answer=begins,
            query=PREVIEW,
        ),
    )


_SUBSCRIBERS = f"{STREAMS}/{{datasetRid}}/streams/{{streamBranchName}}/subscribers"
routes = (
    Route(
        "POST",
        _SUBSCRIBERS,
        create,
        Auth.DATA,
        {200: "The subscriber", **NOT_FOUND, 409: "Another stream has a subscriber of this id"},
        "Create a subscriber",
        body=_NEW_BODY,
        answer=_SUBSCRIBER,
        query=PREVIEW,
        error_names={404: "StreamNotFound", 409: "SubscriberAlreadyExists"},
    ),
    Route(
        "DELETE",
        f"{_SUBSCRIBERS}/{{subscriberSubscriberId}}",
        delete,
        Auth.DATA,
        {204: "The subscriber is deleted", **NOT_FOUND},
        "Delete a subscriber",
        query=PREVIEW,
        error_names=_NAMES,
        denied="DeleteSubscriberPermissionDenied",
    ),
    *position_routes(API),
)
