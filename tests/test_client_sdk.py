"""The official client SDK, unmodified, calls functions in cells and modules of the official executor SDK."""

from __future__ import annotations

import asyncio
import datetime as dt
import runpy
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from client import RID, Api, Runtime, Wire, eventually
from conftest import TOKEN, end_programs, serving
from foundry_sdk import (
    ApiNotFoundError,
    AsyncFoundryClient,
    BadRequestError,
    ConfidentialClientAuth,
    Config,
    FoundryClient,
    InternalServerError,
    NotFoundError,
    PalantirRPCException,
    RateLimitError,
    SDKInternalError,
    ServiceUnavailable,
    UnauthorizedError,
    UserTokenAuth,
)
from foundry_sdk.v2.functions.errors import QueryNotFound
from test_journal import held_by_another
from test_official_sdks import ORDER, PROGRAMS, PYTHON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cmemu_nb import Emulator

    Serve = Callable[..., AbstractContextManager[Emulator]]
    Background = Callable[..., Future[Any]]

# The shared emulator first: it outlives what is looked at here.
pytestmark = [pytest.mark.usefixtures("shared_emulator", "sdk_connections"), pytest.mark.long_lived]
CELLS = SimpleNamespace(**runpy.run_path(str(PROGRAMS / "cell_functions.py")))
BIG = 2**60 + 1
QUERIES = "/api/v2/functions/queries"
NOTEBOOK = "com.notebook.computemodules"
VALUES: dict[str, Any] = {
    "truth": True,
    "byte": 31,
    "short": 8739,
    "integer": 2**70,
    "long": str(BIG),
    "float_": 3.5,
    "double": 2.5,
    "decimal": "2.718281828459045235360287471352",
    "text": "Ünï\u2028\n\u0085 \U0001f600",
    "binary": "ü",
    "date": "2021-05-01",
    "timestamp": "2021-01-04T05:00:00.000123Z",
    "array": [str(BIG), "-7"],
    "set_": ["b", "a"],
    "map_": {"ü": str(BIG)},
    "struct": {"at": "2021-01-04T05:00:00Z", "amount": str(BIG), "note": None},
    "optional": None,
}


def sdk(emu: Emulator, token: str = TOKEN) -> Any:
    return FoundryClient(auth=UserTokenAuth(token), hostname=urlsplit(emu.url).netloc, config=Config(scheme="http"))


@pytest.fixture
def query(emu: Emulator) -> Any:
    return sdk(emu).functions.Query


@pytest.fixture
def executions(emu: Emulator) -> Any:
    return sdk(emu).functions.Execution


@pytest.fixture
def runtime(api: Api) -> Runtime:
    """A runtime that serves `f`, of which nothing but its name is known."""
    opened = api.open("r", RID)
    assert opened.post_schemas([{"functionName": "f"}]).status_code == 204
    return opened


@pytest.fixture(scope="module")
def cells() -> Iterator[Emulator]:
    """An emulator that serves functions of a cell."""
    with serving() as emulator:
        for function in CELLS.PLAIN:
            emulator.function(function)
        for function in CELLS.STREAMING:
            emulator.function(function, streaming=True)
        yield emulator
        emulator.reset()


def error_of(failed: pytest.ExceptionInfo[BaseException]) -> tuple[type, str | None, str]:
    """Return an SDK error's class, name and the words that its `str()` shows."""
    error = failed.value
    assert isinstance(error, PalantirRPCException)
    assert error.error_instance_id
    return type(error), error.name, str(error)


def error_parameters(failed: pytest.ExceptionInfo[Any]) -> dict[str, Any]:
    parameters: dict[str, Any] = failed.value.parameters
    return parameters


# Values


def test_every_type_of_value_arrives_as_the_function_wants_it_and_comes_back(cells: Emulator) -> None:
    value = sdk(cells).functions.Query.execute("echo", parameters=VALUES).value
    told = value.pop("told")
    assert value == {
        "long": str(BIG),
        "integer": 2**70,
        "date": "2021-05-01",
        "timestamp": "2021-01-04T05:00:00.000123Z",
        "array": [str(BIG), "-7"],
        "map_": {"ü": str(BIG)},
        "struct": {"at": "2021-01-04T05:00:00Z", "amount": str(BIG)},
        "text": VALUES["text"],
        "decimal": VALUES["decimal"],
    }
    assert told == {
        "decimal": "Decimal('2.718281828459045235360287471352')",
        "binary": repr("ü".encode()),
        "date": "datetime.date(2021, 5, 1)",
        "set_": "['a', 'b']",
        "optional": "None",
        "byte": "31",
        "truth": "True",
        "double": "2.5",
    }


def test_values_of_python_that_the_sdk_can_send_are_taken_too(cells: Emulator) -> None:
    moment = dt.datetime(2021, 1, 4, 7, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    given = {**VALUES, "timestamp": moment, "long": BIG, "decimal": 2.5, "optional": 5}
    value = sdk(cells).functions.Query.execute("echo", parameters=given).value
    assert (value["timestamp"], value["long"], value["decimal"]) == ("2021-01-04T05:00:00Z", str(BIG), "2.5")
    assert value["told"]["optional"] == "5"


def test_a_parameter_that_is_null_is_one_that_was_left_out(cells: Emulator) -> None:
    query = sdk(cells).functions.Query
    assert query.execute("greet", parameters={"name": "Ada", "greeting": None}).value == "Hello Ada"
    with pytest.raises(BadRequestError) as failed:
        query.execute("greet", parameters={"name": None})
    assert error_of(failed)[1] == "MissingParameter"


@pytest.mark.parametrize(
    ("result", "value"),
    [
        (b"", None),
        (b" 1e400 ", float("inf")),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b'{"b": 1, "a": [2.50]}', {"b": 1, "a": [2.5]}),
        (b'"a""b"', ["a", "b"]),
        (b'{"error": 1}', {"error": 1}),
    ],
)
def test_a_result_of_an_unknown_type_is_answered_as_it_is(
    query: Any, runtime: Runtime, background: Background, result: bytes, value: object
) -> None:
    answer = background(query.execute, "f", parameters={"any": [1]})
    job = runtime.take(wait=30)
    assert (job["queryType"], job["query"]) == ("f", {"any": [1]})
    runtime.post_result(job["jobId"], result)
    assert answer.result().value == value


@pytest.mark.parametrize("posted", [b"\xff", b"{", b'"a" 1 2', b"Hello", b"NaN", b'{"NaN": [1, -Infinity]}'])
def test_a_result_that_is_no_value_is_an_error_that_says_so(
    query: Any, runtime: Runtime, background: Background, posted: bytes
) -> None:
    answer = background(query.execute, "f", parameters={})
    runtime.post_result(runtime.take(wait=30)["jobId"], posted)
    with pytest.raises(BadRequestError) as failed:
        answer.result()
    assert error_of(failed)[:2] == (BadRequestError, "InvalidQueryOutputValue")


def test_two_hundred_results_at_once_are_never_mixed_up(cells: Emulator) -> None:
    query = sdk(cells).functions.Query

    def greet(number: int) -> object:
        if number % 3:
            return query.execute("greet", parameters={"name": str(number)}).value
        with query.streaming_execute("greet", parameters={"name": str(number)}) as events:
            return next(iter(events)).data.value

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(greet, range(200))) == [f"Hello {number}" for number in range(200)]


# What there is


def test_a_query_s_record_has_the_types_of_its_schema(cells: Emulator) -> None:
    query = sdk(cells).functions.Query
    record = query.get("echo", preview=True)
    assert (record.api_name, record.display_name, record.version) == (f"{NOTEBOOK}.echo", "echo", "0.0.0")
    said = {name: parameter.data_type.to_dict() for name, parameter in record.parameters.items()}
    plain = {"truth": "boolean", "integer": "integer", "long": "long", "float_": "float", "double": "double"}
    plain |= {"text": "string", "date": "date", "timestamp": "timestamp"}
    assert {name: said[name] for name in plain} == {name: {"type": kind} for name, kind in plain.items()}
    for name in ("byte", "short", "decimal", "binary", "map_"):
        assert said[name] == {"type": "unsupported", "unsupportedType": name.strip("_"), "params": {}}
    assert said["array"] == {"type": "array", "subType": {"type": "long"}}
    assert said["set_"] == {"type": "set", "subType": {"type": "string"}}
    assert said["optional"] == {"type": "union", "unionTypes": [{"type": "integer"}, {"type": "null"}]}
    assert said["struct"]["fields"][1] == {"name": "amount", "fieldType": {"type": "long"}}
    assert {name for name, parameter in record.parameters.items() if not parameter.required} == {"optional"}
    assert record.output.type == "struct"
    assert query.get(f"{NOTEBOOK}.echo", version="0.0.0") == record
    assert query.get_by_rid(rid=record.rid) == record
    other = query.get("greet")
    unknown = {"rid": "ri.function-registry.main.function.none"}
    batch = query.get_by_rid_batch([{"rid": other.rid}, unknown, {"rid": record.rid, "version": "9.9.9"}])
    assert batch.data == [other]


def test_a_json_schema_is_told_as_far_as_it_can_be(query: Any, runtime: Runtime) -> None:
    point = {"type": "object", "properties": {"x": {"type": "number"}}}
    properties = {"n": {"type": "integer"}, "points": {"type": "array", "items": point}, "any": {}}
    schema = {"type": "object", "properties": properties, "required": ["n"], "description": "A mean."}
    runtime.post_schemas([{"functionName": "mean", "schema": schema}])
    record = query.get("mean")
    assert record.description == "A mean."
    assert {name: each.required for name, each in record.parameters.items()} == {
        "n": True,
        "points": False,
        "any": False,
    }
    assert record.parameters["n"].data_type.type == "integer"
    assert record.parameters["points"].data_type.sub_type.fields[0].field_type.type == "double"
    assert record.parameters["any"].data_type.unsupported_type == "any"
    assert record.output.type == "unsupported"
    assert query.get("f").parameters == {}


@pytest.mark.parametrize("call", ["get", "execute", "execute_async", "streaming_execute"])
def test_an_unknown_function_names_those_that_there_are(cells: Emulator, call: str) -> None:
    parameters: dict[str, Any] = {} if call == "get" else {"parameters": {}}
    with pytest.raises(NotFoundError) as failed:
        getattr(sdk(cells).functions.Query, call)("gret", **parameters)
    error: Any = failed.value
    assert error.name == "QueryNotFound"
    assert error.parameters["queryApiName"] == "gret"
    assert "No function 'gret' is served. Did you mean 'greet'?" in error.parameters["message"]
    assert f"'{NOTEBOOK}.echo'" in error.parameters["message"]
    assert (type(error) is QueryNotFound) == (call == "get")


def test_an_unknown_rid_is_not_found(query: Any) -> None:
    with pytest.raises(NotFoundError) as failed:
        query.get_by_rid(rid="ri.function-registry.main.function.none")
    assert error_of(failed)[1] == "FunctionNotFound"


# Which function is meant


def test_a_name_that_two_apps_serve_is_refused_with_both_full_names(
    query: Any, api: Api, runtime: Runtime, background: Background
) -> None:
    other = api.open("s", "ri.foundry.main.deployed-app.other")
    other.post_schemas([{"functionName": "f"}, {"functionName": "g"}])
    with pytest.raises(BadRequestError) as failed:
        query.execute("f", parameters={})
    _, name, said = error_of(failed)
    assert name == "QueryApiNameAmbiguous"
    assert "Call 'com.myapp.computemodules.f' or 'com.other.computemodules.f'" in said
    for called, server in (
        ("com.other.computemodules.f", other),
        ("com.myapp.computemodules.f", runtime),
        ("g", other),
    ):
        answer = background(query.execute, called, parameters={})
        server.post_result(server.take(wait=30)["jobId"], b"1")
        assert answer.result().value == 1


@pytest.mark.usefixtures("runtime")
def test_two_apps_with_the_same_last_part_are_told_apart_by_no_name(query: Any, api: Api) -> None:
    api.open("s", "ri.foundry.test.deployed-app.my-app").post_schemas([{"functionName": "f"}])
    with pytest.raises(BadRequestError, match=r"of two deployed apps, 'ri.foundry.main.*' and 'ri.foundry.test"):
        query.execute("com.myapp.computemodules.f", parameters={})


@pytest.mark.parametrize(
    ("rid", "name", "api_name"),
    [
        ("ri.foundry.main.deployed-app.A.b-1", "f", "com.ab1.computemodules.f"),
        ("no rid/at all", "ü / ?", "com.noridatall.computemodules.ü / ?"),
        ("ri.foundry.main.deployed-app.x", "com.x.computemodules.f", "com.x.computemodules.com.x.computemodules.f"),
        (RID, "%2F", "com.myapp.computemodules.%2F"),
    ],
)
def test_odd_names_are_called_by_both_their_names(
    query: Any, api: Api, background: Background, rid: str, name: str, api_name: str
) -> None:
    runtime = api.open("odd", rid)
    runtime.post_schemas([{"functionName": name}])
    assert query.get(name).api_name == api_name
    for called in (name, api_name):
        answer = background(query.execute, called, parameters={})
        job = runtime.take(wait=30)
        assert job["queryType"] == name
        runtime.post_result(job["jobId"], b"1")
        assert answer.result().value == 1


def test_the_api_name_of_a_function_is_in_camel_case(query: Any, api: Api, background: Background) -> None:
    runtime = api.open("r", RID)
    runtime.post_schemas([{"functionName": name} for name in ("price_per_unit", "addOne", "add_one", "add_2")])
    names = {name: query.get(name).api_name.removeprefix("com.myapp.computemodules.") for name in ("addOne", "add_2")}
    assert names == {"addOne": "addOne", "add_2": "add_2"}
    full = query.get("price_per_unit").api_name
    assert full == "com.myapp.computemodules.pricePerUnit"
    for called, served in (
        (full, "price_per_unit"),
        ("pricePerUnit", "price_per_unit"),
        ("com.my-app.computemodules.price_per_unit", "price_per_unit"),
        ("com.myapp.computemodules.addOne", "addOne"),
        ("com.myapp.computemodules.add_one", "add_one"),
    ):
        answer = background(query.execute, called, parameters={})
        job = runtime.take(wait=30)
        assert job["queryType"] == served
        runtime.post_result(job["jobId"], b"1")
        assert answer.result().value == 1


def test_master_is_called_unless_a_branch_is_named(query: Any, api: Api, background: Background) -> None:
    branches = {branch: api.open(branch, RID, branch=branch) for branch in ("old", "master", "new")}
    for runtime in branches.values():
        runtime.post_schemas([{"functionName": "f"}])
    for named, called in ((None, "master"), ("new", "new"), ("old", "old")):
        answer = background(query.execute, "f", parameters={}, branch=named)
        branches[called].post_result(branches[called].take(wait=30)["jobId"], b"1")
        assert answer.result().value == 1
    with pytest.raises(NotFoundError, match="No function 'f' is served on branch 'none'"):
        query.execute("f", parameters={}, branch="none")


def test_a_runtime_that_has_posted_no_schemas_may_serve_anything(query: Any, api: Api, background: Background) -> None:
    runtime = api.open("r", RID)
    for called in ("f", "com.myapp.computemodules.f"):
        answer = background(query.execute, called, parameters={"x": 1})
        job = runtime.take(wait=30)
        assert (job["queryType"], job["query"]) == ("f", {"x": 1})
        runtime.post_result(job["jobId"], b"1")
        assert answer.result().value == 1
    with pytest.raises(QueryNotFound) as failed:
        query.get("f")
    assert "has posted no schemas yet" in failed.value.parameters["message"]  # type: ignore[typeddict-item]
    with pytest.raises(NotFoundError):
        query.execute("com.other.computemodules.f", parameters={})


# Calls that are refused

BAD_CALLS: list[tuple[dict[str, Any], str, str]] = [
    ({"parameters": {}}, "MissingParameter", "was called without 'name'"),
    ({"parameters": {"name": "a", "nam": 1}}, "UnknownParameter", "has no parameter 'nam'. It has 'name', 'greeting'"),
    ({"parameters": {"name": 1}}, "InvalidQueryParameterValue", r"'name': expected string, given a number \(1\)"),
    ({"version": "2.0.0"}, "QueryVersionNotFound", "has no version '2.0.0'"),
    ({"version": "0.0.0", "include_prerelease": True}, "InvalidVersionResolutionParameters", "Leave one of them out"),
    ({"transaction_id": "t"}, "FunctionNotSupportedWithTransaction", "can't run in a transaction"),
]


@pytest.mark.parametrize(("call", "name", "said"), BAD_CALLS)
def test_a_call_that_can_t_be_is_refused_before_a_job_is_made(
    cells: Emulator, call: dict[str, Any], name: str, said: str
) -> None:
    before = len(cells.lifecycle.jobs())
    with pytest.raises((BadRequestError, NotFoundError), match=said) as failed:
        sdk(cells).functions.Query.execute("greet", **{"parameters": {"name": "Ada"}, **call})
    assert error_of(failed)[1] == name
    assert len(cells.lifecycle.jobs()) == before


# Each is read as by npm's own `semver.satisfies("0.0.0", range)`.
RANGES = """
    0.0.0, v0.0.0, = 0.0.0, 0.0.0+build.1, 0, 0.0, 0.x, 0.0.X, *, x.x, , ^0.0.0, ^0, ~0.0.0, ~> 0, >=0.0.0, >= 0,
    >0.0.0-rc1, >=0.0.0-rc1, ^0.0.0-rc1, <=0.0.0, <=0, <1, <0.0.1-rc1, <=1.0.0-rc1, 0.0.0 - 1.0.0, 0 - 0,
    >=0.0.0 <1.0.0, ^1.0.0 || 0.x, 1.0.0 ||
"""
OTHER_VERSIONS = """
    0.0.1, 1.0.0, 0.0.0-rc1, 1, 0.1.x, ^1.0.0, ^0.0.1, ~0.1, >0.0.0, >0, >*, >=0.0.1, >=0.0.1-rc1, <0.0.0, <0, <*,
    <0.0.0-rc1, <=0.0.0-rc1, 0.0.1 - 1.0.0, >=0.0.0 >0.0.0, ^1.0.0 || 2.x, latest, 0.0.0.0, 00.0.0, 0-rc1,
    0.0.0 || latest, ^, -, 0.0.0-, \u0660.0.0
"""


def test_a_version_may_be_a_range_as_in_npm(cells: Emulator) -> None:
    query = sdk(cells).functions.Query
    for version in map(str.strip, RANGES.split(",")):
        assert query.get("greet", version=version).version == "0.0.0", version
    for version in map(str.strip, OTHER_VERSIONS.split(",")):
        with pytest.raises(NotFoundError) as failed:
            query.get("greet", version=version)
        assert error_of(failed)[1] == "QueryVersionNotFound", version
    assert query.execute("greet", parameters={"name": "Ada"}, version="^0.0.0").value == "Hello Ada"
    rid = query.get("greet").rid
    assert len(query.get_by_rid_batch([{"rid": rid, "version": "<1"}, {"rid": rid, "version": "1.x"}]).data) == 1


def test_any_ontology_is_accepted(cells: Emulator) -> None:
    functions = sdk(cells).functions
    execution = functions.Query.execute_async("greet", parameters={"name": "Ada"}, ontology="shop").execution_id
    assert functions.Execution.get_result(execution, timeout=30).value == "Hello Ada"
    given = {**VALUES, "map_": [{"key": "ü", "value": str(BIG)}]}
    execution = functions.Query.execute_async("echo", parameters=given, ontology="shop").execution_id
    assert functions.Execution.get_result(execution, timeout=30).value["map_"] == given["map_"]
    functions.Execution.cancel(execution)
    with functions.Query.streaming_execute("echo", parameters=given, ontology="shop") as events:
        (event,) = events
    assert event.data.value["map_"] == given["map_"]


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "malformed JSON"),
        (b"[]", "it must be a JSON object"),
        (b"{}", "'parameters' must be an object"),
        (b'{"parameters": []}', "'parameters' must be an object"),
        (b'{"parameters": {}, "includePrerelease": 1}', "'includePrerelease' must be true or false"),
        (b'{"parameters": {}, "latestVersionResolution": "X"}', "It must be PUBLISH_TIME or SEMANTIC_VERSION"),
    ],
)
def test_a_body_that_is_none_is_refused(api: Api, body: bytes, said: str) -> None:
    answer = api.contour("POST", f"{QUERIES}/f/execute", data=body)
    assert answer.status_code == 400
    assert said in answer.json()["errorDescription"]


def test_an_unknown_token_is_unauthorized_and_says_where_the_right_one_is(emu: Emulator) -> None:
    with pytest.raises(UnauthorizedError, match=r"the attribute \.token of its variable"):
        sdk(emu, "wrong").functions.Query.execute("f", parameters={})


def test_an_api_that_is_not_emulated_is_the_sdk_s_api_not_found(emu: Emulator) -> None:
    with pytest.raises(ApiNotFoundError):
        sdk(emu).connectivity.Connection.get("ri.magritte..source.none")


def test_a_full_queue_is_a_rate_limit(serve: Serve) -> None:
    with serve(max_queued=1) as emulator:
        Api(emulator.url, TOKEN).open("r", RID)
        emulator.submit("f")
        config = Config(scheme="http", propagate_qos="PROPAGATE_429_AND_503_TO_CALLER")
        client = FoundryClient(auth=UserTokenAuth(TOKEN), hostname=urlsplit(emulator.url).netloc, config=config)
        with pytest.raises(RateLimitError, match="has 1 job queued already"):
            client.functions.Query.execute_async("f", parameters={})


def test_where_nobody_may_wait_the_service_is_unavailable(serve: Serve) -> None:
    with serve(max_waiting=1) as emulator:
        runtime = Api(emulator.url, TOKEN).open("r", RID)
        config = Config(scheme="http", propagate_qos="PROPAGATE_429_AND_503_TO_CALLER")
        client = FoundryClient(auth=UserTokenAuth(TOKEN), hostname=urlsplit(emulator.url).netloc, config=config)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(client.functions.Query.execute, "f", parameters={})
            eventually(emulator.lifecycle.jobs, "it waits")
            with pytest.raises(ServiceUnavailable, match="requests wait for a job already"):
                client.functions.Query.execute("f", parameters={})
            assert len(emulator.lifecycle.jobs()) == 1
            runtime.post_result(runtime.take_id(), b"1")
            assert answer.result().value == 1


def test_a_call_that_is_not_in_the_journal_is_not_sent_again(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "lifecycle.db"
    with serve(journal=str(path)) as emulator:
        Api(emulator.url, TOKEN).open("r", RID)
        with held_by_another(path), pytest.raises(ServiceUnavailable, match="JournalBehind"):
            sdk(emulator).functions.Query.execute_async("f", parameters={})
        assert len(emulator.lifecycle.jobs()) == 1
        eventually(lambda: "journal_written" in kinds(emulator), "it is in the journal")


def kinds(emu: Emulator) -> list[str]:
    return [event.kind for event in emu.lifecycle.events.recent()]


# Functions and jobs that fail


def test_a_function_that_raises_is_a_query_runtime_error_with_its_words(cells: Emulator) -> None:
    with pytest.raises(BadRequestError) as failed:
        sdk(cells).functions.Query.execute("fail", parameters={})
    kind, name, said = error_of(failed)
    assert (kind, name) == (BadRequestError, "QueryRuntimeError")
    assert f"{NOTEBOOK}.fail failed: it failed: badly" in said
    parameters = error_parameters(failed)
    assert parameters["message"] == "it failed: badly"
    assert parameters["stacktrace"].splitlines()[-1] == "ValueError: it failed: badly"
    assert parameters["functionRid"] == sdk(cells).functions.Query.get("fail").rid
    assert "request_refused" not in [event.kind for event in cells.lifecycle.events.recent()[-3:]]


@pytest.mark.parametrize(
    "posted", [b'{"error": "TypeError", "reason": "it failed"}', b'{"error": "Unknown query type"}']
)
def test_an_error_of_the_typescript_sdk_is_one_too(
    query: Any, runtime: Runtime, background: Background, posted: bytes
) -> None:
    answer = background(query.execute, "f", parameters={})
    runtime.post_result(runtime.take(wait=30)["jobId"], posted)
    with pytest.raises(BadRequestError, match=r"TypeError: it failed|Unknown query type") as failed:
        answer.result()
    assert error_of(failed)[1] == "QueryRuntimeError"


def test_a_job_that_fails_is_a_query_runtime_error_with_the_reason(
    query: Any, runtime: Runtime, background: Background
) -> None:
    answer = background(query.execute, "f", parameters={})
    runtime.fail(runtime.take(wait=30)["jobId"], "the replica is gone")
    with pytest.raises(BadRequestError, match="the replica is gone") as failed:
        answer.result()
    assert error_of(failed)[1] == "QueryRuntimeError"


def test_a_reset_leaves_no_deployment(query: Any, api: Api, runtime: Runtime, background: Background) -> None:
    answer = background(query.execute, "f", parameters={})
    runtime.take(wait=30)
    api.open("r", RID)
    with pytest.raises(InternalServerError, match="the runtime session was reset") as failed:
        answer.result()
    assert error_of(failed)[1] == "QueryDeploymentNotAvailable"


def test_a_call_ends_when_its_time_is_over_and_its_job_goes_on(serve: Serve) -> None:
    with serve(execute_timeout=0.05) as emulator:
        runtime = Api(emulator.url, TOKEN).open("r", RID)
        query = sdk(emulator).functions.Query
        with pytest.raises(BadRequestError, match=r"Query\.execute_async has no such limit") as failed:
            query.execute("f", parameters={})
        assert error_of(failed)[1] == "QueryTimeExceededLimit"
        with query.streaming_execute("f", parameters={}) as events:
            (event,) = events
        assert event.data.error_name == "QueryTimeExceededLimit"
        assert [job.status for job in emulator.lifecycle.jobs()] == ["queued", "queued"]
        assert runtime.take_id()


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("path", ["execute", "streamingExecute"])
def test_a_client_that_goes_away_leaves_no_job(
    emu: Emulator, wire: Callable[[], Wire], until_held: Callable[..., None], path: str
) -> None:
    connection = wire()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    connection.request("POST", f"{QUERIES}/f/{path}", headers, b'{"parameters": {}}')
    until_held(jobs=1)
    connection.close()
    (job,) = emu.lifecycle.jobs()
    eventually(lambda: emu.lifecycle.job(job.job_id).status == "failed", "the job has left the queue")
    assert emu.lifecycle.job(job.job_id).error_message == "the client disconnected before a runtime took the job"


# Executions


def test_an_execution_is_awaited_and_fetched(
    emu: Emulator, query: Any, executions: Any, runtime: Runtime, background: Background, until_held: Any
) -> None:
    execution = query.execute_async("f", parameters={})
    assert execution.type == "submitted"
    assert executions.get_result(execution.execution_id).type == "running"
    job_id = runtime.take_id()
    assert job_id == execution.execution_id
    awaited = background(executions.get_result, execution.execution_id, timeout=100_000)
    until_held(jobs=1)
    runtime.post_result(job_id, b'{"n": 1}')
    for state in (awaited.result(), executions.get_result(execution.execution_id)):
        assert (state.type, state.value) == ("succeeded", {"n": 1})
    assert {job.source for job in emu.lifecycle.jobs()} == {"contour-async"}
    assert executions.cancel(execution.execution_id).id == job_id, "it is too late, and no error"


def test_an_execution_that_fails_raises_the_asynchronous_errors(query: Any, executions: Any, runtime: Runtime) -> None:
    raised, failed, canceled = (query.execute_async("f", parameters={}).execution_id for _ in range(3))
    runtime.take()
    runtime.post_result(raised, b'{"exception": "it failed"}')
    runtime.fail(failed, "by hand")
    assert executions.cancel(canceled).id == executions.cancel(canceled).id == canceled
    said = []
    for execution_id in (raised, failed, canceled):
        with pytest.raises(BadRequestError) as caught:
            executions.get_result(execution_id, timeout=1)
        said.append((error_of(caught)[1], error_parameters(caught).get("message")))
    assert said == [
        ("AsyncQueryRuntimeError", "it failed"),
        ("AsyncQueryRuntimeError", "by hand"),
        ("AsyncQueryCanceled", None),
    ]
    assert runtime.poll().status_code == 204


@pytest.mark.usefixtures("runtime")
def test_an_execution_that_is_gone_is_not_found(
    query: Any, executions: Any, api: Api, background: Background, until_held: Any
) -> None:
    execution_id = query.execute_async("f", parameters={}).execution_id
    awaited = background(executions.get_result, execution_id, timeout=30)
    until_held(jobs=1)
    api.open("r", RID)
    failed: pytest.ExceptionInfo[Any]
    with pytest.raises(InternalServerError, match="the runtime session was reset") as failed:
        awaited.result()
    assert error_of(failed)[1] == "AsyncQueryDeploymentNotAvailable"
    for call in (executions.get_result, executions.cancel):
        with pytest.raises(NotFoundError, match="a reset cleared the job") as failed:
            call(execution_id)
        assert error_of(failed)[1] == "ExecutionNotFound"


@pytest.mark.usefixtures("runtime")
def test_a_wait_is_a_whole_number_of_seconds(api: Api, query: Any) -> None:
    execution_id = query.execute_async("f", parameters={}).execution_id
    for timeout in (b"-1", b"1.5", b'"1"'):
        path = f"/api/v2/functions/executions/{execution_id}/getResult"
        answer = api.contour("POST", path, data=b'{"timeout": %b}' % timeout)
        assert answer.status_code == 400
        assert "'timeout' must be a whole number" in answer.json()["errorDescription"]


# Streams


@pytest.mark.parametrize("method", ["streaming_execute", "streaming_execute_events"])
def test_items_arrive_while_the_function_runs(cells: Emulator, method: str) -> None:
    CELLS.GO_ON.clear()
    with getattr(sdk(cells).functions.Query, method)("count", parameters={}) as events:
        arriving = iter(events)
        assert next(arriving).data.value == [str(BIG)]
        CELLS.GO_ON.set()
        rest = [item for event in arriving for item in event.data.value]
    assert rest == ["-7", "0"]


def test_a_stream_that_is_executed_is_an_array(cells: Emulator) -> None:
    CELLS.GO_ON.set()
    query = sdk(cells).functions.Query
    assert query.execute("count", parameters={}).value == [str(BIG), "-7", "0"]
    execution = query.execute_async("count", parameters={})
    result = sdk(cells).functions.Execution.get_result(execution.execution_id, timeout=30)
    assert result.value == [str(BIG), "-7", "0"]
    assert query.execute("one_item", parameters={}).value == ["only\u2028one"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_result_in_chunks_is_an_array_of_any_length(
    query: Any, executions: Any, runtime: Runtime, background: Background, count: int
) -> None:
    answer = background(query.execute, "f", parameters={})
    runtime.post_result(runtime.take(wait=30)["jobId"], iter([b'"a"'] * count))
    assert answer.result().value == ["a"] * count
    running = query.execute_async("f", parameters={})
    runtime.post_result(runtime.take(wait=30)["jobId"], iter([b'"a"'] * count))
    assert executions.get_result(running.execution_id).value == ["a"] * count


def test_what_is_no_stream_is_one_event_with_the_whole_value(cells: Emulator) -> None:
    with sdk(cells).functions.Query.streaming_execute("echo", parameters=VALUES) as events:
        (event,) = events
    assert (event.data.type, event.data.value["long"]) == ("data", str(BIG))


def test_an_error_is_the_last_event_of_a_stream(cells: Emulator) -> None:
    query = sdk(cells).functions.Query
    with query.streaming_execute("fail", parameters={}) as events:
        (event,) = events
    assert (event.data.type, event.data.error_name) == ("error", "QueryRuntimeError")
    assert event.data.parameters["message"] == "it failed: badly"
    with query.streaming_execute("break_half_way", parameters={}) as events:
        *_, data, last = [event.data for event in events]
    assert (data.value, last.error_name) == (["first"], "QueryRuntimeError")
    assert "the result stream broke off" in last.error_description


def test_chunks_that_cut_items_and_characters_are_put_together(
    query: Any, runtime: Runtime, background: Background
) -> None:
    def read() -> list[Any]:
        with query.streaming_execute("f", parameters={}) as events:
            return [item for event in events for item in event.data.value]

    answer = background(read)
    text = '{"a":\n "ü\u2028"}[1]"\\n"'.encode()
    pieces = (text[index : index + 1] for index in range(len(text)))
    runtime.post_result(runtime.take(wait=30)["jobId"], pieces)
    assert answer.result() == [{"a": "ü\u2028"}, [1], "\n"]


@pytest.mark.parametrize(
    "pieces", [(b'{"exception": ', b'"it failed"}'), (b'"a"', b"{"), (b"Hel", b"lo"), (b'"a"', b"[Na", b"N]")]
)
def test_a_stream_that_is_an_error_or_no_json_ends_with_an_error(
    query: Any, runtime: Runtime, background: Background, pieces: tuple[bytes, ...]
) -> None:
    def read() -> list[Any]:
        with query.streaming_execute("f", parameters={}) as events:
            return [event.data for event in events]

    answer = background(read)
    runtime.post_result(runtime.take(wait=30)["jobId"], iter(pieces))
    assert answer.result()[-1].error_name in ("QueryRuntimeError", "InvalidQueryOutputValue")
    assert [each.type for each in answer.result()].count("error") == 1


# The other ways in


def test_the_asynchronous_client_does_all_of_it(cells: Emulator) -> None:
    CELLS.GO_ON.set()

    async def everything() -> list[Any]:
        auth, host = UserTokenAuth(TOKEN), urlsplit(cells.url).netloc
        client: Any = AsyncFoundryClient(auth=auth, hostname=host, config=Config(scheme="http"), preview=True)
        query = client.functions.Query
        found = [(await query.execute("greet", parameters={"name": "Ada"})).value, (await query.get("greet")).api_name]
        execution = await query.execute_async("greet", parameters={"name": "Bob"})
        found.append((await client.functions.Execution.get_result(execution.execution_id, timeout=30)).value)
        async with query.streaming_execute("count", parameters={}) as events:
            found.append([item async for event in events for item in event.data.value])
        with pytest.raises(BadRequestError, match="it failed"):
            await query.execute("fail", parameters={})
        await query._api_client._client.aclose()  # noqa: SLF001 - the SDK keeps it for the whole process
        return found

    expected = ["Hello Ada", f"{NOTEBOOK}.greet", "Hello Bob", [str(BIG), "-7", "0"]]
    assert asyncio.run(everything()) == expected


def test_a_confidential_client_calls_functions_and_is_renewed(serve: Serve) -> None:
    with serve(access_token_seconds=1) as emulator:
        emulator.function(CELLS.greet)
        auth = ConfidentialClientAuth(emulator.client_id, str(emulator.client_secret), should_refresh=False)
        host = urlsplit(emulator.url).netloc
        query = FoundryClient(auth=auth, hostname=host, config=Config(scheme="http")).functions.Query
        for name in ("Ada", "Bob"):
            assert query.execute("greet", parameters={"name": name}).value == f"Hello {name}"
        wrong = ConfidentialClientAuth(emulator.client_id, "wrong", should_refresh=False)
        refused = FoundryClient(auth=wrong, hostname=host, config=Config(scheme="http")).functions.Query
        with pytest.raises(SDKInternalError, match="401 Unauthorized"):
            refused.execute("greet", parameters={"name": "Ada"})
        emulator.reset()


def test_over_https_with_the_emulator_s_own_authority(cells: Emulator) -> None:
    config = Config(verify=str(cells.certificates.authority_path))
    client = FoundryClient(auth=UserTokenAuth(TOKEN), hostname=urlsplit(cells.platform_url).netloc, config=config)
    query: Any = client.functions.Query
    assert query.execute("greet", parameters={"name": "Ada"}).value == "Hello Ada"
    query._api_client._session.close()  # noqa: SLF001 - the SDK keeps it for the whole process


# The whole chain


def test_from_the_client_sdk_to_a_module_of_the_executor_sdk(serve: Serve, tmp_path: Path) -> None:
    with serve() as emulator:
        client = {"id": "orders", "secret": "the-secret-of-orders"}
        emulator.launch(PYTHON, "orders", max_concurrent_tasks=2, client=client).wait_until_responsive()
        query = sdk(emulator).functions.Query
        name = "com.orders.computemodules.describe"
        assert query.get(name).parameters["due"].data_type.type == "date"
        said = {"total": "3.30", "days": "7", "note": "None", "stamp": "ü"}
        assert query.execute(name, parameters=ORDER).value == said
        go_on = tmp_path / "go-on"
        with query.streaming_execute("count", parameters={"to": 3, "until": str(go_on)}) as events:
            arriving = iter(events)
            assert next(arriving).data.value == ["0"]
            go_on.touch()
            assert [item for event in arriving for item in event.data.value] == ["1", "2"]
        with pytest.raises(BadRequestError, match="it failed"):
            query.execute("fail", parameters={})
        host = urlsplit(emulator.platform_url).netloc
        its_own = query.execute("use_its_client", parameters={"host": host, "order": ORDER})
        assert its_own.value == said, "a module calls a function as its client"
        its_own = query.execute("call_without_naming_the_host", parameters={"order": ORDER})
        assert its_own.value == said, "a module's client finds the host and trusts it"
        end_programs(emulator)
