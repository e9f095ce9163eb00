"""What binds datasets and data streams to modules: aliases by name, and tokens that reach what the aliases name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from client import Api, eventually
from foundry_sdk._errors import PalantirRPCException
from foundry_sdk.v2.datasets import errors as datasets_errors
from foundry_sdk.v2.streams.errors import (
    CreateStreamingDatasetPermissionDenied,
    CreateStreamPermissionDenied,
    GetEndOffsetsForStreamPermissionDenied,
    GetRecordsFromStreamPermissionDenied,
    PublishBinaryRecordToStreamPermissionDenied,
    PublishRecordsToStreamPermissionDenied,
    PublishRecordToStreamPermissionDenied,
    ResetStreamPermissionDenied,
    StreamNotFound,
)
from foundry_sdk.v2.streams.models import CreateStreamRequestStreamSchema
from test_data_streams import FOLDER, SCHEMA, client_of

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.executors.sdk.caches import forget_environment
from cmemu_nb.lifecycle.datasets import TransactionType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb import Emulator

PROGRAMS = Path(__file__).parent / "programs"
BUILD, SECRET = "the-token-of-this-build", "the-secret-of-the-application"


@pytest.fixture
def streams(emu: Emulator, sdk_connections: None) -> Iterator[Any]:  # noqa: ARG001
    for name in ("in", "out", "other"):
        emu.streams.create(name, SCHEMA)
    yield emu.streams
    emu.streams.clear()


def aliases_of(emu: Emulator, runtime: str, **configuration: Any) -> Any:
    emu.open_runtime(runtime)
    return json.loads(Path(emu.env(runtime, **configuration)["RESOURCE_ALIAS_MAP"]).read_text())


def access_token(emu: Emulator, client_id: str, secret: str) -> str:
    form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
    answer = Api(emu.url, "").send("POST", "/multipass/api/oauth2/token", data=form)
    token: str = answer.json()["access_token"]
    return token


def test_the_documentation_s_pipeline_reads_one_stream_and_writes_another(emu: Emulator, capfd: Any) -> None:
    source = emu.streams.create("source", {"x": "INTEGER"})
    target = emu.streams.create("target", {"twice_x": "INTEGER", "how": "STRING"}, branch="develop")
    other = emu.streams.create("other", {"x": "INTEGER"})
    source.publish([{"x": 1}, {"x": 2}])
    module = emu.launch(
        ["python", str(PROGRAMS / "stream_pipeline.py")],
        mode="pipeline",
        aliases={"in": "source", "out": {"rid": "target", "branch": "develop"}},
        environment={"OTHER_RID": other.rid},
    )
    followed = {"twice_x": 4, "how": "followed"}
    eventually(lambda: followed in target.records, "the pipeline follows the stream")
    for number in range(3, 13):
        source.publish({"x": number})
    source.publish({"x": None})
    assert module.wait_until_ended(90) == 0, module.logs.text
    assert [each["twice_x"] for each in target.records if each["how"] == "newest"] == [2, 4]
    assert [each["twice_x"] for each in target.records if each["how"] == "followed"] == [*range(2, 26, 2), None]
    assert target.frame()["twice_x"].isna().sum() == 1
    refused, unknown, token = module.logs.text.splitlines()
    assert refused == f"403 GetRecordsFromStreamPermissionDenied {other.rid}"
    assert unknown == f"404 StreamNotFound {other.rid}"
    assert token.startswith("the token is Bearer …"), "tokens are masked"
    assert "foundry_build_token_" not in capfd.readouterr().out
    emu.streams.clear()


def test_an_alias_is_the_name_of_a_dataset_or_a_stream(emu: Emulator, streams: Any) -> None:
    dataset = emu.change(lambda state: state.create_dataset("orders"))
    rid = "ri.foundry.main.dataset.elsewhere"
    given = {"a": "in", "b": "orders", "c": rid, "d": {"rid": "in", "branch": "master"}, "e": {"rid": rid}}
    expected = {
        "a": {"rid": streams["in"].rid, "branch": "master"},
        "b": {"rid": dataset.rid, "branch": "master"},
        "c": {"rid": rid, "branch": None},
        "d": {"rid": streams["in"].rid, "branch": "master"},
        "e": {"rid": rid, "branch": None},
    }
    assert aliases_of(emu, "given", aliases=given) == expected
    configured = emu.configure("configured", aliases=given)
    assert configured.aliases == expected
    assert aliases_of(emu, "configured") == expected
    reason = (
        r"'inn' can't be bound to an alias: it is neither a RID, which begins with 'ri\.', nor the name of a dataset "
        r"or stream\. Did you mean 'in'\? Known datasets and streams: 'in', 'orders', 'other', 'out'\."
    )
    for attempt in (
        lambda: emu.configure("app", aliases={"a": "inn"}),
        lambda: emu.env("given", aliases={"a": {"rid": "inn"}}),
        lambda: emu.launch("python -c pass", aliases={"a": "inn"}),
    ):
        with pytest.raises(InvalidRequest, match=reason):
            attempt()
    with pytest.raises(InvalidRequest, match="nor the name of a dataset or stream with a branch 'dev'"):
        emu.configure("app", aliases={"a": {"rid": "in", "branch": "dev"}})
    assert not emu.lifecycle.is_configured("app")
    emu.change(lambda state: state.delete_dataset(dataset.rid))


def test_functions_in_cells_find_their_aliases_and_the_build_token(emu: Emulator, streams: Any) -> None:
    from compute_modules.auth import retrieve_pipeline_token  # noqa: PLC0415 - the SDK reads its environment later
    from compute_modules.resources import get_pipeline_resources  # noqa: PLC0415

    emu.configure("notebook", aliases={"stream": "in"}, build2_token=BUILD)
    resource = get_pipeline_resources()["stream"]
    assert (resource.rid, resource.branch) == (streams["in"].rid, "master")
    path = f"/stream-proxy/api/streams/{resource.rid}/branches/{resource.branch}/jsonRecord"
    Api(emu.url, retrieve_pipeline_token()).contour("POST", path, json={"timestamp": 1})
    assert len(streams["in"]) == 1
    emu.reset()
    forget_environment()


@pytest.mark.parametrize("kind", ["build token", "client"])
def test_a_module_s_token_reaches_what_the_aliases_name_and_nothing_else(
    emu: Emulator, streams: Any, kind: str
) -> None:
    rids = {name: streams[name].rid for name in streams}
    emu.open_runtime("app")
    client = {"id": "my-app", "secret": SECRET}
    emu.configure("app", aliases={"in": "in", "out": "out"}, build2_token=BUILD, client=client)
    token = BUILD if kind == "build token" else access_token(emu, "my-app", SECRET)
    sdk = client_of(emu, token).streams.Dataset
    for name in ("in", "out"):
        sdk.Stream.publish_record(rids[name], "master", record={"timestamp": 1})
        assert sdk.Stream.get_end_offsets(rids[name], "master") == {"0": 1}
    other, schema = rids["other"], CreateStreamRequestStreamSchema.model_validate(SCHEMA)
    denied: list[tuple[Any, Any]] = [
        (
            GetRecordsFromStreamPermissionDenied,
            lambda: sdk.Stream.get_records(other, "master", limit=1, partition_id="0"),
        ),
        (GetEndOffsetsForStreamPermissionDenied, lambda: sdk.Stream.get_end_offsets(other, "master")),
        (PublishRecordToStreamPermissionDenied, lambda: sdk.Stream.publish_record(other, "master", record={})),
        (PublishRecordsToStreamPermissionDenied, lambda: sdk.Stream.publish_records(other, "master", records=[])),
        (PublishBinaryRecordToStreamPermissionDenied, lambda: sdk.Stream.publish_binary_record(other, "master", b"")),
        (ResetStreamPermissionDenied, lambda: sdk.Stream.reset(other, "master")),
        (StreamNotFound, lambda: sdk.Stream.get(other, "master")),
        (CreateStreamPermissionDenied, lambda: sdk.Stream.create(other, branch_name="new", schema=schema)),
        (
            CreateStreamingDatasetPermissionDenied,
            lambda: sdk.create(name="new", parent_folder_rid=FOLDER, schema=SCHEMA),
        ),
    ]
    for error, attempt in denied:
        with pytest.raises(error) as refused:
            attempt()
        assert refused.value.parameters.get("datasetRid") == (None if "Dataset" in error.__name__ else other)
    plain = Api(emu.url, token)
    message = plain.contour("GET", f"/stream-proxy/api/streams/{other}/branches/master/records").json()[
        "errorDescription"
    ]
    assert "it belongs to a module, whose aliases name 'in', 'out'. Bind the resource" in message
    # The emulator's own token reaches all, and this one nothing but data.
    client_of(emu, str(emu.token)).streams.Dataset.Stream.reset(other, "master")
    assert Api(emu.url, BUILD).contour("GET", "/multipass/api/me").status_code == 401
    emu.configure("app", build2_token=BUILD, client=client)
    sdk.Stream.publish_record(other, "master", record={"timestamp": 1})  # a runtime without aliases
    shown = [event.detail or "" for event in emu.lifecycle.events.recent(all=True)]
    assert not any(BUILD in each or SECRET in each or token in each for each in shown)
    emu.runtime("app").delete()
    expected = 401 if kind == "build token" else 404
    assert plain.contour("GET", f"/api/v2/streams/datasets/{other}/streams/master").status_code == expected


def test_so_it_is_with_datasets(emu: Emulator, sdk_connections: None) -> None:  # noqa: ARG001
    bound, other = (emu.change(lambda state, name=name: state.create_dataset(name)).rid for name in ("bound", "other"))  # type: ignore[misc]
    emu.open_runtime("app")
    emu.configure("app", aliases={"bound": "bound"}, build2_token=BUILD)
    datasets = client_of(emu, BUILD).datasets.Dataset
    datasets.File.upload(bound, "a.txt", b"text")
    assert datasets.File.content(bound, "a.txt") == b"text"
    transaction = emu.change(lambda state: state.open_transaction(other, TransactionType.UPDATE)).rid
    denied: list[tuple[str, Any]] = [
        ("DatasetNotFound", lambda: datasets.get(other)),
        ("GetDatasetSchemaPermissionDenied", lambda: datasets.get_schema(other)),
        ("ReadTableDatasetPermissionDenied", lambda: datasets.read_table(other, format="CSV")),
        ("BranchNotFound", lambda: datasets.Branch.get(other, "master")),
        ("DatasetNotFound", lambda: list(datasets.Branch.list(other))),
        ("CreateBranchPermissionDenied", lambda: datasets.Branch.create(other, name="new")),
        ("DeleteBranchPermissionDenied", lambda: datasets.Branch.delete(other, "master")),
        ("GetBranchTransactionHistoryPermissionDenied", lambda: list(datasets.Branch.transactions(other, "master"))),
        ("CreateTransactionPermissionDenied", lambda: datasets.Transaction.create(other, transaction_type="UPDATE")),
        ("TransactionNotFound", lambda: datasets.Transaction.get(other, transaction)),
        ("CommitTransactionPermissionDenied", lambda: datasets.Transaction.commit(other, transaction)),
        ("AbortTransactionPermissionDenied", lambda: datasets.Transaction.abort(other, transaction)),
        ("DatasetNotFound", lambda: list(datasets.File.list(other))),
        ("GetFileContentPermissionDenied", lambda: datasets.File.content(other, "a.txt")),
        ("CreateTransactionPermissionDenied", lambda: datasets.File.upload(other, "a.txt", b"text")),
        ("DeleteFilePermissionDenied", lambda: datasets.File.delete(other, "a.txt")),
        ("CreateDatasetPermissionDenied", lambda: datasets.create(name="new", parent_folder_rid=FOLDER)),
    ]
    for name, attempt in denied:
        with pytest.raises(PalantirRPCException) as refused:
            attempt()
        assert refused.value.name == name
        if name.endswith("Denied"):
            assert isinstance(refused.value, getattr(datasets_errors, name))
    for rid in (bound, other):
        emu.change(lambda state, rid=rid: state.delete_dataset(rid))  # type: ignore[misc]
