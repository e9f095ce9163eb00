"""The contour routes: what an application calls that wants a function run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from client import CONTOUR, EXECUTE, RESULT, RID, SUBMIT, Api, Runtime, Wire, error_code

from cmemu_nb.wire.paths import DEPLOYED_APPS

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from cmemu_nb import Emulator

    Background = Callable[..., Future[Any]]
    Serve = Callable[..., AbstractContextManager[Emulator]]

pytestmark = pytest.mark.once

JOBS = f"{CONTOUR}/jobs"
STATUS = f"{JOBS}/status/v2"
CANCELLED = "cancelled: by a client of the contour routes"
ALL_BYTES = bytes(range(256))


def take(runtime: Runtime) -> str:
    """Wait for a job as a runtime does, and return its id."""
    job_id: str = runtime.take(wait=30)["jobId"]
    return job_id


# Executing


@pytest.mark.parametrize("body", [b"", b'{"sum": 3}', ALL_BYTES, ALL_BYTES * 20_000])
def test_execute_answers_the_very_bytes_of_the_result(api: Api, background: Background, body: bytes) -> None:
    runtime = api.open(deployed_app_rid=RID)
    answer = background(api.execute, "add", {"x": 1})
    job = runtime.take(wait=30)
    assert (job["queryType"], job["query"]) == ("add", {"x": 1})
    assert runtime.job(job["jobId"])["source"] == "contour-sync"
    runtime.post_result(job["jobId"], body, Content_Type="text/html")
    executed = answer.result()
    assert (executed.status_code, executed.content) == (200, body)
    assert executed.headers["Content-Type"] == "application/octet-stream"


def test_execute_and_submit_without_a_bound_runtime_are_not_found(api: Api) -> None:
    api.open(deployed_app_rid=RID, branch="dev")
    for path in (EXECUTE, SUBMIT):
        for fields in ({"deployedAppRid": "ri.none"}, {"deployedAppRid": RID, "deployedAppBranch": "master"}):
            answer = api.contour("POST", path, json={"queryType": "f", **fields})
            assert (answer.status_code, error_code(answer)) == (404, "not_found")
            sentence = f"No active compute-module runtime is bound to '{fields['deployedAppRid']}'."
            assert answer.json()["error_description"] == sentence


def test_execute_of_a_job_that_fails_answers_its_error_message(api: Api, background: Background) -> None:
    runtime = api.open(deployed_app_rid=RID)
    answer = background(api.execute)
    runtime.fail(take(runtime), "no more fuel")
    failed = answer.result()
    assert (failed.status_code, error_code(failed)) == (500, "job_failed")
    assert failed.json()["error_description"] == "no more fuel"


def test_a_job_whose_execute_timed_out_stays_queued_and_finishes_later(serve: Serve) -> None:
    with serve(execute_timeout=0.05) as emu:
        api = Api(emu.url, emu.token)
        runtime = api.open(deployed_app_rid=RID)
        answer = api.execute()
        job_id = runtime.take_id()
        assert (answer.status_code, error_code(answer)) == (504, "job_timeout")
        said = answer.json()["error_description"]
        assert said.startswith(f"Timed out waiting for compute-module job '{job_id}'. 'f' is queued")
        assert runtime.post_result(job_id, b"late").status_code == 204
        assert api.result(job_id).content == b"late"


def test_a_running_job_times_out_too_and_goes_on(serve: Serve) -> None:
    with serve(execute_timeout=1.0) as emu, Wire(emu.port) as client:
        api = Api(emu.url, emu.token)
        runtime = api.open(deployed_app_rid=RID)
        client.request("POST", EXECUTE, api.bearer, json.dumps({"deployedAppRid": RID, "queryType": "f"}).encode())
        job_id = take(runtime)
        assert client.answer().error() == "job_timeout"
        assert runtime.job(job_id)["status"] == "running"
        assert runtime.post_result(job_id, b"1").status_code == 204


def test_the_first_byte_of_the_result_ends_the_time_limit(serve: Serve) -> None:
    with serve(execute_timeout=3.0) as emu, Wire(emu.port) as client, Wire(emu.port) as poster:
        api = Api(emu.url, emu.token)
        runtime = api.open(deployed_app_rid=RID)
        client.request("POST", EXECUTE, api.bearer, json.dumps({"deployedAppRid": RID, "queryType": "f"}).encode())
        results = f"{runtime.path}/results/{take(runtime)}"
        poster.request("POST", results, {**runtime.headers, "Transfer-Encoding": "chunked"})
        poster.send_chunk(b"first")
        assert client.head().status == 200
        assert client.chunk() == b"first"
        # One that begins later has used up the same time.
        assert api.execute().status_code == 504
        poster.send_chunk(b"second")
        assert client.chunk() == b"second"
        poster.send_chunk(b"")
        assert poster.answer().status == 204
        assert client.chunk() == b""


@pytest.mark.parametrize("items", [[], [b"1"]])
def test_head_shows_whether_a_result_is_a_stream(api: Api, items: list[bytes]) -> None:
    runtime = api.open(deployed_app_rid=RID)
    heads = []
    for body in (iter(items), b"".join(items)):
        job_id = api.submit()
        runtime.take()
        assert runtime.post_result(job_id, body).status_code == 204
        head = api.contour("HEAD", f"{CONTOUR}/jobs/{job_id}/result")
        assert (head.status_code, head.content) == (200, b"")
        heads.append(head.headers)
    streamed, whole = heads
    assert "Content-Length" not in streamed
    assert whole["Content-Length"] == str(len(b"".join(items)))


def test_a_reset_answers_the_waiting_client_at_once(
    api: Api, background: Background, until_held: Callable[..., None]
) -> None:
    runtime = api.open(deployed_app_rid=RID)
    running = background(api.execute)
    take(runtime)
    queued = background(api.execute)
    until_held(jobs=2)
    api.open(deployed_app_rid=RID)
    for answer in (queued.result(), running.result()):
        assert (answer.status_code, error_code(answer)) == (500, "job_failed")
        assert answer.json()["error_description"] == "the runtime session was reset"


def test_a_reset_answers_who_waits_for_a_jobs_status_at_once(
    api: Api, background: Background, until_held: Callable[..., None]
) -> None:
    api.open(deployed_app_rid=RID)
    path = f"{CONTOUR}/jobs/{api.submit()}/status"
    waiting = background(api.contour, "GET", path, headers={"Prefer": "wait=30"})
    until_held(jobs=1)
    api.open(deployed_app_rid=RID)
    assert (waiting.result().status_code, error_code(waiting.result())) == (500, "job_failed")
    assert error_code(api.contour("GET", path)) == "not_found"


# Submitting and following


def test_submit_answers_the_id_and_handle_at_once(api: Api) -> None:
    runtime = api.open(deployed_app_rid=RID)
    answer = api.contour("POST", SUBMIT, json={"deployedAppRid": RID, "queryType": "f"}).json()
    job_id = runtime.take_id()
    handle = {"type": "v1", "jobId": job_id, "nodeId": None, "moduleId": None, "persistJobResult": None}
    assert json.loads(answer.pop("jobHandle")) == handle
    assert answer == {
        "id": job_id,
        "nodeId": None,
        "moduleId": None,
        "persistJobResult": None,
        "status": {"type": "queued", "queued": {"queueInfo": "NORMAL_OPERATION"}},
    }


def test_the_status_follows_the_job(api: Api) -> None:
    runtime = api.open(deployed_app_rid=RID)
    done, failed = api.submit(), api.submit()
    assert api.status(done) == {"type": "queued", "queued": {"queueInfo": "NORMAL_OPERATION"}}
    runtime.poll()
    job = runtime.job(done)
    timing = {
        "multiplexerSubmitTimeMillis": job["queued_at"],
        "queueSubmitTimeMillis": job["queued_at"],
        "queuedJobDispatchTimeMillis": job["started_at"],
        "moduleSubmitTimeMillis": job["started_at"],
    }
    info: dict[str, Any] = {
        "metadata": None,
        "intermediateJobInfoList": [],
        "multiplexerJobTiming": {"type": "queuedJob", "queuedJob": timing},
    }
    assert api.status(done) == {"type": "running", "running": info}
    runtime.post_result(done, b"1")
    assert api.status(done) == {"type": "succeeded", "succeeded": info}
    runtime.fail(failed, "by hand")
    assert api.status(failed) == {"type": "failed", "failed": {"message": "by hand"}}


@pytest.mark.parametrize(
    ("use", "blank"),
    [("id", {}), ("jobHandle", {}), ("jobHandle", {"id": " "}), ("jobHandle", {"id": None}), ("id", {"jobHandle": 5})],
)
def test_the_result_is_fetched_by_id_or_handle(api: Api, use: str, blank: dict[str, Any]) -> None:
    runtime = api.open(deployed_app_rid=RID)
    submitted = api.contour("POST", SUBMIT, json={"deployedAppRid": RID, "queryType": "f"}).json()
    by = {use: submitted[use], **blank}
    early = api.contour("PUT", RESULT, json=by)
    assert (early.status_code, error_code(early)) == (409, "job_not_ready")
    runtime.post_result(runtime.take_id(), ALL_BYTES)
    answer = api.contour("PUT", RESULT, json=by)
    assert (answer.status_code, answer.content) == (200, ALL_BYTES)
    assert answer.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(("method", "path"), [("PUT", RESULT), ("PUT", STATUS), ("DELETE", JOBS)])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"id": "foundry_job_0"}, 404, "not_found"),
        ({"jobHandle": '{"type":"v1","jobId":"foundry_job_0"}'}, 404, "not_found"),
        ({}, 400, "invalid_request"),
        ({"id": "", "jobHandle": " "}, 400, "invalid_request"),
        ({"id": 5}, 400, "invalid_request"),
        ({"jobHandle": {"jobId": "foundry_job_0"}}, 400, "invalid_request"),
        ({"jobHandle": "foundry_job_0"}, 400, "invalid_request"),
        ({"jobHandle": "[]"}, 400, "invalid_request"),
        ({"jobHandle": '{"type":"v1"}'}, 400, "invalid_request"),
        ([], 400, "invalid_request"),
    ],
)
def test_a_job_that_cannot_be_named_is_refused(
    api: Api, method: str, path: str, body: Any, status: int, code: str
) -> None:
    answer = api.contour(method, path, json=body)
    assert (answer.status_code, error_code(answer)) == (status, code)


@pytest.mark.parametrize("use", ["id", "jobHandle", "all of it"])
def test_the_status_of_the_job_in_a_body_is_that_of_its_id(api: Api, use: str) -> None:
    runtime = api.open(deployed_app_rid=RID)
    job = api.contour("POST", SUBMIT, json={"deployedAppRid": RID, "queryType": "f"}).json()
    body = job if use == "all of it" else {use: job[use]}
    assert api.contour("PUT", STATUS, json=body).json() == job["status"]
    runtime.take()
    status = api.contour("PUT", STATUS, json=body).json()
    assert status == api.status(job["id"])
    assert status["type"] == "running"


@pytest.mark.parametrize("use", ["id", "jobHandle", "all of it", "path"])
def test_cancelling_fails_a_queued_or_running_job_with_that_reason(
    api: Api, background: Background, until_held: Callable[..., None], use: str
) -> None:
    runtime = api.open(deployed_app_rid=RID)
    jobs = [api.contour("POST", SUBMIT, json={"deployedAppRid": RID, "queryType": "f"}).json() for _ in range(3)]
    done, running, _ = (job["id"] for job in jobs)
    for job_id in (done, running):
        assert runtime.take_id() == job_id
    runtime.post_result(done, b"1")
    waiting = background(api.contour, "PUT", STATUS, json=jobs[1], headers={"Prefer": "wait=30"})
    until_held(jobs=1)
    for job in (*jobs, *jobs):  # the second time changes nothing
        if use == "path":
            answer = api.contour("DELETE", f"{JOBS}/{job['id']}")
        else:
            answer = api.contour("DELETE", JOBS, json=job if use == "all of it" else {use: job[use]})
        assert (answer.status_code, answer.content) == (204, b"")
    failed = {"type": "failed", "failed": {"message": CANCELLED}}
    assert waiting.result().json() == failed
    assert [api.status(job["id"]) for job in jobs[1:]] == [failed, failed]
    assert api.result(done).content == b"1"
    assert runtime.poll().status_code == 204
    late = runtime.post_result(running, b"1")
    assert (late.status_code, error_code(late)) == (409, "job_already_completed")


def test_the_result_of_a_failed_job_is_its_error(api: Api) -> None:
    runtime = api.open(deployed_app_rid=RID)
    job_id = api.submit()
    runtime.fail(job_id, "by hand")
    answer = api.result(job_id)
    assert (answer.status_code, error_code(answer)) == (500, "job_failed")
    assert answer.json()["error_description"] == "by hand"


def test_the_status_of_an_unknown_job_is_not_found(api: Api) -> None:
    assert api.status("foundry_job_0")["error"] == "not_found"
    assert api.contour("DELETE", f"{JOBS}/foundry_job_0").status_code == 404


# Waiting, by the header Prefer


@pytest.mark.parametrize("end", ["result", "failure"])
def test_status_and_result_are_held_until_the_job_is_done(
    api: Api, background: Background, until_held: Callable[..., None], end: str
) -> None:
    runtime = api.open(deployed_app_rid=RID)
    job_id = api.submit()
    wait = {"Prefer": "respond-async, wait=60"}
    status = background(api.contour, "GET", f"{CONTOUR}/jobs/{job_id}/status", headers=wait)
    result = background(api.contour, "PUT", RESULT, json={"id": job_id}, headers=wait)
    until_held(jobs=2)
    runtime.take()
    assert not status.done()
    assert not result.done()
    if end == "result":
        runtime.post_result(job_id, b"1")
        assert (status.result().json()["type"], result.result().content) == ("succeeded", b"1")
    else:
        runtime.fail(job_id, "by hand")
        assert (status.result().json()["type"], error_code(result.result())) == ("failed", "job_failed")
    assert status.result().headers["Preference-Applied"] == "wait=60"


def test_a_wait_that_is_over_answers_where_the_job_stands(api: Api) -> None:
    api.open(deployed_app_rid=RID)
    job_id = api.submit()
    status = api.contour("GET", f"{CONTOUR}/jobs/{job_id}/status", headers={"Prefer": "wait=1"})
    assert status.json()["type"] == "queued"
    assert status.headers["Preference-Applied"] == "wait=1"
    assert error_code(api.result(job_id, wait=1)) == "job_not_ready"


def test_waiting_for_a_job_that_is_done_answers_at_once(api: Api) -> None:
    runtime = api.open(deployed_app_rid=RID)
    job_id = api.submit()
    runtime.take()
    runtime.post_result(job_id, b"1")
    assert api.result(job_id, wait=60).content == b"1"


# Branches


@pytest.mark.parametrize(
    ("bound", "asked", "served"),
    [
        (["master", "dev"], None, "master"),
        (["dev", "master"], None, "master"),
        (["a", "b"], None, "b"),
        (["a", "b", "a"], None, "a"),
        (["a", "b"], "a", "a"),
        (["a"], " ", "a"),
    ],
)
def test_a_branch_left_out_is_master_or_else_the_newest(
    api: Api, bound: list[str], asked: str | None, served: str
) -> None:
    runtimes = {
        f"{branch}{place}": api.open(f"{branch}{place}", RID, branch=branch) for place, branch in enumerate(bound)
    }
    job_id = api.submit(deployedAppBranch=asked)
    takers = [name for name, runtime in runtimes.items() if runtime.poll().status_code == 200]
    assert [name.rstrip("0123456789") for name in takers] == [served]
    assert runtimes[takers[0]].job(job_id)["deployed_app_branch"] == served


def test_a_deleted_runtime_serves_its_app_no_more(api: Api) -> None:
    old = api.open("old", RID, branch="old")
    new = api.open("new", RID, branch="new")
    new.send("DELETE", new.uri)
    assert api.submit() == old.take_id()


@pytest.mark.parametrize("branch", ["v2", "status", "release/1.0 ü"])
def test_a_deployed_app_s_branch_may_have_any_name(api: Api, branch: str) -> None:
    api.open(deployed_app_rid=RID, branch=branch)
    for path in (f"{quote(branch, safe='')}/status", f"{quote(branch, safe='')}/function-schemas", "v2"):
        assert api.contour("GET", f"{APP}/{path}").status_code == 200
    missing = api.contour("GET", f"{APP}/other/status")
    assert (missing.status_code, error_code(missing)) == (404, "not_found")


# Bearer tokens

APP = f"{DEPLOYED_APPS}/{RID}"
ROUTES = [
    *(("POST", EXECUTE), ("POST", SUBMIT), ("GET", f"{CONTOUR}/jobs/x/status"), ("PUT", RESULT), ("PUT", STATUS)),
    *(
        ("DELETE", JOBS),
        ("DELETE", f"{JOBS}/x"),
        ("GET", f"{APP}/v2"),
        ("GET", f"{APP}/x/status"),
        ("GET", f"{APP}/x/function-schemas"),
    ),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic {token}", "{token}", "Bearer é", "Bearer {token}x"]
)
def test_a_wrong_bearer_token_is_refused(api: Api, method: str, path: str, header: str | None) -> None:
    runtime = api.open(deployed_app_rid=RID)
    token = api.bearer["Authorization"].split()[1]
    headers = {} if header is None else {"Authorization": header.format(token=token).encode()}
    answer = api.send(method, path, headers=headers, json={"deployedAppRid": RID, "queryType": "f"})
    assert (answer.status_code, error_code(answer)) == (401, "invalid_bearer_token")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "the attribute .token of its variable" in answer.json()["error_description"]
    assert runtime.poll().status_code == 204


def test_the_bearer_scheme_is_case_insensitive_and_a_module_token_is_no_bearer(api: Api) -> None:
    runtime = api.open(deployed_app_rid=RID)
    path = f"{CONTOUR}/jobs/{api.submit()}/status"
    bearer = api.bearer["Authorization"]
    assert api.send("GET", path, headers={"Authorization": bearer.replace("Bearer ", "bearer   ")}).status_code == 200
    module = {"Authorization": f"Bearer {runtime.session['moduleAuthToken']}"}
    assert api.send("GET", path, headers=module).status_code == 401


def test_a_bearer_token_that_is_sent_twice_is_refused(api: Api, wire: Callable[[], Wire]) -> None:
    connection = wire()
    connection.request("PUT", RESULT, {**api.bearer, "authorization": api.bearer["Authorization"]})
    assert connection.answer().error() == "invalid_bearer_token"


def test_a_random_token_is_made_when_none_is_set(serve: Serve) -> None:
    with serve(token=None) as first, serve(token=None) as second:
        assert len(first.token) > 30
        assert first.token != second.token
        answer = Api(second.url, first.token).contour("PUT", RESULT, json={})
        assert error_code(answer) == "invalid_bearer_token"
        assert error_code(Api(first.url, first.token).contour("PUT", RESULT, json={})) == "invalid_request"
