"""The ontologies routes: functions are queries of one ontology for the unmodified platform SDK, version 2 and 1."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import runpy
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import foundry_sdk.v1
import pytest
from client import RID, Api
from conftest import TOKEN, serving
from environments import node_modules, program
from foundry_sdk import (
    AsyncFoundryClient,
    BadRequestError,
    Config,
    FoundryClient,
    NotFoundError,
    PalantirRPCException,
    UnauthorizedError,
    UserTokenAuth,
)
from test_official_sdks import PROGRAMS

from cmemu_nb.errors import SettingError
from cmemu_nb.settings import make_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cmemu_nb import Emulator

pytestmark = [pytest.mark.usefixtures("shared_emulator", "sdk_connections"), pytest.mark.long_lived]
CELLS = SimpleNamespace(**runpy.run_path(str(PROGRAMS / "ontology_functions.py")))
ONTOLOGY = "ri.ontology.main.ontology.shop"
NOTEBOOK = "com.notebook.computemodules"
BIG = 2**60 + 1
FIRST = {"item": "apple", "amount": str(BIG), "at": "2026-01-02T03:04:05Z", "note": None}
ORDERS: dict[str, Any] = {
    "orders": [FIRST],
    "prices": [{"key": "apple", "value": 0.5}],
    "stock": [{"key": 3, "value": [{"key": "a", "value": str(BIG)}]}, {"key": "4", "value": []}],
    "days": [{"key": "2026-01-02", "value": ["x"]}],
}


def sdk(emu: Emulator, kind: Any = FoundryClient, token: str = TOKEN, **options: Any) -> Any:
    config = Config(scheme="http")
    return kind(auth=UserTokenAuth(token), hostname=urlsplit(emu.url).netloc, config=config, **options).ontologies


@pytest.fixture(scope="module")
def cells() -> Iterator[Emulator]:
    """An emulator that serves the functions of a cell as queries of an ontology with a RID and a name of its own."""
    with serving(ontology_rid=ONTOLOGY, ontology_api_name="shop") as emulator:
        for function in CELLS.PLAIN:
            emulator.function(function)
        for function in CELLS.STREAMING:
            emulator.function(function, streaming=True)
        yield emulator
        emulator.reset()


@pytest.fixture
def shop(cells: Emulator) -> Any:
    return sdk(cells)


def refusal(failed: pytest.ExceptionInfo[Any]) -> tuple[type, str, dict[str, Any]]:
    """Return an SDK error's class, name and parameters."""
    error = failed.value
    assert isinstance(error, PalantirRPCException)
    assert error.error_instance_id
    return type(error), str(error.name), error.parameters or {}


# The ontology


def test_there_is_one_ontology_which_answers_to_any_name(cells: Emulator, shop: Any) -> None:
    (only,) = shop.Ontology.list().data
    assert (only.rid, only.api_name, only.display_name) == (ONTOLOGY, "shop", "shop")
    for name in ("shop", ONTOLOGY, "ri.ontology.main.ontology.other", "übrige/namen"):
        assert shop.Ontology.get(name) == only
        assert shop.Query.execute(name, "user_of", parameters={}).value == ""
    old = sdk(cells, foundry_sdk.v1.FoundryClient)
    assert [each.to_dict() for each in old.Ontology.list().data] == [only.to_dict()]
    assert old.Ontology.get("ri.ontology.main.ontology.other").to_dict() == only.to_dict()
    with pytest.raises(UnauthorizedError):
        sdk(cells, token="wrong").Ontology.list()


def test_its_name_has_a_default_and_its_rid_is_one_that_the_osdk_takes(emu: Emulator) -> None:
    (only,) = sdk(emu).Ontology.list().data
    assert (only.rid, only.api_name) == ("ri.ontology.main.ontology.cmemu", "cmemu")
    for wrong in ({"ontology_rid": "shop"}, {"ontology_api_name": " "}):
        with pytest.raises(SettingError, match=r"must begin with 'ri\.'"):
            make_settings(wrong)


def test_its_full_metadata_has_all_queries_and_nothing_else(shop: Any) -> None:
    full = shop.Ontology.get_full_metadata(
        "shop", preview=True, branch="master", include_action_type_full_metadata=True
    )
    assert full.ontology.rid == ONTOLOGY
    names = [f"{NOTEBOOK}.{name}" for name in ("fail", "flags", "nothing", "prices", "summarize", "userOf")]
    assert sorted(full.query_types) == [f"{name}:0.0.0" for name in names]
    assert full.query_types[f"{NOTEBOOK}.summarize:0.0.0"] == shop.Ontology.QueryType.get("shop", "summarize")
    for empty in ("object_types", "action_types", "action_types_full_metadata", "interface_types", "value_types"):
        assert getattr(full, empty) == {}
    assert shop.Ontology.get_full_metadata("shop", branch="none").query_types == {}


# Its queries


def test_a_query_is_described_with_the_types_of_its_schema(shop: Any) -> None:
    types = shop.Ontology.QueryType
    query = types.get("shop", "summarize", version="^0.0.0", sdk_package_rid="ri.any.main.thing.x", sdk_version="1.2.3")
    assert (query.api_name, query.display_name, query.type_references) == (f"{NOTEBOOK}.summarize", "summarize", {})
    described = {name: each.data_type.to_dict() for name, each in query.parameters.items()}
    plain = {name: {"type": name} for name in ("string", "double", "integer", "long", "date", "boolean")}
    counts = {"type": "entrySet", "keyType": plain["string"], "valueType": plain["long"]}
    assert described["prices"] == {"type": "entrySet", "keyType": plain["string"], "valueType": plain["double"]}
    assert described["stock"] == {"type": "entrySet", "keyType": plain["integer"], "valueType": counts}
    days = {"type": "entrySet", "keyType": plain["date"], "valueType": {"type": "set", "subType": plain["string"]}}
    assert described["days"] == days
    assert described["title"] == {"type": "union", "unionTypes": [plain["string"], {"type": "null"}]}
    assert {name for name, each in query.parameters.items() if each.required} == {*ORDERS}
    output = {each["name"]: each["fieldType"] for each in query.output.to_dict()["fields"]}
    assert output["items"] == {"type": "array", "subType": counts}
    request = {"queryTypeRid": query.rid, "functionVersion": "<1"}
    unknown = {"queryTypeRid": "ri.function-registry.main.function.none"}
    other = {"queryTypeRid": query.rid, "functionVersion": "9.9.9"}
    assert types.get_by_rid_batch("shop", requests=[unknown, request, other], preview=True).data == [query]


def test_version_1_describes_the_same_types_in_its_own_words(cells: Emulator) -> None:
    query = sdk(cells, foundry_sdk.v1.FoundryClient).Ontology.QueryType.get(ONTOLOGY, "summarize")
    assert {name: each.base_type for name, each in query.parameters.items()} == {
        "orders": "Array<Struct<{ item: String, amount: Long, at: Timestamp, note: String }>>",
        "prices": "Map<String, Double>",
        "stock": "Map<Integer, Map<String, Long>>",
        "days": "Map<LocalDate, Set<String>>",
        "title": "String",
    }
    (order,) = [query.parameters["orders"].data_type.to_dict()["itemType"]]
    assert [each["required"] for each in order["fields"]] == [True, True, True, False]
    assert query.output.to_dict()["fields"][4]["fieldType"]["itemType"]["type"] == "map"


def test_types_that_only_one_version_has(emu: Emulator) -> None:
    scalar = ("decimal", "byte", "attachment")
    inputs = [{"name": name, "required": True, "dataType": {"type": name, name: {}}} for name in scalar]
    opened = Api(emu.url, TOKEN).open("r", RID)
    opened.post_schemas([{"functionName": "f", "inputs": inputs}, {"functionName": "g"}])
    new = sdk(emu).Ontology.QueryType.get("any", "f")
    assert [each.data_type.type for each in new.parameters.values()] == ["unsupported", "unsupported", "attachment"]
    old = sdk(emu, foundry_sdk.v1.FoundryClient).Ontology.QueryType.get(ONTOLOGY, "f")
    assert [each.data_type.type for each in old.parameters.values()] == ["decimal", "byte", "unsupported"]
    assert (old.output.type, new.output.unsupported_type) == ("any", "any")


def test_the_list_comes_in_pages_that_no_change_breaks(emu: Emulator) -> None:
    api = Api(emu.url, TOKEN)
    for rid in ("a", "b", "c"):
        opened = api.open(rid, f"ri.foundry.main.deployed-app.{rid}")
        opened.post_schemas([{"functionName": name} for name in ("a", "b", "c")])
    types = sdk(emu).Ontology.QueryType
    every = [f"com.{app}.computemodules.{name}" for app in "abc" for name in "abc"]
    for size in (1, 2, 3, 8, 9, 5000, None):
        assert [each.api_name for each in types.list("any", page_size=size)] == every
    assert [each.api_name for each in sdk(emu, foundry_sdk.v1.FoundryClient).Ontology.QueryType.list(ONTOLOGY)] == every
    page = types.list("any", page_size=4)
    assert [each.api_name for each in page.data] == every[:4]
    api.open("b", "ri.foundry.main.deployed-app.b").post_schemas([{"functionName": name} for name in ("b", "d")])
    rest = types.list("any", page_token=page.next_page_token)
    assert [each.display_name for each in rest] == ["b", "d", "a", "b", "c"]
    assert list(types.list("any", branch="none")) == []
    for wrong in (0, -1):
        with pytest.raises(BadRequestError) as failed:
            types.list("any", page_size=wrong)
        assert refusal(failed) == (BadRequestError, "InvalidPageSize", {"pageSize": str(wrong)})
    for token in ("none", "WyJub25lIl0=", "ü"):
        with pytest.raises(BadRequestError) as failed:
            types.list("any", page_token=token)
        assert refusal(failed)[1] == "InvalidPageToken"


# Calls


@pytest.mark.parametrize("kind", [FoundryClient, foundry_sdk.v1.FoundryClient], ids=["v2", "v1"])
def test_maps_are_entry_sets_on_the_way_in_and_out(cells: Emulator, kind: Any) -> None:
    value = sdk(cells, kind).Query.execute(ONTOLOGY, f"{NOTEBOOK}.summarize", parameters=ORDERS).value
    assert value == {
        "total": BIG * 0.5,
        "first": {"item": "apple", "amount": str(BIG), "at": "2026-01-02T03:04:05Z"},
        "counts": [{"key": 3, "value": str(BIG)}, {"key": 4, "value": "0"}],
        "sizes": [{"key": str(BIG), "value": 0.5}],
        "items": [[{"key": "apple", "value": str(BIG)}]],
        "seen": repr(({3: {"a": BIG}, 4: {}}, {dt.date(2026, 1, 2): {"x"}})),
    }


def test_the_keys_of_an_entry_set_may_be_truth_values(shop: Any) -> None:
    assert shop.Query.execute("shop", "flags", parameters={}).value == [{"key": True, "value": 0.5}]


def test_an_object_is_taken_for_a_map_and_the_functions_routes_keep_objects(cells: Emulator, shop: Any) -> None:
    given = {**ORDERS, "prices": {"apple": 0.5}, "stock": {}, "title": None}
    assert shop.Query.execute("shop", "summarize", parameters=given).value["counts"] == []
    objects = {**given, "stock": {"3": {"a": "1"}}, "days": {}}
    functions: Any = FoundryClient(
        auth=UserTokenAuth(TOKEN), hostname=urlsplit(cells.url).netloc, config=Config(scheme="http")
    ).functions.Query
    assert functions.execute("summarize", parameters=objects).value["counts"] == {"3": "1"}
    with functions.streaming_execute("summarize", parameters=given, ontology="shop") as events:
        (event,) = events
    assert event.data.value["items"] == [[{"key": "apple", "value": str(BIG)}]]
    assert functions.execute_async("user_of", parameters={}, ontology="any").execution_id


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00"])
def test_a_time_that_no_year_has_in_utc_is_refused(shop: Any, moment: str) -> None:
    with pytest.raises(BadRequestError) as failed:
        shop.Query.execute("shop", "summarize", parameters={**ORDERS, "orders": [{**FIRST, "at": moment}]})
    assert refusal(failed)[1] == "InvalidQueryParameterValue"


def test_a_schema_whose_required_fields_are_no_list_still_checks_calls(emu: Emulator) -> None:
    fields = {"fields": {"a": {"type": "integer"}}, "required": 5}
    kind = {"type": "anonymousCustomType", "anonymousCustomType": fields}
    schema = {"functionName": "odd", "inputs": [{"name": "x", "dataType": kind}]}
    Api(emu.url, TOKEN).open("r", RID).post_schemas([schema])
    for value in ({"a": "no number"}, {"b": 1}):
        with pytest.raises(BadRequestError) as failed:
            sdk(emu).Query.execute("any", "odd", parameters={"x": value})
        assert refusal(failed)[1] == "InvalidQueryParameterValue"


def test_streams_are_arrays_whose_items_are_entry_sets(shop: Any) -> None:
    value = shop.Query.execute("shop", "prices", parameters={"limit": 2}).value
    assert value == [[{"key": "item 0", "value": 0.5}], [{"key": "item 1", "value": 1.5}]]


def test_every_option_that_the_sdk_sends_is_taken(shop: Any) -> None:
    options = {
        "branch": "master",
        "version": ">=0.0.0 <1",
        "sdk_package_rid": "ri.any.main.thing.x",
        "sdk_version": "1.2.3",
        "attribution": "ri.any.main.thing.x",
        "trace_parent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "trace_state": "a=b",
    }
    assert shop.Query.execute("shop", "user_of", parameters={}, **options).value == ""


@pytest.mark.parametrize(
    ("name", "options", "kind", "error", "said"),
    [
        ("sumarize", {}, NotFoundError, "QueryNotFound", {"query": "sumarize"}),
        ("user_of", {"branch": "none"}, NotFoundError, "QueryNotFound", {"query": "user_of"}),
        ("user_of", {"version": "1.0.0"}, NotFoundError, "QueryVersionNotFound", {"version": "1.0.0"}),
        ("user_of", {"scenario_rid": "ri.actions..scenario.x"}, NotFoundError, "OntologyScenarioNotFound", {}),
        ("user_of", {"transaction_id": "ri.a.b.c.d"}, BadRequestError, "FunctionNotSupportedWithTransaction", {}),
        ("user_of", {"parameters": {"x": 1}}, BadRequestError, "QueryRuntimeError", None),
        ("summarize", {}, BadRequestError, "MissingParameter", {"parameters": [*ORDERS]}),
        ("fail", {}, BadRequestError, "QueryRuntimeError", {"message": "it failed: badly"}),
        (
            "summarize",
            {"parameters": {**ORDERS, "prices": [{"ky": 1}]}},
            BadRequestError,
            "InvalidQueryParameterValue",
            {"parameterId": "prices", "parameterValue": [{"ky": 1}]},
        ),
        (
            "summarize",
            {"parameters": {**ORDERS, "stock": [{"key": "x", "value": []}]}},
            BadRequestError,
            "InvalidQueryParameterValue",
            {"parameterId": "stock"},
        ),
        (
            "summarize",
            {"parameters": {**ORDERS, "prices": [{"key": None, "value": 1.5}]}},
            BadRequestError,
            "InvalidQueryParameterValue",
            {"parameterId": "prices"},
        ),
    ],
)
def test_a_call_that_fails_raises_the_error_of_the_ontologies_api(
    shop: Any, name: str, options: dict[str, Any], kind: type, error: str, said: dict[str, Any] | None
) -> None:
    if said is None:
        assert shop.Query.execute("shop", name, **options).value == ""  # no inputs are known: anything is taken
        return
    with pytest.raises(kind) as failed:
        shop.Query.execute("shop", name, **{"parameters": {}, **options})
    assert refusal(failed)[1] == error
    parameters = refusal(failed)[2]
    assert {name: parameters[name] for name in said} == said


def test_an_unknown_query_type_is_the_sdk_s_own_error(shop: Any) -> None:
    with pytest.raises(NotFoundError) as failed:
        shop.Ontology.QueryType.get("shop", "sumarize")
    assert refusal(failed)[1] == "QueryNotFound"
    assert "Did you mean 'summarize'?" in refusal(failed)[2]["message"]
    assert "queryApiName" not in refusal(failed)[2]


def test_the_asynchronous_clients_do_all_of_it(cells: Emulator) -> None:
    async def everything(kind: Any) -> list[Any]:
        ontologies = sdk(cells, kind, preview=True)
        found = [[each.rid for each in (await ontologies.Ontology.list()).data]]
        found.append([each.display_name async for each in ontologies.Ontology.QueryType.list(ONTOLOGY, page_size=1)])
        found.append((await ontologies.Ontology.QueryType.get(ONTOLOGY, "prices")).api_name)
        found.append((await ontologies.Query.execute(ONTOLOGY, "summarize", parameters=ORDERS)).value["total"])
        with pytest.raises(BadRequestError, match="it failed"):
            await ontologies.Query.execute(ONTOLOGY, "fail", parameters={})
        await ontologies.Query._api_client._client.aclose()  # noqa: SLF001 - the SDK keeps it for the whole process
        return found

    for kind in (AsyncFoundryClient, foundry_sdk.v1.AsyncFoundryClient):
        assert asyncio.run(everything(kind)) == [
            [ONTOLOGY],
            ["fail", "flags", "nothing", "prices", "summarize", "user_of"],
            f"{NOTEBOOK}.prices",
            BIG * 0.5,
        ]


# Answers by Accept


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("application/octet-stream", "application/octet-stream"),
        ("application/octet-stream;q=0.9, text/event-stream", "text/event-stream"),
        ("text/event-stream;q=0, application/octet-stream; q=0.1, */*", "application/octet-stream"),
        ("application/octet-stream;q=x", "text/event-stream"),
        ("text/event-stream, application/octet-stream", "text/event-stream"),
        ("*/*", "text/event-stream"),
    ],
)
def test_a_stream_comes_in_the_format_that_is_accepted(cells: Emulator, accept: str, media: str) -> None:
    path = "/api/v2/functions/queries/prices/streamingExecute"
    answer = Api(cells.url, TOKEN).contour("POST", path, json={"parameters": {"limit": 2}}, headers={"Accept": accept})
    assert answer.headers["Content-Type"] == media
    lines = answer.text.split("\n")[:-1]
    if media == "text/event-stream":
        assert set(lines[1::2]) == {""}
        lines = [line.removeprefix("data: ") for line in lines[::2]]
    values = [item for line in lines for item in json.loads(line)["value"]]
    assert values == [{"item 0": 0.5}, {"item 1": 1.5}]
    failed = Api(cells.url, TOKEN).contour(
        "POST", "/api/v2/functions/queries/fail/streamingExecute", json={"parameters": {}}, headers={"Accept": accept}
    )
    assert (failed.headers["Content-Type"], failed.text.count("QueryRuntimeError")) == (media, 1)


# The packages of npm


@pytest.fixture(scope="module")
def found(cells: Emulator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an application in Node finds with the OSDK and with the platform clients."""
    folder: Path = tmp_path_factory.mktemp("osdk")
    (folder / "node_modules").symlink_to(node_modules() / "node_modules")
    (folder / "app.mjs").write_text((PROGRAMS / "osdk_client.mjs").read_text())
    given = json.dumps([cells.url, TOKEN, "ri.ontology.main.ontology.other"])
    node = [str(program("nodejs")), "--no-warnings", "app.mjs", given]
    done = subprocess.run(node, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    answered: dict[str, Any] = json.loads(done.stdout)
    return answered


def test_the_osdk_calls_functions_with_maps_and_reads_their_types(found: dict[str, Any]) -> None:
    assert float(found["summary"].pop("total")) == BIG * 0.5
    assert found["summary"] == {
        "first": {"item": "apple", "amount": str(BIG), "at": "2026-01-02T03:04:05Z"},
        # The OSDK makes an object of an entry set only if that is not a member of a struct.
        "counts": [{"key": 3, "value": str(BIG)}, {"key": 4, "value": "0"}],
        "sizes": [{"key": str(BIG), "value": 0.5}],
        "items": [[{"key": "apple", "value": str(BIG)}]],
        "seen": repr(({3: {"a": BIG}, 4: {}}, {dt.date(2026, 1, 2): {"x"}})),
    }
    metadata = found["metadata"]
    assert (metadata["apiName"], metadata["version"]) == (f"{NOTEBOOK}.summarize", "0.0.0")
    assert metadata["parameters"]["stock"]["valueType"]["keyType"] == {"type": "string", "nullable": False}
    assert metadata["parameters"]["title"] == {"type": "string", "nullable": True}
    assert metadata["output"]["struct"]["counts"]["type"] == "map"


def test_errors_are_those_of_the_osdk(found: dict[str, Any]) -> None:
    failed, unknown = found["failed"], found["unknown"]
    assert (failed["name"], failed["code"], failed["status"]) == ("QueryRuntimeError", "INVALID_ARGUMENT", 400)
    assert failed["parameters"]["message"] == "it failed: badly"
    assert (unknown["name"], unknown["status"], unknown["parameters"]["query"]) == ("QueryNotFound", 404, "sumarize")
    assert "key type of boolean are not supported" in found["flags"]["message"]
    assert found["nothing"]["message"] == "Got null response when nullable was not allowed"


def test_the_osdk_reads_a_stream_item_by_item(found: dict[str, Any]) -> None:
    assert found["streamed"] == [{"item 0": 0.5}, {"item 1": 1.5}]


def test_the_platform_clients_of_npm_list_describe_and_call(found: dict[str, Any]) -> None:
    assert [each["rid"] for each in found["ontologies"]["data"]] == [ONTOLOGY]
    names = ["fail", "flags", "nothing", "prices", "summarize", "userOf"]
    assert found["full"] == [f"{NOTEBOOK}.{name}:0.0.0" for name in names]
    assert [each["displayName"] for each in found["page"]["data"]] == ["fail"]
    assert found["next"] == ["flags", "nothing", "prices", "summarize", "user_of"]
    assert found["executed"] == {"value": [[{"key": "item 0", "value": 0.5}]]}
    assert found["described"] == f"{NOTEBOOK}.summarize"
    assert found["called"] == {"value": [{"item 0": 0.5}]}
    assert found["media"] == "application/octet-stream"
    assert found["lines"] == [{"type": "data", "value": [{f"item {n}": n + 0.5}]} for n in range(2)]
