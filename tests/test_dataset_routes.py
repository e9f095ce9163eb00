"""Datasets by Foundry's public API: the official client SDK, unmodified, and a plain HTTP client."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import io
import json
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from client import Api, eventually
from conftest import TOKEN, end_programs
from foundry_sdk import BadRequestError, ConflictError, InternalServerError, NotFoundError
from foundry_sdk._errors import PalantirRPCException
from foundry_sdk.v2.datasets import errors as named
from foundry_sdk.v2.filesystem.errors import ResourceNameAlreadyExists
from test_client_sdk import error_of, error_parameters, sdk
from test_datasets import BIG, COLUMNS, SCHEMA, avro_file, rows

from cmemu_nb.errors import LaunchFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cmemu_nb import Emulator

pytestmark = [pytest.mark.usefixtures("shared_emulator", "sdk_connections", "arrow_pipe"), pytest.mark.long_lived]
FOLDER = "ri.compass.main.folder.mine"
FIELDS = [
    {"type": "LONG", "name": "id", "nullable": True},
    {"type": "STRING", "name": "name", "nullable": True},
    {"type": "TIMESTAMP", "name": "at", "nullable": True},
    {"type": "DECIMAL", "name": "price", "nullable": True, "precision": 10, "scale": 2},
    {
        "type": "ARRAY",
        "name": "tags",
        "nullable": True,
        "arraySubtype": {
            "type": "STRUCT",
            "nullable": True,
            "subSchemas": [{"type": "INTEGER", "name": "x", "nullable": True}],
        },
    },
    {
        "type": "MAP",
        "name": "counts",
        "nullable": True,
        "mapKeyType": {"type": "STRING", "nullable": False},
        "mapValueType": {"type": "LONG", "nullable": True},
        "customMetadata": {"unit": "pieces"},
    },
]


@pytest.fixture
def datasets(emu: Emulator) -> Any:
    return sdk(emu).datasets.Dataset


@pytest.fixture
def rid(datasets: Any) -> str:
    created: str = datasets.create(name="orders", parent_folder_rid=FOLDER).rid
    return created


def parquet(**columns: list[Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def paths(datasets: Any, rid: str, **options: Any) -> list[str]:
    return [file.path for file in datasets.File.list(rid, **options)]


# The official client SDK


def test_the_sdk_writes_and_reads_a_dataset(datasets: Any, rid: str, emu: Emulator) -> None:
    assert datasets.get(rid).name == "orders"
    transaction = datasets.Transaction.create(rid, transaction_type="SNAPSHOT").rid
    first = parquet(id=[1, None], name=["one", None])
    file = datasets.File.upload(rid, "data/one file.parquet", first, transaction_rid=transaction)
    assert (file.path, file.transaction_rid, file.size_bytes) == ("data/one file.parquet", transaction, len(first))
    datasets.put_schema(rid, schema={"fieldSchemaList": FIELDS[:2]}, end_transaction_rid=transaction)
    done = datasets.Transaction.commit(rid, transaction)
    assert (done.status, done.transaction_type) == ("COMMITTED", "SNAPSHOT")
    assert done.closed_time >= done.created_time > dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    assert datasets.File.content(rid, "data/one file.parquet") == first
    assert datasets.File.get(rid, "data/one file.parquet").updated_time <= done.closed_time
    assert rows(datasets.read_table(rid, format="ARROW").to_pandas()) == [
        {"id": 1, "name": "one"},
        {"id": None, "name": None},
    ]
    assert datasets.read_table(rid, format="ARROW", columns=["name", "id"], row_limit=1).to_pyarrow().to_pylist() == [
        {"name": "one", "id": 1}
    ]
    assert datasets.read_table(rid, format="CSV") == b'"id","name"\n1,"one"\n,\n'
    assert rows(emu.datasets["orders"].frame()) == [{"id": 1, "name": "one"}, {"id": None, "name": None}]
    assert emu.datasets["orders"].schema == {"id": "LONG", "name": "STRING"}


def test_what_the_notebook_wrote_comes_to_the_sdk_with_its_types(datasets: Any, emu: Emulator) -> None:
    frame = pd.DataFrame(COLUMNS)
    emu.datasets["in"] = frame
    table = datasets.read_table(emu.datasets["in"].rid, format="ARROW")
    assert table.to_pyarrow().equals(emu.datasets["in"].table())
    back = table.to_pandas()
    assert back["id"].to_list() == frame["id"].to_list()
    assert (back["at"].dtype, back["price"].to_list()) == (frame["at"].dtype, frame["price"].to_list())
    fields = datasets.get_schema(emu.datasets["in"].rid).schema_.field_schema_list
    assert {field.name: field.type for field in fields} == {
        name: kind.partition("(")[0].partition("<")[0] for name, kind in SCHEMA.items()
    }
    with pytest.raises(BadRequestError) as failed:
        datasets.read_table(emu.datasets["in"].rid, format="CSV")
    assert error_of(failed)[:2] == (named.ColumnTypesNotSupported, "ColumnTypesNotSupported")


def test_a_schema_gives_a_csv_and_an_avro_file_their_types(datasets: Any, rid: str) -> None:
    text = b'id,name,at,price\n1,"",2021-01-01 12:00:00,2.5\n2,,,\n'
    datasets.File.upload(rid, "a.csv", text)
    with pytest.raises(NotFoundError) as failed:
        datasets.read_table(rid, format="ARROW")
    assert error_of(failed)[:2] == (named.SchemaNotFound, "SchemaNotFound")
    put = datasets.put_schema(rid, schema={"fieldSchemaList": FIELDS}, dataframe_reader="CSV")
    assert datasets.get_schema(rid) == put
    assert put.schema_.field_schema_list[5].custom_metadata == {"unit": "pieces"}
    assert datasets.get_schema(rid, version_id=put.version_id, end_transaction_rid=put.end_transaction_rid) == put
    assert datasets.get_schema_batch([{"datasetRid": rid}, {"datasetRid": f"{rid}0"}]).data == {rid: put}
    table = datasets.read_table(rid, format="ARROW").to_pyarrow()
    assert [str(kind) for kind in table.schema.types[:4]] == [
        "int64",
        "string",
        "timestamp[us, tz=UTC]",
        "decimal128(10, 2)",
    ]
    noon = dt.datetime(2021, 1, 1, 12, tzinfo=dt.UTC)
    first = table.to_pylist()[0]
    assert (first["name"], first["at"], str(first["price"]), first["tags"]) == ("", noon, "2.50", None)
    # A file without a header, in the order of the columns
    datasets.File.upload(rid, "a.csv", b"3,x,2021-01-01T12:00:00+02:00,1,,\n")
    row = datasets.read_table(rid, format="ARROW").to_pyarrow().to_pylist()[0]
    assert (row["id"], row["at"]) == (3, noon - dt.timedelta(hours=2))
    datasets.File.upload(rid, "a.csv", avro_file())
    datasets.put_schema(rid, schema={"fieldSchemaList": FIELDS[:1]}, dataframe_reader="AVRO")
    assert datasets.read_table(rid, format="ARROW").to_pyarrow().column("id").to_pylist() == [BIG, None]
    datasets.File.upload(rid, "a.csv", parquet(id=["no number"]))
    with pytest.raises(InternalServerError) as broken:
        datasets.read_table(rid, format="ARROW")
    assert error_of(broken)[0] is named.ReadTableError
    expected = "The file 'a.csv' can't be read as a table: the column 'id' does not fit the schema: "
    assert error_parameters(broken)["message"].startswith(expected)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            [{"type": "ARRAY", "name": "a", "nullable": True}],
            "The field 'a' is of type ARRAY, so it needs arraySubtype",
        ),
        ([{"type": "DECIMAL", "name": "a", "nullable": True, "precision": 39}], r"a DECIMAL(39, 0), which no column"),
        ([FIELDS[0], FIELDS[0]], "no two columns may have the same name"),
        ([{"type": "LONG", "nullable": True}], "Each column needs a name"),
    ],
)
def test_a_schema_that_no_dataset_can_have_is_refused(datasets: Any, rid: str, fields: list[Any], words: str) -> None:
    datasets.File.upload(rid, "a", b"")
    with pytest.raises(BadRequestError) as failed:
        datasets.put_schema(rid, schema={"fieldSchemaList": fields})
    assert error_of(failed)[1] == "InvalidSchema"
    assert words in error_parameters(failed)["message"]


def test_transactions_change_the_view_as_their_types_say(datasets: Any, rid: str) -> None:
    def write(kind: str, *names: str) -> str:
        transaction: str = datasets.Transaction.create(rid, transaction_type=kind).rid
        for name in names:
            datasets.File.upload(rid, name, f"{kind} {name}".encode(), transaction_rid=transaction)
        datasets.Transaction.commit(rid, transaction)
        return transaction

    first = write("SNAPSHOT", "a", "b")
    second = write("APPEND", "c")
    third = write("UPDATE", "a", "d")
    assert paths(datasets, rid) == ["a", "b", "c", "d"]
    assert datasets.File.content(rid, "a") == b"UPDATE a"
    datasets.File.delete(rid, "b")
    assert paths(datasets, rid) == ["a", "c", "d"]
    assert paths(datasets, rid, path_prefix="c") == ["c"]
    assert paths(datasets, rid, page_size=2) == ["a", "c", "d"]
    # Earlier views are still there.
    assert paths(datasets, rid, end_transaction_rid=second) == ["a", "b", "c"]
    assert datasets.File.content(rid, "a", end_transaction_rid=second) == b"SNAPSHOT a"
    assert paths(datasets, rid, start_transaction_rid=second, end_transaction_rid=third) == ["a", "c", "d"]
    assert paths(datasets, rid, start_transaction_rid=third, end_transaction_rid=third) == ["a", "d"]
    with pytest.raises(NotFoundError) as failed:
        datasets.File.content(rid, "b", start_transaction_rid=third, end_transaction_rid=third)
    assert error_of(failed)[0] is named.FileNotFoundOnTransactionRange
    last = write("SNAPSHOT", "z")
    assert paths(datasets, rid) == ["z"]
    kinds = [each.transaction_type for each in datasets.transactions(rid, preview=True)]
    assert kinds == ["SNAPSHOT", "DELETE", "UPDATE", "APPEND", "SNAPSHOT"]
    # A branch begins where it was made.
    assert datasets.Branch.create(rid, name="dev", transaction_rid=first).transaction_rid == first
    datasets.File.upload(rid, "e", b"e", branch_name="dev", transaction_type="APPEND")
    assert paths(datasets, rid, branch_name="dev") == ["a", "b", "e"]
    assert [branch.name for branch in datasets.Branch.list(rid)] == ["master", "dev"]
    assert datasets.Branch.get(rid, "master").transaction_rid == last
    assert len(list(datasets.Branch.transactions(rid, "dev", preview=True))) == 2
    datasets.Branch.delete(rid, "dev")
    with pytest.raises(NotFoundError) as unknown:
        paths(datasets, rid, branch_name="dev")
    assert error_of(unknown)[0] is named.BranchNotFound


def test_a_reader_never_sees_an_open_transaction_and_two_writers_conflict(datasets: Any, rid: str) -> None:
    datasets.File.upload(rid, "a", b"1")
    opened = datasets.Transaction.create(rid, transaction_type="UPDATE").rid
    datasets.File.upload(rid, "a", b"2", transaction_rid=opened)
    datasets.File.upload(rid, "b", b"2", transaction_rid=opened)
    assert datasets.Branch.get(rid, "master").transaction_rid == opened
    assert (paths(datasets, rid), datasets.File.content(rid, "a")) == (["a"], b"1")
    with pytest.raises(BadRequestError) as not_committed:
        paths(datasets, rid, end_transaction_rid=opened)
    assert error_of(not_committed)[1] == "TransactionNotCommitted"
    # Its writer can look at what it has uploaded.
    assert paths(datasets, rid, start_transaction_rid=opened, end_transaction_rid=opened) == ["a", "b"]
    writes: list[Callable[[], object]] = [
        lambda: datasets.Transaction.create(rid, transaction_type="APPEND"),
        lambda: datasets.File.upload(rid, "c", b"3"),
        lambda: datasets.File.delete(rid, "a"),
    ]
    for write in writes:
        with pytest.raises(ConflictError) as conflict:
            write()
        assert error_of(conflict)[0] is named.OpenTransactionAlreadyExists
    assert datasets.Transaction.abort(rid, opened).status == "ABORTED"
    assert (paths(datasets, rid), datasets.Transaction.get(rid, opened).status) == (["a"], "ABORTED")
    for end in (datasets.Transaction.commit, datasets.Transaction.abort):
        with pytest.raises(BadRequestError) as ended:
            end(rid, opened)
        assert error_of(ended)[0] is named.TransactionNotOpen
    datasets.File.upload(rid, "c", b"3")
    assert paths(datasets, rid) == ["a", "c"]


def test_the_platforms_errors_have_their_names(datasets: Any, rid: str) -> None:
    transaction = f"{rid.replace('dataset', 'transaction')}"
    append = datasets.Transaction.create(rid, transaction_type="APPEND").rid
    datasets.File.upload(rid, "a", b"1", transaction_rid=append)
    cases: list[tuple[Callable[[], object], type]] = [
        (lambda: datasets.get(f"{rid}0"), named.DatasetNotFound),
        (lambda: datasets.create(name="orders", parent_folder_rid=FOLDER), ResourceNameAlreadyExists),
        (lambda: datasets.Transaction.get(rid, transaction), named.TransactionNotFound),
        (lambda: datasets.File.upload(rid, "a", b"2", transaction_rid=append), named.FileAlreadyExists),
        (lambda: datasets.File.delete(rid, "a", transaction_rid=append), named.InvalidTransactionType),
        (lambda: datasets.File.get(rid, "a"), named.FileNotFoundOnBranch),
        (lambda: datasets.Branch.create(rid, name="master"), named.BranchAlreadyExists),
        (lambda: datasets.Branch.create(rid, name=transaction), named.InvalidBranchName),
        (lambda: datasets.Branch.create(rid, name="b", transaction_rid=append), named.TransactionNotCommitted),
        (lambda: datasets.put_schema(rid, schema={"fieldSchemaList": []}), named.DatasetViewNotFound),
        (lambda: datasets.get_schema(rid), named.SchemaNotFound),
    ]
    for work, kind in cases:
        with pytest.raises((BadRequestError, ConflictError, NotFoundError)) as failed:
            work()
        assert error_of(failed)[0] is kind
    with pytest.raises(BadRequestError) as both:
        datasets.File.upload(rid, "b", b"", transaction_rid=append, branch_name="master")
    assert error_of(both)[1] == "InvalidParameterCombination"


def test_a_stream_is_a_dataset_without_files(datasets: Any, emu: Emulator) -> None:
    stream = emu.streams.create("events", {"n": "LONG"}).rid
    emu.streams.create("events", {"n": "LONG"}, branch="mine")
    found = datasets.get(stream)
    assert (found.rid, found.name) == (stream, "events")
    assert [each.name for each in datasets.Branch.list(stream)] == ["master", "mine"]
    assert datasets.Branch.get(stream, "mine").transaction_rid is None
    with pytest.raises(NotFoundError) as unknown:
        datasets.Branch.get(stream, "other")
    assert error_of(unknown)[0] is named.BranchNotFound
    for work in (
        lambda: datasets.read_table(stream, format="ARROW"),
        lambda: list(datasets.File.list(stream)),
        lambda: datasets.File.upload(stream, "a", b"1"),
        lambda: datasets.Transaction.create(stream, transaction_type="APPEND"),
        lambda: datasets.get_schema(stream),
    ):
        with pytest.raises(PalantirRPCException) as none:
            work()
        assert none.value.name == "DatasetReadNotSupported"
    shown = Api(emu.url, emu.token).contour("GET", f"/api/v2/datasets/{stream}/files").json()["errorDescription"]
    assert "'events' is a stream, of which the emulator keeps no files" in shown
    emu.streams.clear()


def test_media_sets_are_said_to_be_missing(emu: Emulator) -> None:
    with pytest.raises(NotFoundError) as failed:
        sdk(emu).media_sets.MediaSet.info("ri.mio.main.media-set.a", "ri.mio.main.media-item.b")
    assert error_of(failed)[1] == "MediaSetNotFound"
    assert "Media sets are not emulated" in error_of(failed)[2]


MODULE = """
import sys
from foundry_sdk import Config, FoundryClient, UserTokenAuth
client = FoundryClient(auth=UserTokenAuth(sys.argv[2]), hostname=sys.argv[1], config=Config(scheme="http"))
datasets = client.datasets.Dataset
opened = datasets.Transaction.create(sys.argv[3], transaction_type="APPEND").rid
datasets.File.upload(sys.argv[3], "half.csv", b"id\\n1\\n", transaction_rid=opened)
raise SystemExit("killed in the middle")
"""


def test_a_module_that_dies_leaves_its_transaction_open_until_it_is_aborted(
    datasets: Any, rid: str, emu: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "module.py").write_text(MODULE)
    command = [sys.executable, str(tmp_path / "module.py"), urlsplit(emu.url).netloc, TOKEN, rid]
    with contextlib.suppress(LaunchFailed):  # it may end while its launch is waited for
        emu.launch(command, "writer", mode="pipeline", restart=False)
    eventually(lambda: not emu.modules.any_running(), "the module has ended")
    assert (paths(datasets, rid), len(emu.datasets["orders"].history.open_transactions())) == ([], 1)
    emu.datasets["orders"].abort()
    datasets.File.upload(rid, "whole.csv", b"id\n1\n")
    assert paths(datasets, rid) == ["whole.csv"]
    end_programs(emu)


def test_more_than_a_million_rows_of_csv_need_a_limit(datasets: Any, rid: str) -> None:
    datasets.File.upload(rid, "a.csv", b"id\n" + b"1\n" * 1_000_001)
    datasets.put_schema(rid, schema={"fieldSchemaList": FIELDS[:1]}, dataframe_reader="CSV")
    with pytest.raises(BadRequestError) as failed:
        datasets.read_table(rid, format="ARROW")
    assert error_of(failed)[0] is named.ReadTableRowLimitExceeded
    assert len(datasets.read_table(rid, format="ARROW", row_limit=1_000_000).to_pyarrow()) == 1_000_000


# A plain HTTP client, as of Go's net/http: one connection, a Content-Length, no cookies


def test_a_plain_client_writes_and_reads_on_one_connection(emu: Emulator) -> None:
    connection = http.client.HTTPConnection(urlsplit(emu.url).netloc, timeout=30)

    def send(method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {TOKEN}", "User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}
        headers |= {"Content-Type": kind} if body is not None else {}
        connection.request(method, f"/api/v2/datasets{path}", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    status, body = send("POST", "", json.dumps({"name": "go", "parentFolderRid": FOLDER}).encode())
    assert status == 200
    rid = json.loads(body)["rid"]
    file = f"/{rid}/files/{quote('a/b.csv', safe='')}"
    status, body = send("POST", f"{file}/upload?branchName=master", b"id,name\n7,x\n", "application/octet-stream")
    assert (status, json.loads(body)["sizeBytes"]) == (200, "12")
    schema = {"schema": {"fieldSchemaList": FIELDS[:2]}, "dataframeReader": "CSV", "branchName": None}
    assert send("PUT", f"/{rid}/putSchema", json.dumps(schema).encode())[0] == 200
    assert send("GET", f"{file}/content") == (200, b"id,name\n7,x\n")
    assert send("GET", f"/{rid}/readTable?format=CSV&columns=name&columns=id") == (200, b'"name","id"\n"x",7\n')
    status, body = send("GET", f"/{rid}/readTable?format=ARROW&rowLimit=0")
    assert (status, pa.ipc.open_stream(body).read_all().num_rows) == (200, 0)
    status, body = send("GET", f"/{rid}/readTable?format=ARROW&columns=no")
    expected = "Reading a table: there is no column 'no'. The columns are 'id', 'name'."
    assert (status, json.loads(body)["errorDescription"]) == (400, expected)
    status, body = send("GET", f"/{rid}/readTable")
    assert (status, json.loads(body)["errorCode"]) == (400, "INVALID_ARGUMENT")
    # A body whose length the client does not know
    headers = {"Authorization": f"Bearer {TOKEN}", "Transfer-Encoding": "chunked"}
    path = f"/api/v2/datasets/{rid}/files/c.csv/upload?transactionType=APPEND"
    connection.request("POST", path, iter([b"id,name\n", b"8,y\n"]), headers, encode_chunked=True)
    assert json.loads(connection.getresponse().read())["sizeBytes"] == "12"
    assert send("GET", f"/{rid}/readTable?format=CSV&columns=id") == (200, b'"id"\n7\n8\n')
    assert send("DELETE", f"/{rid}/files/c.csv") == (204, b"")
    assert send("DELETE", file) == (204, b"")
    assert json.loads(send("GET", f"/{rid}/files?branchName=master")[1]) == {"data": []}
    connection.close()


def test_a_large_table_is_sent_as_its_client_reads_it_and_others_are_answered_meanwhile(emu: Emulator) -> None:
    table = pa.table({"a": np.arange(2_000_000), "b": pa.array([None, 1] * 1_000_000, pa.int8())})
    emu.datasets["large"] = table
    slow = http.client.HTTPConnection(urlsplit(emu.url).netloc, timeout=30)
    path = f"/api/v2/datasets/{emu.datasets['large'].rid}/readTable?format=ARROW"
    slow.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
    answer = slow.getresponse()
    body = answer.read(100_000)
    connection = http.client.HTTPConnection(urlsplit(emu.url).netloc, timeout=30)
    connection.request("GET", "/_emulate/health")
    assert connection.getresponse().read()
    connection.close()
    body += answer.read()
    assert len(body) == int(answer.headers["Content-Length"])
    assert pa.ipc.open_stream(body).read_all().equals(table)
    # A client that goes away in the middle leaves nothing behind.
    slow.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
    slow.getresponse().read(100_000)
    slow.close()
    # CSV comes in pieces, with one header.
    plain = http.client.HTTPConnection(urlsplit(emu.url).netloc, timeout=30)
    plain.request(
        "GET", f"{path.replace('ARROW', 'CSV')}&rowLimit=150000", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    lines = plain.getresponse().read().splitlines()
    plain.close()
    assert (lines[0], lines[1], lines[-1], len(lines)) == (b'"a","b"', b"0,", b"149999,1", 150_001)
