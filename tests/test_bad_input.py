"""Whatever a client sends: a clear error in the documented shape, or correct handling, never a fault."""

from __future__ import annotations

import random
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from client import CONTOUR, EXECUTE, RESULT, RID, RUNTIMES, SUBMIT, Api, Wire, error_code

from cmemu_nb.server.application import ROUTES
from cmemu_nb.wire.paths import PUBLIC_API

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import requests

    from cmemu_nb import Emulator

    Connect = Callable[[], Wire]
    Serve = Callable[..., AbstractContextManager[Emulator]]

pytestmark = pytest.mark.once

HEALTH = "/_emulate/health"
DEEP = 100_000


# Bodies

NOT_JSON = [
    b"",
    b" ",
    b"{",
    b"nonsense",
    b"{'runtimeId': 'r'}",
    b'{"runtimeId": "r"',
    b'{"runtimeId": "r"} {}',
    b'{"runtimeId": "r",}',
    b'{"runtimeId": "\\ud800"}',
    b'{"runtimeId": "\x01"}',
    b'{"runtimeId": NaN}',
    b"\xff\xfe{\x00}\x00",
    b'{"runtimeId": "\xff"}',
    b'\xef\xbb\xbf{"runtimeId": "r"}',
    b"[" * DEEP + b"]" * DEEP,
    b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    b"[" * DEEP,
    b'{"runtimeId": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"runtimeId": "r", "unknown": ' + b"[" * DEEP + b"]" * DEEP + b"}",
]
BODY_ROUTES = ["session", "schemas", "direct", "fail", "execute", "submit", "result"]


def post_to(api: Api, route: str, body: bytes) -> requests.Response:
    runtime = api.open(deployed_app_rid=RID)
    uri = f"{runtime.uri}/jobs"
    targets = {
        "session": ("POST", RUNTIMES),
        "schemas": ("POST", runtime.session["postSchemaUri"]),
        "direct": ("POST", uri),
        "fail": ("POST", f"{uri}/{runtime.submit()}/fail"),
        "execute": ("POST", EXECUTE),
        "submit": ("POST", SUBMIT),
        "result": ("PUT", RESULT),
    }
    method, path = targets[route]
    return api.send(method, path, headers={**api.bearer, **runtime.headers}, data=body)


@pytest.mark.parametrize("route", BODY_ROUTES)
@pytest.mark.parametrize("body", NOT_JSON, ids=range(len(NOT_JSON)))
def test_a_body_that_is_no_readable_json_is_refused(api: Api, route: str, body: bytes) -> None:
    answer = post_to(api, route, body)
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request")
    assert "can't be read: " in answer.json()["error_description"]


@pytest.mark.parametrize("route", [route for route in BODY_ROUTES if route != "schemas"])
@pytest.mark.parametrize("body", [b"[]", b'"r"', b"5", b"1e400", b"null", b"true", b"{}", b'[{"runtimeId": "r"}]'])
def test_a_body_that_is_not_the_object_wanted_is_refused(api: Api, route: str, body: bytes) -> None:
    answer = post_to(api, route, body)
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request")


@pytest.mark.parametrize("body", [b'"f"', b"5", b"null", b"true", b'[{"name": 5}]', b"[[[[1]]]]"])
def test_schemas_that_are_no_schemas_are_refused(api: Api, body: bytes) -> None:
    assert error_code(post_to(api, "schemas", body)) == "invalid_request"


@pytest.mark.parametrize("depth", [100, 400, 700, 900, 980, 990, 1000, 1010, 1500, 5000, 200_000])
def test_json_of_any_depth_is_handled_or_refused(api: Api, depth: int) -> None:
    runtime = api.open(deployed_app_rid=RID)
    nested = b"[" * depth + b'{"name": "f"}' + b"]" * depth
    posted = runtime.send("POST", runtime.session["postSchemaUri"], data=nested)
    body = b'{"deployedAppRid": "' + RID.encode() + b'", "queryType": "f", "query": ' + nested + b"}"
    submitted = api.contour("POST", SUBMIT, data=body)
    assert (posted.status_code, submitted.status_code) in [(204, 200), (400, 200), (400, 400)]
    # How deep Python reads depends on its version.
    assert depth < 200_000 or submitted.status_code == 400
    if submitted.status_code == 200:
        envelope = runtime.poll().content
        assert nested in envelope
        assert nested in api.send("GET", f"{runtime.uri}/jobs/{submitted.json()['id']}").content


WRONG = [None, "", " \t\n", 5, 1.5, True, [], ["r"], {}, {"r": 1}]


@pytest.mark.parametrize("value", [*WRONG, ".", "..", " .. "])
def test_a_runtime_id_must_be_a_string_that_can_stand_in_a_uri(api: Api, value: Any) -> None:
    answer = api.send("POST", RUNTIMES, json={"runtimeId": value})
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request")
    assert "runtime" in answer.json()["error_description"]
    assert api.contour("GET", RUNTIMES).json() == {"runtimes": [], "more": False}


@pytest.mark.parametrize("field", ["deployedAppRid", "branch", "displayName"])
@pytest.mark.parametrize("value", WRONG[3:])
def test_optional_fields_must_be_strings_and_a_refused_session_changes_nothing(
    api: Api, field: str, value: Any
) -> None:
    runtime = api.open("r", RID)
    job_id = runtime.submit()
    answer = api.send("POST", RUNTIMES, json={"runtimeId": "r", field: value})
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request")
    assert f"'{field}' must be a string" in answer.json()["error_description"]
    assert runtime.take_id() == job_id


@pytest.mark.parametrize("path", [EXECUTE, SUBMIT])
@pytest.mark.parametrize("field", ["deployedAppRid", "queryType"])
@pytest.mark.parametrize("value", WRONG)
def test_a_call_must_name_its_app_and_function(api: Api, path: str, field: str, value: Any) -> None:
    runtime = api.open(deployed_app_rid=RID)
    answer = api.contour("POST", path, json={"deployedAppRid": RID, "queryType": "f", field: value})
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request")
    assert f"'{field}'" in answer.json()["error_description"]
    assert runtime.poll().status_code == 204


@pytest.mark.parametrize("path", [EXECUTE, SUBMIT])
@pytest.mark.parametrize("value", WRONG[3:])
def test_the_branch_of_a_call_must_be_a_string(api: Api, path: str, value: Any) -> None:
    api.open(deployed_app_rid=RID)
    body = {"deployedAppRid": RID, "queryType": "f", "deployedAppBranch": value}
    assert error_code(api.contour("POST", path, json=body)) == "invalid_request"


@pytest.mark.parametrize("query", [b"[" * DEEP + b"]" * DEEP, b"01", b"nul", b"[1,]", b'"\\q"', b"\xff", b"-", b"1."])
def test_a_query_that_is_no_readable_json_is_refused_when_it_is_submitted(api: Api, query: bytes) -> None:
    runtime = api.open(deployed_app_rid=RID)
    body = b'{"deployedAppRid": "' + RID.encode() + b'", "queryType": "f", "query": ' + query + b"}"
    for path in (EXECUTE, SUBMIT):
        assert error_code(api.contour("POST", path, data=body)) == "invalid_request"
    assert error_code(runtime.send("POST", f"{runtime.uri}/jobs", data=body)) == "invalid_request"
    assert runtime.poll().status_code == 204


# Paths and methods


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        RUNTIMES + "/",
        RUNTIMES + "//job",
        RUNTIMES + "/r/job/",
        RUNTIMES + "/r/jobs/x/y",
        RUNTIMES + "/../runtimes",
        RUNTIMES.upper(),
        CONTOUR,
        f"{CONTOUR}/jobs//status",
        "//" + HEALTH,
        "/%00",
        "/<script>",
        "/\xff",
        "*",
        "http://127.0.0.1/_emulate/nothing",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_an_unknown_path_is_not_found(wire: Connect, method: str, path: str) -> None:
    connection = wire()
    connection.request(method, path)
    answer = connection.answer()
    assert (answer.status, answer.error()) == (404, "not_found")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PATCH", "BREW", "get", "PROPFIND"])
def test_an_unknown_method_is_not_allowed_and_the_allowed_ones_are_named(wire: Connect, method: str) -> None:
    connection = wire()
    for path in {route.path for route in ROUTES}:
        allowed = {route.method for route in ROUTES if route.path == path}
        connection.request(method, re.sub(r"{\w+}", "x", path))
        answer = connection.answer()
        name = "MethodNotAllowed" if path.startswith(PUBLIC_API) else "method_not_allowed"
        assert (answer.status, answer.error()) == (405, name)
        assert set(answer.headers["Allow"].split(", ")) == allowed | ({"HEAD"} if "GET" in allowed else set())


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/job"), ("DELETE", "/job"), ("GET", "/schemas"), ("GET", "/results/x"), ("PUT", "/results/x")],
)
def test_a_wrong_method_changes_nothing(api: Api, method: str, path: str) -> None:
    runtime = api.open()
    job_id = runtime.submit()
    assert error_code(runtime.send(method, runtime.uri + path, data=b"{}")) == "method_not_allowed"
    assert runtime.take_id() == job_id


@pytest.mark.parametrize("segment", ["%FF", "a%C3", "%ED%A0%80", "\xff", "é%FF"])
def test_a_path_parameter_that_is_no_utf8_is_refused(wire: Connect, segment: str) -> None:
    for method, path in (("GET", "/{}/job"), ("GET", "/r/jobs/{}"), ("DELETE", "/{}")):
        connection = wire()
        connection.send(
            f"{method} {RUNTIMES}{path.format(segment)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("latin-1")
        )
        answer = connection.answer()
        assert (answer.status, answer.error()) == (400, "invalid_request")


def test_a_raw_utf8_path_and_its_percent_encoding_are_the_same(api: Api, wire: Connect) -> None:
    runtime, connection = api.open("é😀"), wire()
    connection.request("GET", f"{RUNTIMES}/é😀/job", runtime.headers)
    assert connection.answer().status == 204


# Hosts and origins


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:4000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.1",
        "0.0.0.0",
        "[::2]",
        "",
        "user@localhost",
        "localhost/path",
        "localhost:port",
        "localhost:99999",
        "[::1",
        "127.0.0.1 evil",
        "<script>",
        "é",
    ],
)
def test_a_foreign_host_is_forbidden(api: Api, wire: Connect, host: str) -> None:
    runtime, connection = api.open(), wire()
    job_id = runtime.submit()
    connection.request("GET", f"{runtime.path}/job", {**runtime.headers, "Host": host})
    answer = connection.answer()
    assert (answer.status, answer.error()) == (403, "forbidden_host")
    assert runtime.take_id() == job_id


@pytest.mark.parametrize("head", ["", "Host: localhost\r\nhost: localhost\r\n"])
def test_a_request_needs_exactly_one_host(wire: Connect, head: str) -> None:
    connection = wire()
    connection.send(f"GET {HEALTH} HTTP/1.1\r\n{head}\r\n".encode())
    assert connection.answer().error() == "invalid_request"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8888", 200),
        ("https://127.0.0.1", 200),
        ("http://[::1]:3000", 200),
        ("http://evil.example", 403),
        ("https://localhost.evil.example", 403),
        ("null", 403),
        ("", 403),
        ("file://", 403),
        ("localhost", 403),
        ("vscode-webview://localhost", 403),
        ("http://localhost, http://evil.example", 403),
        ("http://localhost@evil.example", 403),
        ("http://é", 403),
    ],
)
def test_a_foreign_origin_is_forbidden(api: Api, wire: Connect, origin: str, status: int) -> None:
    runtime, connection = api.open("known"), wire()
    connection.request("GET", HEALTH, {"Origin": origin})
    answer = connection.answer()
    assert answer.status == status
    assert status == 200 or answer.error() == "forbidden_origin"
    assert "Access-Control-Allow-Origin" not in answer.headers
    connection.request("POST", RUNTIMES, {"Origin": origin}, b'{"runtimeId": "known"}')
    assert connection.answer().status == status
    assert runtime.poll().status_code == (204 if status == 403 else 401)


def test_local_hostnames_may_be_used_as_host_and_origin(serve: Serve) -> None:
    with serve(local_hostnames=["host.docker.internal", "Box"]) as emu, Wire(emu.port) as connection:
        for name in ("host.docker.internal:4000", "HOST.docker.internal", "box"):
            connection.request("POST", RUNTIMES, {"Host": name, "Origin": f"http://{name}"}, b'{"runtimeId": "r"}')
            answer = connection.answer()
            assert answer.status == 200
            assert f'"http://{name}{RUNTIMES}/r/job"'.encode() in answer.body
        connection.request("GET", HEALTH, {"Host": "docker.internal"})
        assert connection.answer().error() == "forbidden_host"


# Bodies over the limit

LIMIT = 100_000


@pytest.fixture
def small(serve: Serve) -> Iterator[Api]:
    """An emulator that takes only small bodies."""
    with serve(max_body_bytes=LIMIT) as emu:
        yield Api(emu.url, emu.token)


def port_of(api: Api) -> int:
    return int(api.url.rpartition(":")[2])


def pieces(size: int) -> Iterator[bytes]:
    for _ in range(0, size, 10_000):
        yield b"x" * 10_000


@pytest.mark.parametrize("framing", ["whole", "chunked"])
@pytest.mark.parametrize("size", [LIMIT + 10_000, 200 * LIMIT])
def test_a_requests_client_sees_the_413_of_a_body_over_the_limit(small: Api, framing: str, size: int) -> None:
    runtime = small.open()
    job_id = runtime.submit()
    runtime.take()
    body = pieces(size) if framing == "chunked" else b"x" * size
    answer = runtime.post_result(job_id, body)
    assert (answer.status_code, error_code(answer)) == (413, "payload_too_large")
    assert str(LIMIT) in answer.json()["error_description"]
    for method, path in (("POST", RUNTIMES), ("PUT", RESULT), ("POST", runtime.session["postSchemaUri"])):
        body = pieces(size) if framing == "chunked" else b"x" * size
        headers = {**small.bearer, **runtime.headers}
        assert small.send(method, path, headers=headers, data=body).status_code == 413


def test_schemas_have_a_limit_of_their_own(serve: Serve) -> None:
    """It counts all schemas that the runtime would have; what is too much changes nothing."""
    with serve(max_schema_bytes=100) as emu:
        runtime = Api(emu.url, emu.token).open()
        for payload, status in (({"a": "x" * 60}, 204), ({"b": "x" * 60}, 413), ({"a": "y" * 80}, 204)):
            answer = runtime.post_schemas(payload)
            assert answer.status_code == status
            assert status == 204 or "start with a larger max_schema_bytes" in answer.json()["error_description"]
        assert [(each.function_name, each.schema_payload[1:2]) for each in emu.lifecycle.schemas()] == [("a", b"y")]


@pytest.mark.parametrize("framing", ["whole", "chunked"])
def test_a_body_of_exactly_the_limit_is_taken(small: Api, framing: str) -> None:
    runtime = small.open()
    job_id = runtime.submit()
    runtime.take()
    body = pieces(LIMIT) if framing == "chunked" else b"x" * LIMIT
    assert runtime.post_result(job_id, body).status_code == 204
    assert len(runtime.job(job_id)["result_body_utf8"]) == LIMIT


def test_a_whole_result_over_the_limit_leaves_the_job_running_and_a_stream_fails_it(small: Api) -> None:
    runtime = small.open()
    whole, stream = runtime.submit(), runtime.submit()
    runtime.take()
    runtime.take()
    assert runtime.post_result(whole, b"x" * (LIMIT + 1)).status_code == 413
    assert runtime.job(whole)["status"] == "running"
    assert runtime.post_result(stream, pieces(2 * LIMIT)).status_code == 413
    job = runtime.job(stream)
    assert job["status"] == "failed"
    assert re.fullmatch(r"the result stream broke off after [\d,]{6,7} bytes", job["error_message"])


@pytest.mark.parametrize("length", [LIMIT + 1, 10**15, 10**30])
def test_a_client_that_expects_100_continue_gets_the_413_at_once(small: Api, length: int) -> None:
    with Wire(port_of(small)) as connection:
        connection.request("POST", RUNTIMES, {"Expect": "100-continue", "Content-Length": str(length)})
        answer = connection.answer()
        assert (answer.error(), answer.headers["Connection"]) == ("payload_too_large", "close")


@pytest.mark.parametrize("expect", [{}, {"Expect": "100-continue"}])
@pytest.mark.parametrize("framing", ["whole", "chunked"])
def test_a_client_can_send_all_of_its_body_before_it_reads_the_413(
    small: Api, expect: dict[str, str], framing: str
) -> None:
    body = b"x" * (200 * LIMIT)
    with Wire(port_of(small)) as connection:
        if framing == "whole":
            connection.request("POST", RUNTIMES, expect, body)
        else:
            connection.request("POST", RUNTIMES, {**expect, "Transfer-Encoding": "chunked"})
            connection.send_chunk(body)
            connection.send_chunk(b"")
        answer = connection.answer()
        assert (connection.answer() if answer.status == 100 else answer).error() == "payload_too_large"


@pytest.mark.parametrize("options", [[], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect:"]])
@pytest.mark.parametrize("size", [LIMIT + 1, 200 * LIMIT])
def test_curl_sees_the_413(small: Api, options: list[str], size: int) -> None:
    command = ["curl", "-sS", "-w", "%{stderr}%{http_code}", "--noproxy", "*", "--data-binary", "@-", *options]
    done = subprocess.run([*command, small.url + RUNTIMES], input=b"x" * size, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"413")
    assert b"payload_too_large" in done.stdout


@pytest.mark.parametrize("framing", ["whole", "chunked"])
def test_a_refusal_reaches_a_client_that_is_still_sending(api: Api, framing: str) -> None:
    body = pieces(20_000_000) if framing == "chunked" else b"x" * 20_000_000
    answer = api.send("POST", f"{RUNTIMES}/unknown/results/x", data=body)
    assert (answer.status_code, error_code(answer)) == (404, "not_found")


# HTTP itself


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: x\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "no header\r\n",
    ],
)
def test_malformed_http_is_refused_and_the_emulator_goes_on(api: Api, wire: Connect, head: str) -> None:
    connection = wire()
    connection.send(f"POST {RUNTIMES} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode())
    assert connection.file.readline().startswith(b"HTTP/1.1 400 ")
    assert connection.closed_by_server()
    assert api.send("GET", HEALTH).status_code == 200


@pytest.mark.parametrize("framing", ["Transfer-Encoding: gzip", "Transfer-Encoding: chunked\r\nContent-Length: 5"])
def test_a_result_whose_end_is_unclear_is_refused_and_its_job_goes_on(api: Api, wire: Connect, framing: str) -> None:
    runtime, connection = api.open(), wire()
    runtime.submit()
    job_id = runtime.take_id()
    token = runtime.session["moduleAuthToken"]
    head = f"POST {runtime.path}/results/{job_id} HTTP/1.1\r\nHost: localhost\r\nModule-Auth-Token: {token}\r\n"
    connection.send(f"{head}{framing}\r\n\r\n5\r\nhello\r\n0\r\n\r\n".encode())
    answer = connection.answer()
    assert (answer.status, answer.error(), answer.headers["Connection"]) == (400, "invalid_request", "close")
    assert connection.closed_by_server()
    assert runtime.job(job_id)["status"] == "running"
    assert runtime.post_result(job_id, b"hello").status_code == 204


LAST_REQUESTS = {
    "the client wants to close": "GET /_emulate/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "HTTP/1.0": "GET /_emulate/health HTTP/1.0\r\nHost: localhost\r\n\r\n",
    "refused early": "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("last", LAST_REQUESTS)
def test_what_comes_after_the_last_request_of_a_connection_is_not_served(api: Api, wire: Connect, last: str) -> None:
    runtime, connection = api.open(), wire()
    body = '{"queryType": "f"}'
    head = f"POST {runtime.path}/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: {api.bearer['Authorization']}\r\n"
    connection.send(f"{LAST_REQUESTS[last]}{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    connection.answer()
    assert connection.file.read() == b""
    assert runtime.poll().status_code == 204


def test_garbage_of_any_kind_never_harms_the_emulator(api: Api, wire: Connect) -> None:
    runtime = api.open()
    job_id = runtime.submit()
    chance = random.Random(20_260_401)
    seed = f"GET {runtime.path}/job HTTP/1.1\r\nHost: localhost\r\nModule-Auth-Token: x\r\n\r\n".encode()
    for _ in range(200):
        garbled = bytearray(seed)
        for _ in range(chance.randrange(1, 6)):
            garbled[chance.randrange(len(garbled))] = chance.randrange(256)
        connection = wire()
        connection.send(bytes(garbled))
        connection.close()
    assert runtime.take_id() == job_id


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_both_versions_of_http_are_spoken(api: Api, wire: Connect, version: str) -> None:
    runtime, connection = api.open(), wire()
    token = runtime.session["moduleAuthToken"]
    connection.send(
        f"GET {runtime.path}/job HTTP/{version}\r\nHost: localhost\r\nModule-Auth-Token: {token}\r\n\r\n".encode()
    )
    assert connection.answer().status == 204
