"""The routes for tools and headless use, and the OpenAPI document of all routes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from client import CONTOUR, MODULE_HEADER, RID, RUNTIMES, Api, error_code, prepared_dataset

from cmemu_nb import Emulator
from cmemu_nb.lifecycle.datasets import TransactionType
from cmemu_nb.server.application import ROUTES
from cmemu_nb.server.openapi import examples
from cmemu_nb.server.routes.users import USERS
from cmemu_nb.version import __version__
from cmemu_nb.wire.paths import (
    AUTHORIZE,
    DATASETS,
    DEPLOYED_APPS,
    EXECUTIONS,
    MULTIPASS,
    OAUTH,
    ONTOLOGIES,
    ONTOLOGIES_V1,
    PLATFORM,
    QUERIES,
    SCRATCH,
)

# Runtimes


def test_runtimes_are_listed_with_their_bindings_and_queues(api: Api) -> None:
    runtime = api.open("a", RID, displayName="My App")
    api.open("b")
    runtime.submit()
    runtimes = api.contour("GET", RUNTIMES).json()["runtimes"]
    assert [(each["runtime_id"], each["queue_depth"]) for each in runtimes] == [("a", 1), ("b", 0)]
    (app,) = runtimes[0]["deployed_apps"]
    assert isinstance(app.pop("bound_at"), int)
    assert app == {"deployed_app_rid": RID, "branch": "master", "runtime_id": "a", "display_name": "My App"}


def test_one_runtime_is_shown_with_its_schemas(api: Api) -> None:
    runtime = api.open()
    runtime.post_schemas({"f": {"type": "object"}})
    state = runtime.show()
    assert state["runtime"]["runtime_id"] == "my-runtime"
    assert [(each["function_name"], each["schema_payload"]) for each in state["schemas"]] == [("f", {"type": "object"})]


def test_a_deleted_runtime_is_gone_with_all_its_jobs_and_bindings(api: Api) -> None:
    runtime = api.open(deployed_app_rid=RID)
    job_id = api.submit()
    assert runtime.send("DELETE", runtime.uri).status_code == 204
    assert error_code(runtime.poll()) == "not_found"
    assert error_code(api.result(job_id)) == "not_found"
    assert error_code(api.execute()) == "not_found"


def test_reset_all_forgets_every_runtime(api: Api) -> None:
    runtimes = [api.open("a", RID), api.open("b")]
    assert api.contour("DELETE", RUNTIMES).status_code == 204
    assert api.contour("GET", RUNTIMES).json() == {"runtimes": [], "more": False}
    assert {runtime.poll().status_code for runtime in runtimes} == {404}
    assert api.open("a").poll().status_code == 204


# Jobs


def test_a_job_is_submitted_to_a_runtime_without_any_app(api: Api) -> None:
    runtime = api.open()
    job_id = runtime.submit("add", {"x": 1})
    job = runtime.take()
    assert (job["jobId"], job["queryType"], job["query"]) == (job_id, "add", {"x": 1})
    record = runtime.job(job_id)
    assert (record["source"], record["deployed_app_rid"]) == ("runtime-direct", None)


def test_jobs_are_listed_by_status_and_page_by_page(api: Api) -> None:
    runtime = api.open()
    submitted = [runtime.submit() for _ in range(7)]
    runtime.fail(submitted[6], "by hand")
    for job_id in submitted[:2]:
        runtime.take()
        runtime.post_result(job_id, b"1")
    runtime.take()

    def listed(**options: Any) -> tuple[list[str], bool]:
        answer = runtime.send("GET", f"{runtime.uri}/jobs", params=options).json()
        return [job["job_id"] for job in answer["jobs"]], answer["more"]

    assert listed() == (submitted, False)
    assert listed(status="succeeded") == (submitted[:2], False)
    assert listed(status="running") == (submitted[2:3], False)
    assert listed(status="queued") == (submitted[3:6], False)
    assert listed(status="failed") == (submitted[6:], False)
    assert listed(limit="0010000") == (submitted, False)
    assert listed(limit=3) == (submitted[:3], True)
    assert listed(limit=3, after=submitted[2]) == (submitted[3:6], True)
    assert listed(limit=3, after=submitted[5]) == (submitted[6:], False)
    assert listed(status="queued", limit=2, after=submitted[3]) == (submitted[4:6], False)
    assert listed(limit=3, newest="true") == (submitted[4:], True)
    assert listed(limit=3, newest="false") == (submitted[:3], True)
    assert listed(status="queued", limit=9, newest="true") == (submitted[3:6], False)
    assert listed(id=submitted[1]) == ([submitted[1]], False)
    assert listed(id=submitted[4][-6:], newest="true") == ([submitted[4]], False)
    assert listed(id="nobody") == ([], False)


@pytest.mark.parametrize(
    "options",
    [
        "limit=0",
        "limit=10001",
        "id=abc",
        "limit=-1",
        "limit=x",
        "limit=",
        "limit=1.5",
        "limit=%C2%B2",
        "limit=" + "9" * 5000,
        "limit=00000000" + "1" * 5000,
        "limit=000000010001",
        "status=done",
        "status=",
        "status=%FF%FE",
        "page=2",
        "newest=yes",
        "newest=",
        "=",
    ],
)
def test_wrong_options_of_a_listing_are_refused_by_name(api: Api, options: str) -> None:
    runtime = api.open()
    answer = runtime.send("GET", f"{runtime.uri}/jobs?{options}")
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request")


def test_a_listing_after_an_unknown_job_is_not_found(api: Api) -> None:
    runtime = api.open()
    assert error_code(runtime.send("GET", f"{runtime.uri}/jobs?after=foundry_job_0")) == "not_found"


@pytest.mark.parametrize("status", ["queued", "running"])
def test_a_person_can_fail_a_job(api: Api, status: str) -> None:
    runtime = api.open(deployed_app_rid=RID)
    job_id = api.submit()
    if status == "running":
        runtime.take()
    assert runtime.fail(job_id, " no more fuel ").status_code == 204
    assert api.status(job_id) == {"type": "failed", "failed": {"message": "no more fuel"}}
    assert runtime.poll().status_code == 204


def test_a_job_that_is_done_cannot_be_failed(api: Api) -> None:
    runtime = api.open()
    job_id = runtime.submit()
    runtime.take()
    runtime.post_result(job_id, b"1")
    assert error_code(runtime.fail(job_id, "too late")) == "job_already_completed"
    assert runtime.job(job_id)["status"] == "succeeded"
    assert error_code(runtime.fail("foundry_job_0", "never")) == "not_found"


def test_a_tool_cancels_jobs(api: Api) -> None:
    def cancel(**fields: str) -> dict[str, Any]:
        answer: dict[str, Any] = api.contour("POST", "/_emulate/jobs/cancel", json=fields).json()
        return answer

    runtime, other = api.open("first"), api.open("second")
    jobs, others = [runtime.submit("f") for _ in range(3)], [other.submit("g"), other.submit("g")]
    runtime.take()
    assert cancel(jobs=jobs[2][-6:]) == {"cancelled": 1}
    assert runtime.job(jobs[2])["error_message"] == "cancelled: by a request"
    assert cancel(jobs="f", reason="too slow") == {"cancelled": 2}
    assert [runtime.job(each)["error_message"] for each in jobs[:2]] == ["cancelled: too slow"] * 2
    assert cancel(jobs="f") == {"cancelled": 0}
    assert cancel(jobs="all") == {"cancelled": 2}
    assert {other.job(each)["status"] for each in others} == {"failed"}
    assert cancel(jobs="h")["error"] == "not_found"
    assert cancel(reason="none is named")["error"] == "invalid_request"
    assert error_code(runtime.send("POST", "/_emulate/jobs/cancel", json={"jobs": "all"})) == "invalid_bearer_token"


def test_a_schema_is_deleted_by_its_functions_name(api: Api) -> None:
    runtime = api.open()
    runtime.post_schemas({"a/b": {}, "c": {}})
    assert runtime.send("DELETE", f"{runtime.uri}/schemas/a%2Fb").status_code == 204
    assert [each["function_name"] for each in runtime.show()["schemas"]] == ["c"]
    answer = runtime.send("DELETE", f"{runtime.uri}/schemas/a%2Fb")
    assert error_code(answer) == "not_found"
    assert "'c'" in answer.json()["error_description"]


# Who may


EITHER = [
    ("GET", ""),
    ("DELETE", ""),
    ("GET", "/jobs"),
    ("POST", "/jobs"),
    ("POST", "/jobs/{job}/fail"),
    ("DELETE", "/schemas/f"),
]
BODY = {"queryType": "f", "reason": "by hand"}


@pytest.mark.parametrize(("method", "path"), EITHER)
@pytest.mark.parametrize("token", ["module", "bearer"])
def test_a_runtimes_tool_routes_take_its_own_token_or_the_bearer(api: Api, method: str, path: str, token: str) -> None:
    runtime = api.open()
    runtime.post_schemas({"f": {}})
    uri = runtime.uri + path.format(job=runtime.submit())
    headers = runtime.headers if token == "module" else api.bearer
    body = BODY if method == "POST" else None
    assert api.send(method, uri, headers=headers, json=body).status_code in (200, 204)


@pytest.mark.parametrize(("method", "path"), EITHER)
@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("nothing", "invalid_module_auth_token"),
        ("another runtime's token", "invalid_module_auth_token"),
        ("a wrong bearer", "invalid_bearer_token"),
        ("a wrong bearer and the module token", "invalid_bearer_token"),
    ],
)
def test_a_runtimes_tool_routes_refuse_other_tokens(api: Api, method: str, path: str, given: str, code: str) -> None:
    runtime, other = api.open(), api.open("other")
    job_id = runtime.submit()
    wrong = {"Authorization": "Bearer wrong"}
    headers = {
        "nothing": {},
        "another runtime's token": other.headers,
        "a wrong bearer": wrong,
        "a wrong bearer and the module token": {**wrong, **runtime.headers},
    }[given]
    answer = api.send(method, runtime.uri + path.format(job=job_id), headers=headers, json=BODY)
    assert (answer.status_code, error_code(answer)) == (401, code)
    assert runtime.take_id() == job_id


@pytest.mark.parametrize(("method", "path"), EITHER)
def test_an_unknown_runtime_is_told_before_any_token(api: Api, method: str, path: str) -> None:
    answer = api.send(method, f"{RUNTIMES}/unknown{path.format(job='x')}", json=BODY)
    assert (answer.status_code, error_code(answer)) == (404, "not_found")


def test_a_replica_is_added_for_a_program_that_is_started_by_hand(emu: Emulator, api: Api) -> None:
    runtime = api.open()
    answer = api.contour("POST", f"{runtime.uri}/replicas", json={"maxConcurrentTasks": 3}).json()
    environment = answer["environment"]
    assert (environment["MAX_CONCURRENT_TASKS"], answer["folder"]) == ("3", str(emu.files.path))
    token = Path(environment["MODULE_AUTH_TOKEN"]).read_text()
    assert token not in str(answer)
    polled = api.send("GET", f"{PLATFORM}/job", headers={MODULE_HEADER: token})
    assert polled.status_code == 204
    assert api.contour("POST", f"{runtime.uri}/replicas", json={}).json()["environment"]["MAX_CONCURRENT_TASKS"] == "1"


@pytest.mark.parametrize("tasks", [0, -1, 10_001, 1.5, "1", True, [1]])
def test_a_replica_takes_a_whole_number_of_tasks(api: Api, tasks: Any) -> None:
    answer = api.contour("POST", f"{api.open().uri}/replicas", json={"maxConcurrentTasks": tasks})
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request")


def test_the_session_is_exported_as_from_the_notebook(emu: Emulator, api: Api, tmp_path: Path) -> None:
    runtime = api.open(deployed_app_rid=RID, displayName="Ü")
    runtime.post_schemas({"f": {}})
    job_id = api.submit("f", {"x": "\u2028"})
    runtime.take()
    runtime.post_result(job_id, b"\xff")
    exported = api.contour("GET", "/_emulate/export")
    assert exported.headers["Content-Type"] == "application/json"
    assert runtime.session["moduleAuthToken"] not in exported.text
    assert emu.token not in exported.text
    (tmp_path / "run.json").write_bytes(exported.content)
    again, here = (Emulator.from_export(path) for path in (tmp_path / "run.json", emu.export(tmp_path / "here.json")))
    assert again.lifecycle.jobs() == here.lifecycle.jobs()
    assert again.lifecycle.schemas() == here.lifecycle.schemas()
    assert again.lifecycle.deployed_apps() == here.lifecycle.deployed_apps()
    assert again.job(job_id).raw() == b"\xff"


def test_replicas_and_exports_take_the_bearer_only(api: Api) -> None:
    runtime = api.open()
    for headers in ({}, runtime.headers, {"Authorization": "Bearer wrong"}):
        for method, path in (("POST", f"{runtime.uri}/replicas"), ("GET", "/_emulate/export")):
            assert error_code(api.send(method, path, headers=headers, json={})) == "invalid_bearer_token"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_listing_and_resetting_all_take_the_bearer_only(api: Api, method: str) -> None:
    runtime = api.open()
    for headers in ({}, runtime.headers, {"Authorization": "Bearer wrong"}):
        assert error_code(api.send(method, RUNTIMES, headers=headers)) == "invalid_bearer_token"
    assert runtime.poll().status_code == 204


def test_health_and_openapi_need_no_token(api: Api) -> None:
    health = api.send("GET", "/_emulate/health").json()
    assert (health["status"], set(health)) == ("ok", {"status", "id"})
    assert api.send("GET", "/openapi.json").status_code == 200


def test_the_events_are_listed_in_pages_and_of_one_runtime_or_job(emu: Emulator, api: Api) -> None:
    runtime = api.open("app", RID)
    first, second = runtime.submit(), runtime.submit()
    api.open("other")

    def listed(**options: Any) -> tuple[list[int], bool]:
        answer = api.contour("GET", "/_emulate/events", params=options).json()
        return [each["sequence"] for each in answer["events"]], answer["more"]

    every = [each.sequence for each in emu.lifecycle.events.recent()]
    assert listed(limit=10_000) == (every, False)
    assert listed(limit=2) == (every[:2], True)
    assert listed(after=every[1], limit=1) == (every[2:3], True)
    assert listed(newest="true", limit=2) == (every[-2:], True)
    (event,) = api.contour("GET", "/_emulate/events", params={"job": second}).json()["events"]
    assert (event["kind"], event["runtime_id"], event["job_id"]) == ("job_queued", "app", second)
    (event,) = api.contour("GET", "/_emulate/events", params={"runtime": "other", "after": every[-2]}).json()["events"]
    assert event["kind"] == "session_opened"
    assert api.contour("GET", "/_emulate/events", params={"after": "x"}).status_code == 400
    assert api.contour("GET", "/_emulate/events", params={"kind": "x"}).status_code == 400
    assert runtime.send("GET", "/_emulate/events").status_code == 401
    assert first != second


def test_the_log_of_a_job_is_what_its_function_printed(emu: Emulator, api: Api) -> None:
    job_id = api.open("app", RID).submit()
    emu.lifecycle.log(job_id).write("a line\n")
    answer = api.contour("GET", f"/_emulate/jobs/{job_id}/log")
    assert (answer.status_code, answer.json()) == (200, {"job_id": job_id, "log": "a line\n"})
    assert api.contour("GET", "/_emulate/jobs/nobody-s/log").status_code == 404
    assert api.send("GET", f"/_emulate/jobs/{job_id}/log").status_code == 401


# OpenAPI


def test_the_openapi_document_lists_exactly_the_routes_that_are_served(api: Api) -> None:
    document = api.send("GET", "/openapi.json").json()
    described = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    assert described == {(route.method, route.path) for route in ROUTES}
    assert (document["openapi"], document["info"]["version"]) == ("3.1.0", __version__)


def test_every_route_of_the_protocol_is_described(api: Api) -> None:
    runtime = f"{RUNTIMES}/{{runtimeId}}"
    paths = api.send("GET", "/openapi.json").json()["paths"]
    assert {path: set(operations) for path, operations in paths.items()} == {
        RUNTIMES: {"post", "get", "delete"},
        runtime: {"get", "delete"},
        f"{runtime}/job": {"get"},
        f"{runtime}/schemas": {"post"},
        f"{runtime}/schemas/{{functionName}}": {"delete"},
        f"{runtime}/results/{{jobId}}": {"post"},
        f"{runtime}/jobs": {"get", "post"},
        f"{runtime}/jobs/{{jobId}}": {"get"},
        f"{runtime}/jobs/{{jobId}}/fail": {"post"},
        f"{CONTOUR}/compute-modules/jobs/execute": {"post"},
        f"{CONTOUR}/deployed-apps/jobs": {"post"},
        f"{CONTOUR}/jobs/{{jobId}}/result": {"get"},
        f"{CONTOUR}/jobs/{{jobId}}/status": {"get"},
        f"{CONTOUR}/jobs/result/v2": {"put"},
        f"{PLATFORM}/job": {"get"},
        f"{PLATFORM}/results/{{jobId}}": {"post"},
        f"{PLATFORM}/schemas": {"post"},
        f"{PLATFORM}/restart": {"post"},
        f"{runtime}/replicas": {"post"},
        "/_emulate/export": {"get"},
        "/_emulate/health": {"get"},
        "/_emulate/jobs/cancel": {"post"},
        "/_emulate/jobs/{jobId}/diagnosis": {"get"},
        "/_emulate/jobs/{jobId}/log": {"get"},
        "/_emulate/events": {"get"},
        "/_emulate/datasets": {"get"},
        "/_emulate/streams": {"get"},
        "/openapi.json": {"get"},
        "/docs": {"get"},
        "/": {"get"},
        f"{MULTIPASS}/me": {"get"},
        f"{USERS}/getCurrent": {"get"},
        f"{USERS}/{{userId}}": {"get"},
        AUTHORIZE: {"get", "post"},
        f"{OAUTH}/token": {"post"},
        f"{OAUTH}/revoke_token": {"post"},
        f"{DEPLOYED_APPS}/{{deployedAppRid}}/v2": {"get"},
        f"{DEPLOYED_APPS}/{{deployedAppRid}}/{{branch}}/function-schemas": {"get"},
        f"{DEPLOYED_APPS}/{{deployedAppRid}}/{{branch}}/status": {"get"},
        f"{CONTOUR}/jobs": {"delete"},
        f"{CONTOUR}/jobs/{{jobId}}": {"delete"},
        f"{CONTOUR}/jobs/status/v2": {"put"},
        f"{SCRATCH}/cache": {"post"},
        **{f"{SCRATCH}/cache/{what}": {"post"} for what in ("get", "batch-get", "exists", "delete")},
        **{f"{SCRATCH}/lock/{what}": {"post"} for what in ("try-lock", "refresh", "unlock")},
        f"{QUERIES}/getByRid": {"get"},
        f"{QUERIES}/getByRidBatch": {"post"},
        f"{QUERIES}/{{queryApiName}}": {"get"},
        f"{QUERIES}/{{queryApiName}}/execute": {"post"},
        f"{QUERIES}/{{queryApiName}}/executeAsync": {"post"},
        f"{QUERIES}/{{queryApiName}}/streamingExecute": {"post"},
        f"{QUERIES}/{{queryApiName}}/streamingExecuteEvents": {"post"},
        f"{ONTOLOGIES}": {"get"},
        **{f"{ONTOLOGIES}/{{ontology}}{what}": {"get"} for what in ("", "/fullMetadata", "/queryTypes")},
        f"{ONTOLOGIES}/{{ontology}}/queryTypes/getByRidBatch": {"post"},
        f"{ONTOLOGIES}/{{ontology}}/queryTypes/{{queryApiName}}": {"get"},
        f"{ONTOLOGIES}/{{ontology}}/queries/{{queryApiName}}/execute": {"post"},
        f"{ONTOLOGIES_V1}": {"get"},
        **{f"{ONTOLOGIES_V1}/{{ontologyRid}}{what}": {"get"} for what in ("", "/queryTypes")},
        f"{ONTOLOGIES_V1}/{{ontologyRid}}/queryTypes/{{queryApiName}}": {"get"},
        f"{ONTOLOGIES_V1}/{{ontologyRid}}/queries/{{queryApiName}}/execute": {"post"},
        "/ui": {"get"},
        **{f"/ui/{file}": {"get"} for file in ("page.js", "dashboard.js", "page.css", "updates")},
        "/ui/messages": {"post"},
        "/api/v2/streams/datasets/create": {"post"},
        "/api/v2/streams/datasets/{datasetRid}/streams": {"post"},
        "/api/v2/streams/datasets/{datasetRid}/streams/{streamBranchName}": {"get"},
        "/api/v2/streams/datasets/{datasetRid}/streams/{streamBranchName}/reset": {"post"},
        **{
            f"{before}/api/v2/highScale/streams/datasets/{{datasetRid}}/streams/{{streamBranchName}}/{what}": {method}
            for before in ("", "/stream-proxy")
            for method, names in {
                "get": ("getRecords", "getEndOffsets"),
                "post": ("publishRecord", "publishRecords", "publishBinaryRecord"),
            }.items()
            for what in names
        },
        "/api/v2/streams/datasets/{datasetRid}/streams/{streamBranchName}/subscribers": {"post"},
        "/api/v2/streams/datasets/{datasetRid}/streams/{streamBranchName}/subscribers/{subscriberSubscriberId}": {
            "delete"
        },
        **{
            f"{before}/api/v2/highScale/streams/datasets/{{datasetRid}}/streams/{{streamBranchName}}/subscribers/"
            f"{{subscriberSubscriberId}}/{what}": {method}
            for before in ("", "/stream-proxy")
            for what, method in {
                "getReadPosition": "get",
                "readRecords": "post",
                "commitOffsets": "post",
                "resetOffsets": "post",
            }.items()
        },
        "/stream-proxy/api/streams/{datasetRid}/branches/{streamBranchName}/records": {"get"},
        **{
            f"/stream-proxy/api/streams/{{datasetRid}}/{where}/{what}": {"post"}
            for where in ("branches/{streamBranchName}", "views/{viewRid}")
            for what in ("jsonRecord", "jsonRecords")
        },
        DATASETS: {"post"},
        f"{DATASETS}/getSchemaBatch": {"post"},
        f"{DATASETS}/{{datasetRid}}": {"get"},
        f"{DATASETS}/{{datasetRid}}/getSchema": {"get"},
        f"{DATASETS}/{{datasetRid}}/putSchema": {"put"},
        f"{DATASETS}/{{datasetRid}}/readTable": {"get"},
        f"{DATASETS}/{{datasetRid}}/branches": {"get", "post"},
        f"{DATASETS}/{{datasetRid}}/branches/{{branchName}}": {"get", "delete"},
        f"{DATASETS}/{{datasetRid}}/branches/{{branchName}}/transactions": {"get"},
        f"{DATASETS}/{{datasetRid}}/transactions": {"get", "post"},
        f"{DATASETS}/{{datasetRid}}/transactions/{{transactionRid}}": {"get"},
        **{f"{DATASETS}/{{datasetRid}}/transactions/{{transactionRid}}/{end}": {"post"} for end in ("commit", "abort")},
        f"{DATASETS}/{{datasetRid}}/files": {"get"},
        f"{DATASETS}/{{datasetRid}}/files/{{filePath}}": {"get", "delete"},
        f"{DATASETS}/{{datasetRid}}/files/{{filePath}}/content": {"get"},
        f"{DATASETS}/{{datasetRid}}/files/{{filePath}}/upload": {"post"},
        f"{EXECUTIONS}/{{executionId}}/getResult": {"post"},
        f"{EXECUTIONS}/{{executionId}}/cancel": {"post"},
    }


def test_datasets_and_streams_are_listed(api: Api, emu: Emulator) -> None:
    for name in ("first", "second"):
        emu.datasets.create(name)
        emu.streams.create(f"{name} stream", {"n": "LONG"}, partitions=2)
    emu.datasets["second"] = [{"n": 1}]
    opened = emu.change(lambda state: state.open_transaction(emu.datasets["first"].rid, TransactionType.APPEND)).rid
    emu.streams["second stream"].publish({"n": 1})
    answer = api.contour("GET", "/_emulate/datasets").json()
    first, second = answer["datasets"]
    assert (first["open_transactions"], first["rows"], first["committed_at"], answer["more"]) == (
        [opened],
        0,
        None,
        False,
    )
    assert (second["schema"], second["rows"], second["columns"], second["files"]) == ("n LONG", 1, 1, 1)
    assert second["committed_at"] > 1_700_000_000_000
    (newest,) = api.contour("GET", "/_emulate/streams", params={"limit": 1}).json()["streams"]
    assert (newest["name"], newest["branch"], newest["records"]) == ("second stream", "master", 1)
    assert newest["end_offsets"] == [1, 0]
    assert api.contour("GET", "/_emulate/streams", params={"limit": 1}).json()["more"]
    for path in ("datasets", "streams"):
        assert api.contour("GET", f"/_emulate/{path}", params={"limit": 0}).status_code == 400
        assert api.send("GET", f"/_emulate/{path}").status_code == 401
    emu.reset()


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("post", RUNTIMES, "200 400 403 409 413 429 503"),
        ("get", f"{RUNTIMES}/{{runtimeId}}/job", "200 204 400 401 403 404 503"),
        ("post", f"{RUNTIMES}/{{runtimeId}}/schemas", "204 400 401 403 404 413 500 503"),
        ("post", f"{RUNTIMES}/{{runtimeId}}/results/{{jobId}}", "204 400 401 403 404 409 410 413 500 503"),
        ("get", f"{RUNTIMES}/{{runtimeId}}/jobs/{{jobId}}", "200 400 403 404 410 503"),
        ("post", f"{CONTOUR}/compute-modules/jobs/execute", "200 400 401 403 404 413 429 500 503 504"),
        ("post", f"{CONTOUR}/deployed-apps/jobs", "200 400 401 403 404 413 429 503"),
        ("get", f"{CONTOUR}/jobs/{{jobId}}/status", "200 400 401 403 404 410 429 500 503"),
        ("get", f"{RUNTIMES}/{{runtimeId}}/jobs", "200 400 401 403 404 410 503"),
        ("post", f"{RUNTIMES}/{{runtimeId}}/replicas", "200 400 401 403 404 413 503"),
        ("get", "/_emulate/export", "200 400 401 403 503"),
        ("post", "/_emulate/jobs/cancel", "200 400 401 403 404 410 413 503"),
        ("get", "/_emulate/jobs/{jobId}/diagnosis", "200 400 401 403 404 410 503"),
        ("get", "/_emulate/jobs/{jobId}/log", "200 400 401 403 404 410 503"),
        ("get", "/_emulate/events", "200 400 401 403 503"),
        ("get", "/_emulate/datasets", "200 400 401 403 503"),
        ("get", "/_emulate/streams", "200 400 401 403 503"),
        ("delete", f"{CONTOUR}/jobs", "204 400 401 403 404 410 413 429 503"),
        ("delete", f"{CONTOUR}/jobs/{{jobId}}", "204 400 401 403 404 410 429 503"),
        ("put", f"{CONTOUR}/jobs/status/v2", "200 400 401 403 404 410 413 429 500 503"),
        ("put", f"{CONTOUR}/jobs/result/v2", "200 400 401 403 404 409 410 413 429 500 503"),
    ],
)
def test_the_statuses_of_a_route_are_described(api: Api, method: str, path: str, statuses: str) -> None:
    operation = api.send("GET", "/openapi.json").json()["paths"][path][method]
    assert " ".join(operation["responses"]) == statuses
    assert {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"} == set(
        path.replace("}", "{").split("{")[1::2]
    )


def test_every_answer_has_a_described_content(api: Api) -> None:
    document = api.send("GET", "/openapi.json").json()
    described = {
        (method.upper(), path): each for path, item in document["paths"].items() for method, each in item.items()
    }
    for route in ROUTES:
        for status, answer in described[route.method, route.path]["responses"].items():
            kinds = list(answer.get("content", {}))
            result = [route.media, *route.other_media] if route.answer is None else ["application/json"]
            assert kinds == {"200": result, "204": [], "303": result}.get(status, ["application/json"])
    options = {
        each["name"]: each["schema"] for each in described["GET", f"{RUNTIMES}/{{runtimeId}}/jobs"]["parameters"]
    }
    assert options["status"]["enum"] == ["queued", "running", "succeeded", "failed"]
    assert (options["limit"]["minimum"], options["limit"]["maximum"], options["limit"]["default"]) == (1, 10_000, 100)


def test_head_is_answered_wherever_get_is(emu: Emulator, api: Api) -> None:
    runtime = api.open(deployed_app_rid=RID)
    job_id = api.submit()
    runtime.post_schemas({"f": {}})
    headers = {**api.bearer, MODULE_HEADER: runtime.headers[MODULE_HEADER]}
    rid = api.send("GET", f"{QUERIES}/f", headers=headers).json()["rid"]
    dataset = emu.change(lambda lifecycle: prepared_dataset(lifecycle, ""))
    stream = emu.streams.create("readings", {"celsius": "DOUBLE"}).rid
    emu.change(lambda state: state.create_subscriber(stream, "master", "alerts", {"type": "earliest"}, (0,)))
    of_stream = {"datasetRid": stream, "streamBranchName": "master", "subscriberSubscriberId": "alerts"}
    for route in ROUTES:
        if route.method == "GET":
            real = {"runtimeId": runtime.runtime_id, "jobId": job_id, "queryApiName": "f", "userId": "cmemu"}
            real |= {"deployedAppRid": RID, "branch": "master", **dataset}
            real |= of_stream if "streams" in route.path else {}
            path = route.path.format(**real, ontology="any", ontologyRid="ri.any")
            options = {
                **(examples.SIGN_IN if path == AUTHORIZE else {}),
                **({"rid": rid} if "rid" in route.query else {}),
                **({"format": "CSV"} if "format" in route.query else {}),
                **({"partitionId": "0", "limit": "1"} if "partitionId" in route.query else {}),
            }
            answer = api.send("HEAD", path, headers=headers, params=options)
            assert answer.status_code in (200, 204)
            assert answer.content == b""
