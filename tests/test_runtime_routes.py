"""The emulator routes: sessions, polling, schemas, results, inspection, tokens."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from client import MODULE_HEADER, RID, RUNTIMES, Api, Runtime, error_code, eventually, framed

if TYPE_CHECKING:
    from collections.abc import Callable

    from client import Wire

    from cmemu_nb import Emulator

ALL_BYTES = bytes(range(256))
INVALID_TOKEN = {"error": "invalid_module_auth_token", "error_description": "The Module-Auth-Token header is invalid."}


# Sessions


def test_a_new_session_gets_a_token_and_the_three_uris(api: Api) -> None:
    answer = api.send("POST", RUNTIMES, json={"runtimeId": "my-runtime", "deployedAppRid": RID, "branch": "master"})
    session = answer.json()
    uri = f"{api.url}{RUNTIMES}/my-runtime"
    assert answer.status_code == 200
    assert session.pop("moduleAuthToken").startswith("foundry_module_auth_")
    assert session == {
        "runtimeId": "my-runtime",
        "getJobUri": f"{uri}/job",
        "postResultUri": f"{uri}/results",
        "postSchemaUri": f"{uri}/schemas",
    }


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:81", "127.0.0.1:4000", "127.9.9.9", "[::1]", "[::1]:4000"])
def test_the_uris_name_the_host_that_the_caller_used(api: Api, host: str) -> None:
    session = api.send("POST", RUNTIMES, json={"runtimeId": "r"}, headers={"Host": host}).json()
    assert session["getJobUri"] == f"http://{host}{RUNTIMES}/r/job"


def test_the_emulator_also_answers_on_ipv6_loopback(emu: Emulator) -> None:
    api = Api(f"http://[::1]:{emu.port}", emu.token)
    runtime = api.open()
    assert runtime.uri.startswith(api.url)
    assert runtime.poll().status_code == 204


def test_a_reset_throws_away_jobs_schemas_and_bindings_and_revokes_the_token(api: Api) -> None:
    old = api.open(deployed_app_rid=RID)
    queued, running = api.submit(), old.submit()
    old.take()
    old.post_schemas({"f": {}})
    new = api.open(deployed_app_rid="ri.other")
    assert new.headers != old.headers
    assert old.poll().json() == INVALID_TOKEN
    for job_id in (queued, running):
        assert error_code(api.send("GET", f"{new.uri}/jobs/{job_id}")) == "not_found"
        assert error_code(new.post_result(job_id, b"1")) == "not_found"
    assert new.poll().status_code == 204
    assert new.show()["schemas"] == []
    assert api.execute(rid=RID).status_code == 404
    assert api.submit(rid="ri.other") == new.take_id()


def test_binding_an_app_and_branch_that_another_runtime_holds_moves_it(api: Api) -> None:
    first, second = api.open("first", RID), api.open("second", RID)
    job_id = api.submit()
    assert first.poll().status_code == 204
    assert second.take_id() == job_id
    assert first.show()["runtime"]["deployed_apps"] == []


@pytest.mark.parametrize(
    ("fields", "bound", "display_name"),
    [
        ({"deployedAppRid": RID}, [(RID, "master")], None),
        ({"deployedAppRid": f" {RID}\n", "branch": " dev ", "displayName": " My App "}, [(RID, "dev")], "My App"),
        ({"deployedAppRid": RID, "branch": " ", "displayName": ""}, [(RID, "master")], None),
        ({"deployedAppRid": "  ", "branch": "dev"}, [], None),
        ({"displayName": "alone"}, [], "alone"),
        ({"deployedAppRid": None, "branch": None, "displayName": None}, [], None),
    ],
)
def test_optional_fields_are_trimmed_and_blank_ones_count_as_absent(
    api: Api, fields: dict[str, Any], bound: list[tuple[str, str]], display_name: str | None
) -> None:
    answer = api.send("POST", RUNTIMES, json={"runtimeId": " r ", **fields})
    runtime = Runtime(api, answer.json()).show()["runtime"]
    assert runtime["runtime_id"] == "r"
    assert [(app["deployed_app_rid"], app["branch"]) for app in runtime["deployed_apps"]] == bound
    assert runtime["display_name"] == display_name


# Polling


def test_a_poll_hands_out_the_oldest_job_and_sets_it_running(api: Api) -> None:
    runtime = api.open()
    job_ids = [runtime.submit("myFunction", {"input": str(number)}) for number in range(3)]
    assert {runtime.job(job_id)["status"] for job_id in job_ids} == {"queued"}
    for number, job_id in enumerate(job_ids):
        assert runtime.poll().json() == {
            "type": "computeModuleJobV1",
            "computeModuleJobV1": {
                "jobId": job_id,
                "queryType": "myFunction",
                "query": {"input": str(number)},
            },
        }
        assert runtime.job(job_id)["status"] == "running"
        assert job_id.startswith("foundry_job_")
    assert runtime.poll().status_code == 204


def test_every_poll_sets_connected_and_last_poll_at(api: Api) -> None:
    runtime = api.open()
    state = runtime.show()["runtime"]
    assert (state["connected"], state["last_poll_at"]) == (False, None)
    before = time.time_ns() // 1_000_000
    answer = runtime.poll()
    assert (answer.status_code, answer.content) == (204, b"")
    state = runtime.show()["runtime"]
    assert state["connected"] is True
    assert before <= state["last_poll_at"] <= time.time_ns() // 1_000_000
    eventually(lambda: runtime.poll() and runtime.show()["runtime"]["last_poll_at"] > before, "last_poll_at moves on")


def test_head_answers_as_an_empty_poll_and_never_takes_a_job(api: Api) -> None:
    runtime = api.open()
    job_id = runtime.submit()
    answer = runtime.poll(method="HEAD", wait=30)
    assert (answer.status_code, answer.content) == (204, b"")
    assert runtime.job(job_id)["status"] == "queued"
    assert runtime.show()["runtime"]["connected"] is False


@pytest.mark.parametrize("surface", ["contour", "direct"])
@pytest.mark.parametrize(
    "query",
    [
        '{"z": 1, "a": 2, "m": {"b": 0, "a": 0}}',
        "123456789012345678901234567890",
        "[1e400, -1E+400, 1.0, 1.10, 0.1000000000000000055511151231257827]",
        '"\\u00e9 \\/ \\" é 😀"',
        "null",
        "[ ]",
        '{"a" : 1,\n\t"a" : 2}',
    ],
)
def test_the_query_reaches_the_runtime_as_the_very_text_that_was_submitted(api: Api, surface: str, query: str) -> None:
    runtime = api.open(deployed_app_rid=RID)
    body = f'{{"deployedAppRid": "{RID}", "queryType": "f", "query":  {query} }}'.encode()
    if surface == "direct":
        runtime.send("POST", f"{runtime.uri}/jobs", data=body)
    else:
        api.contour("POST", "/contour-backend-multiplexer/api/module-group-multiplexer/deployed-apps/jobs", data=body)
    envelope = runtime.poll().content
    assert envelope.endswith(b'"query":' + query.encode() + b"}}")
    inspected = api.send("GET", f"{runtime.uri}/jobs/{json.loads(envelope)['computeModuleJobV1']['jobId']}").content
    assert b'"query":' + query.encode() + b"," in inspected


def test_an_absent_query_is_an_empty_object(api: Api) -> None:
    runtime = api.open()
    runtime.send("POST", f"{runtime.uri}/jobs", json={"queryType": "f"})
    assert runtime.take()["query"] == {}


# Schemas

OBJECT = {"type": "object", "properties": {"input": {"type": "string"}}}
SDK = {"functionName": "add", "inputs": [{"name": "x"}], "output": {"type": "single"}}


@pytest.mark.parametrize(
    ("posted", "stored"),
    [
        ([{"functionName": "f", "schema": OBJECT}], {"f": OBJECT}),
        ({"functions": [{"functionName": "f", "schema": OBJECT}]}, {"f": OBJECT}),
        ({"schemas": [{"function_name": "f", "schemaPayload": OBJECT}]}, {"f": OBJECT}),
        ({"f": OBJECT}, {"f": OBJECT}),
        ({"g": 1, "f": None}, {"f": None, "g": 1}),
        ({"name": "f", "schema": OBJECT}, {"f": OBJECT}),
        ([SDK], {"add": SDK}),
        (SDK, {"add": SDK}),
        ([[{"name": "b"}], [[{"name": "a"}]]], {"a": {"name": "a"}, "b": {"name": "b"}}),
        ({"functions": OBJECT}, {"functions": OBJECT}),
        ({"name": {"type": "object"}, "schema": 1}, {"name": {"type": "object"}, "schema": 1}),
        ({"functionName": " ", "name": "f"}, {"f": {"functionName": " ", "name": "f"}}),
        ([{"name": "f", "v": 1}, {"name": "f", "v": 2}], {"f": {"name": "f", "v": 2}}),
        ([], {}),
        ({}, {}),
    ],
)
def test_schemas_are_accepted_in_every_format(api: Api, posted: Any, stored: dict[str, Any]) -> None:
    runtime = api.open()
    answer = runtime.post_schemas(posted)
    assert (answer.status_code, answer.content) == (204, b"")
    schemas = runtime.inspect(runtime.submit())["schemas"]
    assert [(schema["function_name"], schema["schema_payload"]) for schema in schemas] == sorted(stored.items())


def test_a_known_schema_is_updated_and_the_others_stay(api: Api) -> None:
    runtime = api.open()
    runtime.post_schemas({"f": 1, "g": 1})
    runtime.post_schemas([{"functionName": "f", "schema": 2}])
    schemas = runtime.inspect(runtime.submit())["schemas"]
    assert {schema["function_name"]: schema["schema_payload"] for schema in schemas} == {"f": 2, "g": 1}


@pytest.mark.parametrize(
    ("posted", "position"),
    [
        ([{"name": "good"}, 5], "[1]"),
        ([{"name": "good"}, [{"name": "good"}, {"name": " "}]], "[1][1]"),
        ({"functions": [{"name": "good"}, {"type": "object"}]}, "functions[1]"),
        ({"schemas": [None]}, "schemas[0]"),
        ({"good": {}, " ": {}}, "key 2"),
    ],
)
def test_one_bad_schema_refuses_the_whole_post_and_its_position_is_named(api: Api, posted: Any, position: str) -> None:
    runtime = api.open()
    answer = runtime.post_schemas(posted)
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request")
    assert f"the entry at {position} " in answer.json()["error_description"]
    assert runtime.show()["schemas"] == []


# Results


def test_the_posted_bytes_are_the_result(api: Api) -> None:
    runtime = api.open()
    job_id = runtime.submit("myFunction")
    runtime.take()
    answer = runtime.post_result(job_id, b'{"output": "computed value"}', Content_Type="application/octet-stream")
    assert (answer.status_code, answer.content) == (204, b"")
    job = runtime.job(job_id)
    assert (job["status"], job["result_body_utf8"]) == ("succeeded", '{"output": "computed value"}')
    assert job["queued_at"] <= job["started_at"] <= job["completed_at"]
    assert "result_body_base64" not in job


@pytest.mark.parametrize("framing", ["whole", "chunked"])
@pytest.mark.parametrize("body", [b"", ALL_BYTES, ALL_BYTES * 5_000, "é😀".encode(), b"\xff", b'{"a":1}{"a":2}'])
def test_any_bytes_are_stored_exactly(api: Api, body: bytes, framing: str) -> None:
    runtime = api.open(deployed_app_rid=RID)
    job_id = api.submit()
    runtime.take()
    assert runtime.post_result(job_id, framed(framing, body[:7], body[7:])).status_code == 204
    assert api.result(job_id).content == body
    job = runtime.job(job_id)
    if b"\xff" in body:
        assert job["result_body_utf8"] is None
        assert base64.b64decode(job["result_body_base64"]) == body
    else:
        assert job["result_body_utf8"] == body.decode()


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("application/json; charset=utf-8", "application/json"),
        ("text/plain", "text/plain"),
        ("Application/Octet-Stream ; x=y", "Application/Octet-Stream"),
        (None, None),
    ],
)
@pytest.mark.parametrize("framing", ["whole", "chunked"])
def test_the_content_type_is_kept_without_its_parameters(
    api: Api,
    sent: str | None,
    stored: str | None,
    framing: str,
) -> None:
    runtime = api.open()
    job_id = runtime.submit()
    runtime.take()
    runtime.post_result(job_id, framed(framing, b"1"), **({"Content_Type": sent} if sent else {}))
    assert runtime.job(job_id)["result_content_type"] == stored


@pytest.mark.parametrize("first", ["whole", "chunked"])
@pytest.mark.parametrize("second", ["whole", "chunked"])
def test_the_same_result_again_changes_nothing_and_a_different_one_is_refused(
    api: Api, first: str, second: str
) -> None:
    runtime = api.open()
    job_id = runtime.submit()
    runtime.take()
    runtime.post_result(job_id, framed(first, b"ab", b"c"), Content_Type="text/plain")
    before = runtime.job(job_id)
    again = runtime.post_result(job_id, framed(second, b"a", b"bc"), Content_Type="text/html")
    different = runtime.post_result(job_id, framed(second, b"a", b"b"))
    assert again.status_code == 204
    assert (different.status_code, error_code(different)) == (409, "job_already_completed")
    assert runtime.job(job_id) == before


@pytest.mark.parametrize("framing", ["whole", "chunked"])
@pytest.mark.parametrize(
    ("case", "status", "code"),
    [
        ("queued", 409, "job_not_running"),
        ("failed", 409, "job_already_completed"),
        ("never issued", 404, "not_found"),
        ("another runtime's", 404, "not_found"),
    ],
)
def test_a_result_is_refused_unless_its_job_is_running_here(
    api: Api,
    case: str,
    status: int,
    code: str,
    framing: str,
) -> None:
    runtime, other = api.open(), api.open("other")
    job_id = "foundry_job_0" if case == "never issued" else runtime.submit()
    if case != "queued":
        runtime.poll()
    if case == "failed":
        runtime.fail(job_id, "by hand")
    poster = other if case == "another runtime's" else runtime
    answer = poster.post_result(job_id, framed(framing, b"1"))
    assert (answer.status_code, error_code(answer)) == (status, code)
    if case == "queued":
        assert runtime.take_id() == job_id


# Inspection


def test_inspection_shows_the_whole_runtime_job_and_schemas_without_a_token(api: Api) -> None:
    runtime = api.open(deployed_app_rid=RID, branch="dev")
    job_id = api.submit("add", {"x": 1}, deployedAppBranch="dev")
    runtime.post_schemas({"b": {}, "a": {"type": "object"}})
    state = api.send("GET", f"{runtime.uri}/jobs/{job_id}").json()
    assert set(state) == {"runtime", "job", "schemas"}
    assert isinstance(state["runtime"].pop("created_at"), int)
    assert isinstance(state["runtime"].pop("last_schema_post_at"), int)
    assert state["runtime"] == {
        "runtime_id": "my-runtime",
        "module_auth_token": runtime.headers[MODULE_HEADER],
        "connected": False,
        "last_poll_at": None,
    }
    assert isinstance(state["job"].pop("queued_at"), int)
    assert state["job"] == {
        "job_id": job_id,
        "runtime_id": "my-runtime",
        "deployed_app_rid": RID,
        "deployed_app_branch": "dev",
        "query_type": "add",
        "query": {"x": 1},
        "source": "contour-async",
        "status": "queued",
        "started_at": None,
        "completed_at": None,
        "result_content_type": None,
        "result_body_utf8": None,
        "error_message": None,
    }
    assert [schema.pop("posted_at") > 0 for schema in state["schemas"]] == [True, True]
    assert state["schemas"] == [
        {"runtime_id": "my-runtime", "function_name": "a", "schema_payload": {"type": "object"}},
        {"runtime_id": "my-runtime", "function_name": "b", "schema_payload": {}},
    ]


def test_a_failed_job_shows_why(api: Api) -> None:
    runtime = api.open()
    job_id = runtime.submit()
    runtime.fail(job_id, "no more fuel")
    job = runtime.job(job_id)
    assert (job["status"], job["error_message"], job["source"]) == ("failed", "no more fuel", "runtime-direct")


def test_a_job_is_inspected_under_its_own_runtime_only(api: Api) -> None:
    runtime, other = api.open(), api.open("other")
    job_id = runtime.submit()
    assert error_code(api.send("GET", f"{other.uri}/jobs/{job_id}")) == "not_found"


# Tokens

GUARDED = [("GET", "job"), ("HEAD", "job"), ("POST", "schemas"), ("POST", "results/{job}")]


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("token", [None, "", "x", "foundry_module_auth_x", "é", "\xff\x80", "other's", "old", "bearer"])
def test_a_wrong_module_token_gets_the_pages_answer(api: Api, method: str, path: str, token: str | None) -> None:
    old = api.open().headers[MODULE_HEADER]
    others = api.open("other").headers[MODULE_HEADER]
    runtime = api.open()
    job_id = runtime.submit()
    real = {"other's": others, "old": old, "bearer": api.bearer["Authorization"]}
    given = None if token is None else real.get(token, token).encode("latin-1")
    headers = {} if given is None else {MODULE_HEADER: given}
    uri = f"{runtime.uri}/{path.format(job=job_id)}"
    answer = api.send(method, uri, headers=headers, data=b"{}" if method == "POST" else None)
    assert answer.status_code == 401
    assert method == "HEAD" or answer.json() == INVALID_TOKEN
    assert runtime.job(job_id)["status"] == "queued"


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_a_module_token_that_is_sent_twice_is_refused(
    api: Api, wire: Callable[[], Wire], method: str, path: str
) -> None:
    runtime = api.open()
    token = runtime.headers[MODULE_HEADER]
    connection = wire()
    twice = {MODULE_HEADER: token, MODULE_HEADER.lower(): token}
    connection.request(method, f"{runtime.path}/{path.format(job='x')}", twice)
    assert connection.head().status == 401


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_an_unknown_runtime_is_told_before_the_token_is_looked_at(api: Api, method: str, path: str) -> None:
    api.open("known")
    answer = api.send(method, f"{RUNTIMES}/unknown/{path.format(job='x')}", data=b"{}" if method == "POST" else None)
    assert answer.status_code == 404
    if method != "HEAD":
        assert error_code(answer) == "not_found"
        assert "'known'" in answer.json()["error_description"]


# Ids

STRANGE_IDS = [
    "a/b/../c",
    "quote\"and'back\\slash",
    "line\nbreak\r\ttab",
    "emoji 😀 é \u202e",
    "<script>alert(1)</script>",
    "100%25%2F%zz",
    "?query=#fragment",
    "...",
    "\u0000nul",
    "x" * 1_000,
]


@pytest.mark.parametrize("runtime_id", STRANGE_IDS)
def test_any_runtime_id_works_through_the_uris_that_it_gets(api: Api, runtime_id: str) -> None:
    runtime = api.open(runtime_id, RID)
    assert runtime.runtime_id == runtime_id
    assert runtime.path == f"{RUNTIMES}/{quote(runtime_id, safe='')}"
    job_id = api.submit(runtime_id, runtime_id)
    job = runtime.take()
    assert (job["queryType"], job["query"]) == (runtime_id, runtime_id)
    assert runtime.post_schemas({runtime_id: {}}).status_code == 204
    assert runtime.post_result(job_id, b"1").status_code == 204
    answer = api.send("GET", f"{runtime.uri}/jobs/{job_id}")
    assert answer.json()["runtime"]["runtime_id"] == runtime_id
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("strange_id", STRANGE_IDS)
def test_any_unknown_id_is_a_plain_not_found(api: Api, strange_id: str) -> None:
    runtime = api.open("known", RID)
    quoted = quote(strange_id, safe="")
    for path in (f"{RUNTIMES}/{quoted}/job", f"{runtime.path}/jobs/{quoted}"):
        answer = api.send("GET", path)
        assert (answer.status_code, error_code(answer)) == (404, "not_found")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert error_code(runtime.post_result(quoted, b"1")) == "not_found"
