"""The streams routes of Foundry's public API: data streams, their records and their subscribers [foundry].

The records have two addresses: the official client SDK sends its requests for them to `/api`, or to the stream proxy if
service discovery names one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.errors import ApiError, InvalidRequest
from cmemu_nb.lifecycle.data_streams import DataStream, StreamOptions
from cmemu_nb.lifecycle.state import DEFAULT_BRANCH
from cmemu_nb.phrases import quoted
from cmemu_nb.server.api.functions import PREVIEW
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import examples, schemas
from cmemu_nb.server.openapi.schemas import COUNT, FLAG, TEXT, array, described, members, with_examples
from cmemu_nb.server.response import BYTES, Response, json_response
from cmemu_nb.server.routing import Route, query_options
from cmemu_nb.wire.json_input import Fields, decode
from cmemu_nb.wire.paths import API, HIGH_SCALE, STREAMS
from cmemu_nb.wire.stream_schemas import StreamSchema, read
from cmemu_nb.wire.stream_values import Mismatch, NewRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.lifecycle.data_streams import StreamLog, StreamRecord
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.handlers import Handler
    from cmemu_nb.server.openapi.schemas import Schema
    from cmemu_nb.server.request import Request

MAX_RECORDS_OF_A_TURN = 250
MAX_READ = 10_000
"""How many records a request may read at most; the platform has a limit, too, which is not documented."""


def stream_of(context: Context, request: Request) -> StreamLog:
    """Return the stream on the branch that a request's path names."""
    params = request.params
    return context.lifecycle.data_stream(params["datasetRid"], params["streamBranchName"])


# Streams


def create_dataset(context: Context, request: Request) -> Response:
    """Create a data stream with a stream on one branch, `master` by default, and answer with its RID and name."""
    fields = Fields(request.body, "Creating a streaming dataset")
    stream = context.lifecycle.create_data_stream(
        fields.required_text("name"),
        _schema(fields),
        _options(fields, StreamOptions()),
        branch=fields.text("branchName") or DEFAULT_BRANCH,
        folder_rid=fields.required_text("parentFolderRid"),
    )
    return json_response(200, stream.dataset_wire())


def create(context: Context, request: Request) -> Response:
    """Create a stream on a new branch of a data stream, and answer with the stream."""
    fields = Fields(request.body, "Creating a stream")
    branch, options = fields.required_text("branchName"), _options(fields, StreamOptions())
    context.tokens.check_reach(request, "CreateStreamPermissionDenied", streamBranchName=branch)
    stream = context.lifecycle.create_stream_branch(request.params["datasetRid"], branch, _schema(fields), options)
    return json_response(200, stream.wire())


def get(context: Context, request: Request) -> Response:
    """Answer with the stream on a branch: its schema, its view and its options."""
    return json_response(200, stream_of(context, request).stream.wire())


def reset(context: Context, request: Request) -> Response:
    """Clear the records of the stream on a branch, which gets a new view, and answer with the stream.

    What the request leaves out stays as it is.
    """
    fields, stream = Fields(request.body, "Resetting a stream"), stream_of(context, request).stream
    schema = None if fields.raw("schema", b"null") == b"null" else _schema(fields)
    options = _options(fields, stream.options)
    return json_response(200, context.lifecycle.reset_data_stream(stream.rid, stream.branch, schema, options).wire())


def _schema(fields: Fields) -> StreamSchema:
    return read(fields.required("schema"))


def _options(fields: Fields, old: StreamOptions) -> StreamOptions:
    partitions, compressed = fields.count("partitionsCount"), fields.flag("compressed")
    return StreamOptions(
        old.partitions if partitions is None else partitions,
        fields.text("streamType") or old.stream_type,
        old.compressed if compressed is None else compressed,
    )


# Records


async def publish_record(context: Context, request: Request) -> Response:
    """Publish one record, if it matches the schema of the stream."""
    fields = Fields(request.body, "Publishing a record")
    await publish(context, stream_of(context, request), [fields.required("record")], fields.text("viewRid"))
    return Response(204)


async def publish_records(context: Context, request: Request) -> Response:
    """Publish records, if all of them match the schema of the stream."""
    what = "Publishing records"
    fields = Fields(request.body, what)
    records = decode(fields.required("records"), list[msgspec.Raw], f"{what} (records)")
    await publish(context, stream_of(context, request), map(bytes, records), fields.text("viewRid"))
    return Response(204)


def publish_binary_record(context: Context, request: Request) -> Response:
    """Publish one record whose only field is the bytes of the body; the schema must be a single binary field."""
    log = stream_of(context, request)
    fields = log.stream.schema.fields
    if [each.schema.data_type.type for each in fields] != ["binary"]:
        raise _no_match(log.stream, f"Its schema must be a single binary field, and has {log.stream.schema.in_words}.")
    record = log.reader.convert({fields[0].name: request.body})
    context.lifecycle.publish(*_address(log.stream), [record], query_options(request).get("viewRid"))
    return Response(204)


async def publish(
    context: Context, log: StreamLog, records: Iterable[bytes], view_rid: str | None = None
) -> list[StreamRecord]:
    """Publish records that arrived as JSON texts. Raises the platform's error if one does not match the schema.

    Many are converted in turns, so that other requests are served in between; they are published all at once.
    """
    stream, new = log.stream, list[NewRecord]()
    for number, record in enumerate(records):
        if number and number % MAX_RECORDS_OF_A_TURN == 0:
            await asyncio.sleep(0)
        try:
            new.append(log.reader.read(record))
        except Mismatch as mismatch:
            raise _no_match(stream, f"Record {number} does not match its schema. {mismatch}") from None
    # A reset in the meantime may have given the stream another schema, and has given it another view.
    return context.lifecycle.publish(*_address(stream), new, view_rid or stream.view_rid)


def _address(stream: DataStream) -> tuple[str, str]:
    return stream.rid, stream.branch


def _no_match(stream: DataStream, reason: str) -> ApiError:
    message = f"Nothing was published to the stream {quoted(stream.label)}. {reason}"
    ids = {"datasetRid": stream.rid, "branchName": stream.branch, "viewRid": stream.view_rid}
    return ApiError(400, "RecordDoesNotMatchStreamSchema", message, **ids)


def get_records(context: Context, request: Request) -> Response:
    """Answer with records of a partition from an offset on, the oldest first.

    Without `startOffset` it begins with the oldest record that is kept.
    """
    log, options = stream_of(context, request), query_options(request)
    log.check_view(options.get("viewRid"))
    partition = log.partition(options.get("partitionId", ""))
    start = _whole(options, "startOffset", "0")
    most = _whole(options, "limit", "")
    return json_response(200, [each.wire() for each in log.read(partition, start, min(most, MAX_READ))])


def get_end_offsets(context: Context, request: Request) -> Response:
    """Answer with the offset that the next record of each partition will have."""
    log = stream_of(context, request)
    log.check_view(query_options(request).get("viewRid"))
    return json_response(200, {str(number): end for number, end in enumerate(log.ends)})


MAX_DIGITS = 18


def _whole(options: dict[str, str], name: str, default: str) -> int:
    given = options.get(name, default)
    if not (given.isascii() and given.isdecimal() and len(given) <= MAX_DIGITS):
        what = f"is {quoted(given)}" if given else "is missing"
        raise InvalidRequest(f"Getting records: the query option '{name}' {what}. Give a whole number, 0 or more.")
    return int(given)


# The OpenAPI document

_OPTIONS: dict[str, Schema] = {
    "partitionsCount": described({**COUNT, "minimum": 1}, "How many partitions the stream has, 1 by default"),
    "streamType": described(TEXT, "`LOW_LATENCY`, the default, or `HIGH_THROUGHPUT`"),
    "compressed": described(FLAG, "Accepted, and without effect here"),
}
_SCHEMA = described(schemas.STREAM_SCHEMA, "The fields of the records, with their types")
_BRANCH = described(TEXT, "The branch of the stream")


def _object(properties: dict[str, Schema], *required: str) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


_DATASET_BODY = with_examples(
    _object(
        {
            "name": described(TEXT, "The name, which no other stream may have"),
            "parentFolderRid": described(TEXT, "The RID of a folder; any is accepted"),
            "schema": _SCHEMA,
            "branchName": described(TEXT, "The branch of the stream, `master` by default"),
            **_OPTIONS,
        },
        *("name", "parentFolderRid", "schema"),
    ),
    examples.NEW_STREAMING_DATASET,
)
_STREAM_BODY = with_examples(
    _object({"branchName": _BRANCH, "schema": _SCHEMA, **_OPTIONS}, "branchName", "schema"), examples.NEW_STREAM
)
_RESET_BODY = with_examples(_object({"schema": _SCHEMA, **_OPTIONS}), {"partitionsCount": 1})
_RECORD: Schema = {"type": "object", "description": "A record: an object with the fields of the schema"}
VIEW = described(TEXT, "The RID of the view; the request is refused if it is not the current one")
_RECORD_BODY = with_examples(_object({"record": _RECORD, "viewRid": VIEW}, "record"), examples.PUBLISHED_RECORD)
_RECORDS_BODY = with_examples(
    _object({"records": described(array(_RECORD), "The records"), "viewRid": VIEW}, "records"),
    examples.PUBLISHED_RECORDS,
)
_DATASET = with_examples(
    members(
        {
            "rid": described(TEXT, "The RID of the new data stream"),
            "name": described(TEXT, "Its name"),
            "parentFolderRid": described(TEXT, "The RID of its folder"),
        }
    ),
    examples.STREAMING_DATASET,
)
_STREAM = with_examples(
    members(
        {
            "branchName": _BRANCH,
            "schema": _SCHEMA,
            "viewRid": described(TEXT, "The RID of the current view"),
            "partitionsCount": described(COUNT, "How many partitions the stream has"),
            "streamType": described(TEXT, "`LOW_LATENCY` or `HIGH_THROUGHPUT`"),
            "compressed": described(FLAG, "Whether the stream is compressed on the platform"),
        }
    ),
    examples.STREAM,
)
STORED_RECORD = members({"offset": described(COUNT, "Its offset in the partition"), "value": _RECORD})
_RECORDS = with_examples(array(STORED_RECORD), examples.STREAM_RECORDS)
_OFFSETS: Schema = {"type": "object", "additionalProperties": COUNT}
_ENDS = with_examples(_OFFSETS, examples.END_OFFSETS)
VIEW_OPTION = {"viewRid": VIEW}
_READ_OPTIONS: dict[str, Schema] = {
    "partitionId": with_examples(described(TEXT, "The partition, such as `0`"), "0"),
    "limit": with_examples(
        described({**COUNT, "maximum": 10**MAX_DIGITS}, f"How many records; at most {MAX_READ:,} are answered"), 100
    ),
    "startOffset": described({**COUNT, "maximum": 10**MAX_DIGITS}, "The offset of the first record"),
}
NOT_FOUND = {404: "There is no such stream, branch or view"}
NAMES = {404: "StreamNotFound"}
_MISMATCH = {400: "A record does not match the schema"}
DENIED = {
    "publishRecord": "PublishRecordToStreamPermissionDenied",
    "publishRecords": "PublishRecordsToStreamPermissionDenied",
    "publishBinaryRecord": "PublishBinaryRecordToStreamPermissionDenied",
    "getRecords": "GetRecordsFromStreamPermissionDenied",
    "getEndOffsets": "GetEndOffsetsForStreamPermissionDenied",
}
"""The platform's errors for a token that does not reach the stream."""
_INVALID = {400: "The schema is not valid, or the request"}


def record_routes(beginning: str) -> tuple[Route, ...]:
    """Return the routes of the records of a stream; their paths begin with `/api/` or the like."""

    def route(
        method: str,
        name: str,
        handler: Handler,
        done: dict[int, str],
        summary: str,
        **more: Any,
    ) -> Route:
        names = {**NAMES, **more.pop("error_names", {})}
        answers = {**done, **NOT_FOUND, **({} if method == "GET" else _MISMATCH)}
        path = f"{beginning}{HIGH_SCALE}/{name}"
        denied = DENIED[name]
        return Route(method, path, handler, Auth.DATA, answers, summary, error_names=names, denied=denied, **more)

    published, mismatch = {204: "The records are published"}, {400: "RecordDoesNotMatchStreamSchema"}
    publishing = {"error_names": mismatch, "query": PREVIEW}
    return (
        route("POST", "publishRecord", publish_record, published, "Publish a record", body=_RECORD_BODY, **publishing),
        route(
            "POST", "publishRecords", publish_records, published, "Publish records", body=_RECORDS_BODY, **publishing
        ),
        route(
            "POST",
            "publishBinaryRecord",
            publish_binary_record,
            published,
            "Publish a record of bytes",
            body=with_examples({"type": "string", "description": "The bytes"}, examples.BINARY_RECORD),
            body_media=BYTES,
            error_names=mismatch,
            query={**PREVIEW, **VIEW_OPTION},
        ),
        route(
            "GET",
            "getRecords",
            get_records,
            {200: "The records"},
            "Read records from an offset on",
            answer=_RECORDS,
            query={**_READ_OPTIONS, **PREVIEW, **VIEW_OPTION},
        ),
        route(
            "GET",
            "getEndOffsets",
            get_end_offsets,
            {200: "The offsets, by partition"},
            "Get the offset of the next record of each partition",
            answer=_ENDS,
            query={**PREVIEW, **VIEW_OPTION},
        ),
    )


routes = (
    Route(
        "POST",
        f"{STREAMS}/create",
        create_dataset,
        Auth.DATA,
        {200: "The data stream", **_INVALID, 409: "There is a stream of this name already"},
        "Create a data stream",
        body=_DATASET_BODY,
        answer=_DATASET,
        query=PREVIEW,
        error_names={400: "InvalidSchema", 409: "ResourceNameAlreadyExists"},
        denied="CreateStreamingDatasetPermissionDenied",
    ),
    Route(
        "POST",
        f"{STREAMS}/{{datasetRid}}/streams",
        create,
        Auth.DATA,
        {200: "The stream", **_INVALID, **NOT_FOUND, 409: "The branch exists already"},
        "Create a stream on a branch",
        body=_STREAM_BODY,
        answer=_STREAM,
        query=PREVIEW,
        error_names={**NAMES, 400: "InvalidSchema", 409: "BranchAlreadyExists"},
    ),
    Route(
        "GET",
        f"{STREAMS}/{{datasetRid}}/streams/{{streamBranchName}}",
        get,
        Auth.DATA,
        {200: "The stream", **NOT_FOUND},
        "Get a stream",
        answer=_STREAM,
        query=PREVIEW,
        error_names=NAMES,
        denied="StreamNotFound",  # as on the platform, which does not say that there is such a stream
    ),
    Route(
        "POST",
        f"{STREAMS}/{{datasetRid}}/streams/{{streamBranchName}}/reset",
        reset,
        Auth.DATA,
        {200: "The stream, with its new view", **_INVALID, **NOT_FOUND},
        "Clear a stream",
        body=_RESET_BODY,
        answer=_STREAM,
        query=PREVIEW,
        error_names={**NAMES, 400: "InvalidSchema"},
        denied="ResetStreamPermissionDenied",
    ),
    *record_routes(API),
)
