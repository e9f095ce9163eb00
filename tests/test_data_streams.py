"""Data streams: in Python, by the official client SDK, and by programs without an SDK."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import http.client
import json
import zlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
from client import Api
from conftest import serving
from foundry_sdk import Config, ConflictError, FoundryClient, NotFoundError, RequestEntityTooLargeError, UserTokenAuth
from foundry_sdk._errors import PalantirRPCException
from foundry_sdk.v2.core.errors import InvalidFieldSchema, InvalidSchema
from foundry_sdk.v2.core.models import StreamSchema
from foundry_sdk.v2.datasets.errors import BranchAlreadyExists
from foundry_sdk.v2.filesystem.errors import ResourceNameAlreadyExists
from foundry_sdk.v2.streams.errors import StreamNotFound, SubscriberAlreadyExists, SubscriberNotFound
from foundry_sdk.v2.streams.models import CreateStreamRequestStreamSchema, LatestPosition, SpecificPosition
from test_lifecycle import steps

from cmemu_nb.errors import ApiError, InvalidRequest
from cmemu_nb.lifecycle import data_streams
from cmemu_nb.lifecycle.data_streams import StreamOptions
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.server.api.streams_v2 import publish
from cmemu_nb.wire.stream_schemas import parse
from cmemu_nb.wire.stream_values import NewRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from foundry_sdk.v2.streams.stream import StreamClient

    from cmemu_nb import Emulator

PROXY = "/stream-proxy/api/streams"
FOLDER = "ri.compass.main.folder.of-mine"
SCHEMA: dict[str, Any] = {
    "fields": [
        {"name": "timestamp", "schema": {"nullable": False, "dataType": {"type": "timestamp"}}},
        {"name": "value", "schema": {"nullable": True, "dataType": {"type": "string"}}},
    ],
    "keyFieldNames": ["timestamp"],
}
ALL_TYPES: dict[str, Any] = {
    "string": "STRING",
    "boolean": "BOOLEAN",
    "byte": "BYTE",
    "short": "SHORT",
    "integer": "INTEGER",
    "long": "LONG",
    "float": "FLOAT",
    "double": "DOUBLE",
    "decimal": "DECIMAL(20, 4)",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "binary": "BINARY",
    "array": "ARRAY<ARRAY<INTEGER>>",
    "map": "MAP<STRING, DECIMAL>",
    "struct": {"at": "TIMESTAMP", "tags": "ARRAY<STRING>", "inner": {"raw": "BINARY"}},
}
BERLIN = dt.timezone(dt.timedelta(hours=1))
MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, 123456, BERLIN)
EVERYTHING: dict[str, Any] = {
    "string": "é\n😀",
    "boolean": True,
    "byte": -128,
    "short": 32_767,
    "integer": -(2**31),
    "long": 2**63 - 1,
    "float": 0.5,
    "double": 1e300,
    "decimal": Decimal("1234567890123456.7800"),
    "date": dt.date(2026, 1, 2),
    "timestamp": MOMENT,
    "binary": b"\x00\xff",
    "array": [[1, 2], [], None],
    "map": {"a": Decimal("0.10"), "b": None},
    "struct": {"at": MOMENT, "tags": ["x", None], "inner": {"raw": b"\xfe"}},
}
NOTHING = dict.fromkeys(EVERYTHING)


@pytest.fixture
def client(emu: Emulator, sdk_connections: None) -> FoundryClient:  # noqa: ARG001
    return client_of(emu, str(emu.token))


def client_of(emu: Emulator, token: str) -> FoundryClient:
    host, config = urlsplit(emu.url).netloc, Config(scheme="http")
    return FoundryClient(auth=UserTokenAuth(token), hostname=host, config=config)


@pytest.fixture
def events(emu: Emulator) -> Iterator[Any]:
    yield emu.streams.create("events", {"sensor": "STRING", "celsius": "DOUBLE"})
    emu.streams.clear()


def read_all(stream: StreamClient, rid: str, partition: str, most: int) -> list[Any]:
    """Read a partition as a consumer does that asks for the next records from its position on."""
    found: list[Any] = []
    while batch := stream.get_records(rid, "master", partition_id=partition, start_offset=len(found), limit=most):
        found += batch
    return found


# The official client SDK


def test_the_sdk_creates_publishes_and_reads_a_stream(emu: Emulator, client: FoundryClient) -> None:
    streams = client.streams.Dataset
    dataset = streams.create(name="sdk", parent_folder_rid=FOLDER, schema=StreamSchema.model_validate(SCHEMA))
    assert dataset.rid.startswith("ri.foundry.main.dataset.")
    assert (dataset.name, dataset.parent_folder_rid) == ("sdk", FOLDER)
    stream = streams.Stream.get(dataset.rid, "master")
    assert stream.schema_.model_dump(by_alias=True, exclude_none=True) == SCHEMA
    assert stream.view_rid.startswith("ri.foundry-streaming.main.view.")
    assert (stream.branch_name, stream.partitions_count, stream.stream_type, stream.compressed) == (
        *("master", 1, "LOW_LATENCY"),
        False,
    )
    streams.Stream.publish_record(dataset.rid, "master", record={"timestamp": 1_731_426_022_784, "value": "Hello"})
    later = [{"timestamp": MOMENT, "value": None}, {"timestamp": "2026-01-02T03:04:05Z"}]
    streams.Stream.publish_records(dataset.rid, "master", records=later, view_rid=stream.view_rid)
    records = streams.Stream.get_records(dataset.rid, "master", partition_id="0", limit=10)
    assert [(each.offset, each.value) for each in records] == [
        (0, {"timestamp": 1_731_426_022_784, "value": "Hello"}),
        (1, {"timestamp": 1_767_319_445_123.456, "value": None}),
        (2, {"timestamp": 1_767_323_045_000, "value": None}),
    ]
    assert [each.offset for each in read_all(streams.Stream, dataset.rid, "0", 2)] == [0, 1, 2]
    assert streams.Stream.get_end_offsets(dataset.rid, "master") == {"0": 3}
    times = emu.streams["sdk"].frame()["timestamp"]
    assert [each.isoformat() for each in times] == [
        *("2024-11-12T15:40:22.784000+00:00", "2026-01-02T02:04:05.123456+00:00", "2026-01-02T03:04:05+00:00"),
    ]
    del emu.streams["sdk"]


def test_branches_resets_and_views_are_those_of_the_sdk(emu: Emulator, client: FoundryClient) -> None:
    stream, schema = client.streams.Dataset.Stream, CreateStreamRequestStreamSchema.model_validate(SCHEMA)
    rid = emu.streams.create("branched", SCHEMA).rid
    made = stream.create(rid, branch_name="dev", schema=schema, partitions_count=3, stream_type="HIGH_THROUGHPUT")
    assert (made.branch_name, made.partitions_count, made.stream_type) == ("dev", 3, "HIGH_THROUGHPUT")
    stream.publish_record(rid, "dev", record={"timestamp": 1})
    assert (len(emu.streams["branched"]), len(emu.streams["branched"].on("dev"))) == (0, 1)
    new = {"fields": [{"name": "raw", "schema": {"nullable": False, "dataType": {"type": "binary"}}}]}
    after = stream.reset(rid, "dev", schema=StreamSchema.model_validate(new), partitions_count=1)
    assert after.view_rid != made.view_rid
    assert (after.partitions_count, after.stream_type, stream.get(rid, "dev")) == (1, "HIGH_THROUGHPUT", after)
    stream.publish_binary_record(rid, "dev", b"\x00\xff", view_rid=after.view_rid)
    (record,) = stream.get_records(rid, "dev", partition_id="0", limit=1)
    assert base64.b64decode(record.value["raw"]) == b"\x00\xff"
    assert emu.streams["branched"].on("dev").records == [{"raw": b"\x00\xff"}]
    with pytest.raises(NotFoundError) as refused:
        stream.get_records(rid, "dev", partition_id="0", limit=1, view_rid=made.view_rid)
    assert refused.value.name == "ViewNotFound"
    with pytest.raises(BranchAlreadyExists):
        stream.create(rid, branch_name="dev", schema=schema)
    emu.streams.clear()


def test_errors_are_those_of_the_sdk(emu: Emulator, api: Api, client: FoundryClient) -> None:
    streams, schema = client.streams.Dataset, StreamSchema.model_validate(SCHEMA)
    rid = emu.streams.create("errors", SCHEMA).rid
    with pytest.raises(ResourceNameAlreadyExists) as taken:
        streams.create(name="errors", parent_folder_rid=FOLDER, schema=schema)
    assert taken.value.parameters["parentFolderRid"] == FOLDER
    with pytest.raises(InvalidSchema):
        streams.create(name="new", parent_folder_rid=FOLDER, schema=StreamSchema.model_validate({"fields": []}))
    twice = StreamSchema.model_validate({"fields": [*SCHEMA["fields"], SCHEMA["fields"][0]]})
    with pytest.raises(InvalidFieldSchema) as wrong:
        streams.create(name="new", parent_folder_rid=FOLDER, schema=twice)
    assert wrong.value.parameters["fieldName"] == "timestamp"
    refused = api.contour("POST", f"/api/v2/streams/datasets/{rid}/streams/master/reset", json={"streamType": "FAST"})
    assert (refused.status_code, refused.json()["errorName"]) == (400, "InvalidStreamType")
    with pytest.raises(StreamNotFound) as unknown:
        streams.Stream.get(rid, "develop")
    assert unknown.value.parameters == {"datasetRid": rid, "streamBranchName": "develop"}
    for record in ({"timestamp": "soon"}, {"value": "x"}, {"timestamp": 1, "other": 2}, {"timestamp": True}):
        with pytest.raises(PalantirRPCException) as mismatch:
            streams.Stream.publish_records(rid, "master", records=[{"timestamp": 1}, record])
        assert mismatch.value.name == "RecordDoesNotMatchStreamSchema"
        assert "Record 1 does not match its schema." in str(mismatch.value)
    with pytest.raises(RequestEntityTooLargeError) as large:
        streams.Stream.publish_record(rid, "master", record={"timestamp": 1, "value": "x" * 1_000_000})
    assert large.value.name == "RecordTooLarge"
    with pytest.raises(PalantirRPCException) as binary:
        streams.Stream.publish_binary_record(rid, "master", b"x")
    assert "Its schema must be a single binary field" in str(binary.value)
    with pytest.raises(PalantirRPCException, match="Its partitions are 0"):
        streams.Stream.get_records(rid, "master", partition_id="1", limit=1)
    assert len(emu.streams["errors"]) == 0
    assert ConflictError in ResourceNameAlreadyExists.__mro__
    emu.streams.clear()


def test_a_subscriber_reads_on_from_what_it_has_committed(emu: Emulator, client: FoundryClient) -> None:
    made = emu.streams.create("followed", {"n": "LONG", "key": "STRING"}, partitions=2, keys=["key"])
    rid, subscriber = made.rid, client.streams.Dataset.Stream.Subscriber
    keys = next((a, b) for a, b in (("a", str(each)) for each in range(100)) if _partition(a) != _partition(b))
    made.publish([{"n": number, "key": keys[number % 2]} for number in range(10)])
    created = subscriber.create(rid, "master", subscriber_id="alerts")
    assert (created.dataset_rid, created.branch_name, created.view_rid) == (rid, "master", made.view_rid)
    assert created.start_offsets == {"0": 0, "1": 0}
    assert subscriber.create(rid, "master", subscriber_id="alerts", read_position=LatestPosition()) == created

    def read(**options: Any) -> list[int]:
        found = subscriber.read_records(rid, "master", "alerts", **options).records_by_partition
        return sorted(each.value["n"] for records in found.values() for each in records)

    assert read(limit=4) == read(limit=4), "nothing was committed"
    assert len(read(limit=7)) == 7
    assert read() == [*range(10)]
    first = [each for each in range(10) if each % 2 == _parity(keys)]
    assert read(limit=3, partition_ids=["0"], auto_commit=True) == first[:3]
    assert subscriber.get_read_position(rid, "master", "alerts") == {"0": 3, "1": 0}
    assert subscriber.commit_offsets(rid, "master", "alerts", offsets={"1": 4}) == {"0": 3, "1": 5}
    assert read() == first[3:]
    assert subscriber.reset_offsets(rid, "master", "alerts", position=LatestPosition()) == {"0": 5, "1": 5}
    made.publish({"n": 10, "key": keys[0]})
    assert (read(auto_commit=True), read()) == ([10], [])
    specific = SpecificPosition(offsets={"0": 1, "1": 2})
    assert subscriber.reset_offsets(rid, "master", "alerts", position=specific) == {"0": 1, "1": 2}
    with pytest.raises(PalantirRPCException, match="partition 0 has no such offset"):
        subscriber.reset_offsets(rid, "master", "alerts", position=SpecificPosition(offsets={"0": 9}))
    made.reset()
    assert subscriber.get_read_position(rid, "master", "alerts") == {"0": 0, "1": 0}
    other = emu.streams.create("another", {"n": "LONG"})
    with pytest.raises(SubscriberAlreadyExists) as taken:
        subscriber.create(other.rid, "master", subscriber_id="alerts")
    assert taken.value.parameters["existingDatasetRid"] == rid
    subscriber.delete(rid, "master", "alerts")
    with pytest.raises(SubscriberNotFound):
        subscriber.get_read_position(rid, "master", "alerts")
    emu.streams.clear()


def _partition(key: str) -> int:
    return zlib.crc32(json.dumps([key]).encode()) % 2


def _parity(keys: tuple[str, str]) -> int:
    """Return which of the numbers, the even or the odd ones, have the key of partition 0."""
    return 0 if _partition(keys[0]) == 0 else 1


# A program without an SDK: HTTP as another language's client writes it


def test_a_plain_client_reads_and_writes_by_the_stream_proxy(emu: Emulator, api: Api, events: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", emu.port, timeout=30)
    branch = f"{PROXY}/{events.rid}/branches/master"

    def send(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {**api.bearer, "Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else None

    record = {"sensor": "a", "celsius": 20.5}
    status, place = send("POST", f"{branch}/jsonRecord", record)
    assert (status, place["offsetAndPartitionIds"]) == (200, [{"offset": 0, "partitionId": 0}])
    view = f"{PROXY}/{events.rid}/views/{events.view_rid}"
    for path in (branch, view):
        assert send("POST", f"{path}/jsonRecords", [{"value": record}, {"value": {"sensor": "b"}}])[0] == 200
    assert send("POST", f"{view}/jsonRecord", record)[0] == 200
    status, records = send("GET", f"{branch}/records")
    assert (status, [each["value"]["sensor"] for each in records]) == (200, ["a", "a", "b", "a", "b", "a"])
    assert records[2] == {"offset": 2, "value": {"sensor": "b", "celsius": None}}
    for method, path, body, expected in (
        ("POST", f"{branch}/jsonRecord", {"value": record}, (400, "RecordDoesNotMatchStreamSchema")),
        ("POST", f"{branch}/jsonRecords", [record], (400, "InvalidRequest")),
        ("POST", f"{PROXY}/{events.rid}/views/ri.old/jsonRecord", record, (404, "ViewNotFound")),
        ("GET", f"{PROXY}/ri.other/branches/master/records", None, (404, "StreamNotFound")),
        ("GET", f"{PROXY}/{events.rid}/branches/dev/records", None, (404, "StreamNotFound")),
    ):
        status, error = send(method, path, body)
        assert (status, error["errorName"]) == expected, path
    connection.request("GET", f"{branch}/records")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["errorName"]) == (401, "InvalidBearerToken")
    connection.close()
    assert len(events) == 6


def test_many_records_are_converted_in_turns_and_published_at_once(emu: Emulator, events: Any) -> None:
    state, records = emu.lifecycle, [b'{"sensor": "a", "celsius": %d}' % number for number in range(1000)]

    async def interrupted(work: Callable[[], object]) -> int:
        """Publish the records, and do something else before they are; returns how many were published by then."""
        publishing = asyncio.ensure_future(publish(emu.application.context, state.data_stream(events.rid), records))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        work()
        kept = len(state.data_stream(events.rid).arrived)
        await publishing
        return kept

    assert emu.home.run(interrupted(lambda: None)) == 0
    assert len(events) == 1000
    with pytest.raises(ApiError, match="has no view"):
        emu.home.run(interrupted(lambda: state.reset_data_stream(events.rid, "master", parse({"other": "LONG"}))))
    assert len(events) == 0


def test_a_consumer_sees_each_record_once_and_in_order_while_others_are_published(
    emu: Emulator, client: FoundryClient
) -> None:
    keyed = emu.streams.create("keyed", {"key": "STRING", "n": "LONG"}, partitions=4, keys=["key"])
    stream, seen = client.streams.Dataset.Stream, [list[dict[str, Any]]() for _ in range(4)]

    def follow() -> None:
        for partition, records in enumerate(seen):
            position = len(records)
            batch = stream.get_records(
                keyed.rid, "master", partition_id=str(partition), start_offset=position, limit=100
            )
            assert [each.offset for each in batch] == [*range(position, position + len(batch))]
            records += [each.value for each in batch]

    for number in range(20):
        keyed.publish([{"key": f"k{row % 7}", "n": number * 10 + row} for row in range(10)])
        follow()
    follow()
    assert [len(records) for records in seen] == list(keyed.end_offsets.values())
    assert sorted(each["n"] for records in seen for each in records) == [*range(200)]
    for records in seen:
        assert [each["n"] for each in records] == sorted(each["n"] for each in records)
    where = {(each["key"], partition) for partition, records in enumerate(seen) for each in records}
    assert len(where) == 7, "the records of a key are in one partition"
    del emu.streams["keyed"]


# In Python


def test_every_type_survives_both_ways(emu: Emulator, client: FoundryClient) -> None:
    made = emu.streams.create("types", ALL_TYPES)
    assert made.publish([EVERYTHING, NOTHING, {}]) == 3
    inner = {**EVERYTHING["struct"], "at": MOMENT}
    assert made.records == [{**EVERYTHING, "struct": inner}, NOTHING, NOTHING]
    over_http = client.streams.Dataset.Stream.get_records(made.rid, "master", partition_id="0", limit=1)[0].value
    client.streams.Dataset.Stream.publish_record(made.rid, "master", record=over_http)
    assert made.records[3] == made.records[0]
    frame = made.frame()
    emu.streams["again"] = frame.drop(columns=["map"])
    again = emu.streams["again"].frame()
    assert again.drop(columns=["array", "struct"]).equals(frame.drop(columns=["array", "struct", "map"]))
    assert {**emu.streams["again"].schema, "map": ""} == {
        **made.schema,
        "decimal": "DECIMAL",
        "array": "ARRAY<ARRAY<LONG>>",
        "map": "",
    }
    emu.streams.clear()


@pytest.mark.parametrize("number", ["1e999999999", "-1e-999999999", "9" * 5000, "1e39", "0.1", "-0", "1" * 39])
def test_no_number_is_too_much_for_any_type(emu: Emulator, api: Api, number: str) -> None:
    made = emu.streams.create("types", ALL_TYPES)
    for name in ALL_TYPES:
        answer = api.contour("POST", f"{PROXY}/{made.rid}/branches/master/jsonRecord", data=f'{{"{name}": {number}}}')
        assert answer.status_code in (200, 400), (name, answer.text)
        if answer.status_code == 400:
            reason = answer.json()["errorDescription"]
            assert f"'{name}'" in reason or "Integer value out of range" in reason
    accepted = {"-1e-999999999": 3, "1e39": 1, "0.1": 4, "-0": 8, "1" * 39: 2}
    assert len(made.records) == len(made.frame()) == accepted.get(number, 0)
    emu.streams.clear()


def test_values_of_numpy_are_those_of_python(emu: Emulator) -> None:
    record = {"at": np.datetime64("2026-01-02T03:04:05.123456789"), "n": np.int32(7), "x": np.float32(0.5)}
    emu.streams["numpy"] = [{**record, "on": np.True_, "list": np.array([1, 2]), "text": np.str_("a")}]
    assert emu.streams["numpy"].records == [
        {
            "at": dt.datetime(2026, 1, 2, 3, 4, 5, 123456, dt.UTC),
            "n": 7,
            "x": 0.5,
            "on": True,
            "list": [1, 2],
            "text": "a",
        }
    ]
    del emu.streams["numpy"]


def test_a_frame_becomes_a_stream_and_comes_back(emu: Emulator) -> None:
    frame = pd.DataFrame(
        {
            "name": ["a", None],
            "count": pd.array([1, None], dtype="Int64"),
            "size": pd.array([1, 2], dtype="int16"),
            "price": [1.5, float("nan")],
            "on": [True, False],
            "at": pd.Series([pd.Timestamp("2026-01-02T03:04:05.5+05:00"), pd.NaT]),
            "kind": pd.Categorical(["x", "y"]),
            "empty": [None, None],
        }
    )
    emu.streams["frame"] = frame
    stream = emu.streams["frame"]
    assert repr(stream) == (
        "<Stream 'frame': 2 records; name STRING, count LONG, size SHORT, price DOUBLE, on BOOLEAN, at TIMESTAMP, "
        "kind STRING, empty STRING>"
    )
    back = stream.frame()
    assert back["at"].dtype == "datetime64[us, UTC]"
    for name in ("name", "count", "size", "price", "on"):
        assert back[name].equals(frame[name].astype(back[name].dtype)), name
        assert back[name].dtype == frame[name].dtype
    assert back["at"].to_list()[0] == frame["at"][0]
    first = stream.view_rid
    emu.streams["frame"] = [{"other": 1}]
    assert (stream.rid, stream.records, stream.schema) == (emu.streams["frame"].rid, [{"other": 1}], {"other": "LONG"})
    assert stream.view_rid != first
    assert repr(emu.streams) == "<Streams: frame (1 record)>"
    stream.reset()
    assert (len(stream), stream.end_offsets) == (0, {"0": 0})
    del emu.streams["frame"]
    assert repr(stream) == "<Stream 'frame': deleted>"
    assert repr(emu.streams) == "<Streams: none yet; create(name, schema) makes one>"


def test_what_can_t_be_published_is_refused_as_a_whole_with_the_reason(emu: Emulator, events: Any) -> None:
    good = {"sensor": "a", "celsius": 1}
    refused: list[tuple[Any, str]] = [
        ([good, {"sensor": 1}], r"Record 1 does not match .*\. The field 'sensor' is 1, and must be a string\."),
        ([good, {"celsius": "warm"}], "The field 'celsius' is 'warm', and must be a number"),
        ([{"senso": "a"}], "The schema has no field 'senso'"),
        ([1], "The record is 1, and must be an object"),
        (7, "int can't be published. Give a DataFrame"),
        ([{"sensor": "\ud800"}], "half a surrogate pair"),
        ([{"celsius": float("inf")}], "must be a number"),
    ]
    for records, reason in refused:
        with pytest.raises(InvalidRequest, match=reason):
            events.publish(records)
    assert len(events) == 0
    unclear: list[tuple[Any, str]] = [
        ([{"x": 1}, {"x": "a"}], "The field 'x' has values of the types LONG, STRING"),
        ([{"x": object()}], "The field 'x' has a value of the type object, which no stream holds"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns of the same name"),
    ]
    for records, reason in unclear:
        with pytest.raises(InvalidRequest, match=reason):
            emu.streams["new"] = records
    with pytest.raises(ApiError, match=r"There is no stream 'event'\. Did you mean 'events'\? Known streams: 'events'"):
        emu.streams["event"]
    for schema, reason in (
        ({"a": "TEXT"}, "There is no type 'TEXT'"),
        ({"a": "ARRAY"}, "'ARRAY' is no type"),
        ({"a": "ARRAY<STRING, STRING>"}, "write ARRAY<STRING> or MAP"),
        ({"a": "DECIMAL(39, 2)"}, "at most 38 digits"),
        ({"a": "MAP<LONG, STRING>"}, "keys of a map must be of the type STRING"),
        ({"a": 1}, "'1' is no type"),
        ({}, "at least one field"),
    ):
        with pytest.raises(ApiError, match=reason):
            emu.streams.create("new", schema)
    with pytest.raises(ApiError, match="The schema has no field 'b', which is to be a key"):
        emu.streams.create("new", {"a": "STRING"}, keys=["b"])
    assert list(emu.streams) == ["events"]


def test_the_overview_has_a_row_for_each_branch_and_cards_show_one(emu: Emulator) -> None:
    hostile = "<b>x</b>"
    assert emu.streams.overview.empty
    emu.streams.create(hostile, {"n": "LONG"}, partitions=2).publish([{"n": n} for n in range(5)])
    emu.streams.create(hostile, {hostile: "STRING"}, branch="mine")
    frame = emu.streams.overview
    assert list(frame.index) == [(hostile, "master"), (hostile, "mine")]
    assert frame["records"].to_list() == [5, 0]
    assert frame["end_offsets"].to_list() == ["0: 3, 1: 2", "0: 0"]
    assert frame["published_at"].notna().to_list() == [True, False]
    mine = emu.streams[hostile].on("mine")
    shown = [each._repr_mimebundle_()["text/html"] for each in (emu.streams, emu.streams[hostile], mine)]
    shown.append(str(frame._repr_html_()))  # type: ignore[operator]
    assert [hostile in html for html in shown] == [False] * 4
    assert ["&lt;b&gt;x&lt;/b&gt;" in html for html in shown] == [True] * 4
    assert ".on(" in shown[2]
    for rid in ("<b>", "ri.foundry", "a b"):
        with pytest.raises(InvalidRequest, match="is no RID"):
            emu.streams.create("other", {"n": "LONG"}, rid=rid)
    emu.streams[hostile].delete()
    assert "deleted" in mine._repr_mimebundle_()["text/html"]


def test_the_oldest_records_are_dropped_and_the_offsets_stay() -> None:
    with serving(keep_records=5) as emulator:
        stream = emulator.streams.create("short", {"n": "LONG"}, partitions=2)
        stream.publish([{"n": number} for number in range(4)])
        stream.publish([{"n": number} for number in range(4, 12)])
        assert [each["n"] for each in stream.records] == [*range(7, 12)]
        assert stream.end_offsets == {"0": 6, "1": 6}
        client = Api(emulator.url, emulator.token)
        path = f"/api/v2/highScale/streams/datasets/{stream.rid}/streams/master/getRecords"
        for start, offsets in ((0, [4, 5]), (5, [5]), (6, [])):
            found = client.contour("GET", path, params={"partitionId": "0", "limit": 9, "startOffset": start}).json()
            assert [each["offset"] for each in found] == offsets
        (event,) = [
            each for each in emulator.lifecycle.events.recent(all=True) if each.detail and "dropped" in each.detail
        ]
        assert event.detail == "8 records to short; 7 old records dropped"


def test_the_bytes_of_a_stream_are_bounded_and_a_read_from_any_position_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(data_streams, "MAX_KEPT_BYTES", 10_000)
    state = Lifecycle()
    rid = state.create_data_stream("bytes", parse({"a": "STRING"}), StreamOptions(1)).rid
    state.publish(rid, "master", [NewRecord(b"x" * (number % 50), None) for number in range(500)])
    log = state.data_stream(rid)
    assert log.size <= 10_000
    assert log.size == sum(len(each.value) + data_streams.RECORD_BYTES for each in log.records())
    kept = [each.offset for each in log.records()]
    assert kept == [*range(kept[0], 500)]
    for start in range(kept[0] - 2, 502):
        expected = [offset for offset in kept if offset >= start][:7]
        assert [each.offset for each in log.read(0, start, 7)] == expected


def test_publishing_and_reading_cost_the_same_after_a_hundred_thousand_records() -> None:
    state = Lifecycle(keep_events=1, keep_records=1000)
    rid = state.create_data_stream("many", parse({"n": "LONG"}), StreamOptions(2)).rid
    log = state.data_stream(rid)

    def cycle() -> None:
        state.publish(rid, "master", [log.reader.convert({"n": 1})] * 2)
        assert len(log.read(0, log.ends[0] - 1, 10)) == 1
        assert len(log.read(1, log.ends[1] - 400, 10)) == 10

    state.publish(rid, "master", [log.reader.convert({"n": 1})] * 2000)
    at_first = min(steps(cycle) for _ in range(3))
    state.publish(rid, "master", [log.reader.convert({"n": 1})] * 100_000)
    assert min(steps(cycle) for _ in range(3)) == at_first
    assert (len(log.records()), sum(log.ends)) == (1000, 102_012)
