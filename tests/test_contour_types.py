"""The contour and deployed-app routes, called as Palantir's npm packages do, and checked against Palantir's own types.

`@osdk/client.unstable` has the types of these routes. The published package declares their functions without the code;
`conjure-lite`, with which these make their requests, calls the same paths here.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from client import RID, SUBMIT, Api, eventually
from conftest import serving
from environments import node_modules, program
from test_official_sdks import PROGRAMS

from cmemu_nb.errors import JobFailed, NotFound
from cmemu_nb.lifecycle.scaling import Scale

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cmemu_nb import Emulator

    Serve = Callable[..., AbstractContextManager[Emulator]]

pytestmark = [pytest.mark.once, pytest.mark.long_lived]

TYPES = "./node_modules/@osdk/client.unstable/build/types/generated/module-group/__components.js"
# The page has two more members in the answer to a submission than the type.
JOB = "Job & { jobHandle: string; persistJobResult: null }"
SUBMITTED = {"deployedAppRid": RID, "deployedAppBranch": "master", "queryType": "add", "query": {"x": 1}}
JOBS = "/module-group-multiplexer/jobs"
SUBMIT_PATH = "/module-group-multiplexer/deployed-apps/jobs"
CANCELLED = "cancelled: by a client of the contour routes"
APP = f"/deployed-apps/{RID}"
SCHEMA = {"inputs": [{"name": "x", "required": True, "dataType": {"type": "integer", "integer": {}}}], "output": {}}


class Client:
    """A Node program that calls the emulator with `conjure-lite`; it keeps each answer for the type checker."""

    def __init__(self, folder: Path, node: subprocess.Popen[str]) -> None:
        self.folder = folder
        self.answers: list[tuple[str, Any]] = []
        self._node = node

    def answer(self, method: str, path: str, body: Any = None, **params: str) -> Any:
        call = {"method": method, "path": path, "params": params} | ({} if body is None else {"body": body})
        assert self._node.stdin is not None
        assert self._node.stdout is not None
        print(json.dumps(call), file=self._node.stdin, flush=True)
        return json.loads(self._node.stdout.readline())

    def call(self, kind: str, method: str, path: str, body: Any = None, **params: str) -> Any:
        value = self.answer(method, path, body, **params)["value"]
        self.answers.append((kind, value))
        return value

    def mistyped(self) -> list[str]:
        """Let the TypeScript compiler check that every answer has its type, and return its errors."""
        names = "ComputeModuleStatus, GetDeployedAppResponse, Job, JobStatus, QueryRunnerSchema"
        lines = [
            f"export const answer{number}: {kind} = {json.dumps(value)};"
            for number, (kind, value) in enumerate(self.answers)
        ]
        text = "\n".join([f"import type {{ {names} }} from {json.dumps(TYPES)};", *lines])
        (self.folder / "answers.ts").write_text(text)
        tsc = [str(program("nodejs")), "node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--skipLibCheck"]
        tsc += ["--module", "nodenext", "--lib", "es5", "answers.ts"]
        done = subprocess.run(tsc, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False)
        assert done.stderr == ""
        return done.stdout.splitlines()


@pytest.fixture
def emu() -> Iterator[Emulator]:
    with serving(contour="foundry") as emulator:
        yield emulator
        emulator.reset()


@pytest.fixture
def client(emu: Emulator, tmp_path: Path) -> Iterator[Client]:
    (tmp_path / "node_modules").symlink_to(node_modules() / "node_modules")
    (tmp_path / "client.mjs").write_text((PROGRAMS / "conjure_client.mjs").read_text())
    command = [str(program("nodejs")), "client.mjs", emu.url, emu.token]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        yield Client(tmp_path, node)
        assert node.stdin is not None
        node.stdin.close()
        assert node.wait(30) == 0


def status_of(client: Client, job: dict[str, Any]) -> Any:
    """Return a job's status; the job in the body and its id in the path have the same answer."""
    by_path = client.answer("GET", f"{JOBS}/{job['id']}/status")["value"]
    named = client.call("JobStatus", "PUT", f"{JOBS}/status/v2", {name: job[name] for name in ("id", "status")})
    assert named == by_path
    return named


def test_a_job_has_the_status_that_palantir_types(api: Api, client: Client) -> None:
    runtime = api.open("my-runtime", RID)
    done, failed, running, queued = (client.call(JOB, "POST", SUBMIT_PATH, SUBMITTED) for _ in range(4))
    assert status_of(client, done) == done["status"] == {"type": "queued", "queued": {"queueInfo": "NORMAL_OPERATION"}}
    assert runtime.take_id() == done["id"]
    progress = {"approxNumTasks": None, "completedTasks": 0, "metadata": None}
    assert status_of(client, done) == {"type": "inProgress", "inProgress": progress}
    runtime.post_result(done["id"], b"1")
    assert status_of(client, done)["type"] == "succeeded"
    assert client.answer("PUT", f"{JOBS}/result/v2", done) == {"value": "1"}
    runtime.fail(failed["id"], "no more fuel")
    error = status_of(client, failed)["failed"]["exception"]
    assert (error["message"], error["errorType"]) == ("no more fuel", {"code": "INTERNAL", "name": "Contour:JobFailed"})
    assert error == status_of(client, failed)["failed"]["exception"]
    assert runtime.take_id() == running["id"]
    for job in (queued, running, running):
        assert client.answer("DELETE", JOBS, job) == {"value": None}
        assert status_of(client, job)["canceled"]["exception"]["message"] == CANCELLED
        assert (runtime.job(job["id"])["status"], runtime.job(job["id"])["error_message"]) == ("failed", CANCELLED)
    assert client.answer("DELETE", JOBS, done) == {"value": None}
    assert status_of(client, done)["type"] == "succeeded"
    client.answers.append(("JobStatus", {"type": "running", "running": {}}))  # the only one that is not typed so
    (mistyped,) = client.mistyped()
    assert '"running"' in mistyped


def test_a_deployed_app_has_the_members_that_palantir_types(emu: Emulator, api: Api, client: Client) -> None:
    runtime = api.open("my-runtime", RID)

    def replicas() -> Any:
        status = client.call("ComputeModuleStatus", "GET", f"{APP}/master/status")
        found = status["currentReplicaSet"]
        assert status["scalingConfig"] == {"maxNumModules": 1, "minNumModules": 1}
        assert len(found["replicas"]) == found["totalReplicas"] == 1
        return found["state"], found["responsiveReplicas"], found["replicas"][0]["state"]["state"]

    assert replicas() == ("STARTING", 0, "STARTING")
    runtime.poll()
    assert replicas() == ("ACTIVE", 1, "RESPONSIVE")
    emu.env("my-runtime")  # a replica that has not polled
    assert replicas() == ("STARTING", 0, "STARTING")
    app = client.call("GetDeployedAppResponse", "GET", f"{APP}/v2")
    assert app["deployedAppRid"] == RID
    scaling = app["runtimeParameters"]["runtimeParamsV1"]["scalingConfig"]
    assert scaling == {"minReplicas": 1, "maxReplicas": 1, "concurrencyLimit": 1}

    emu.change(lambda lifecycle: lifecycle.set_scale("my-runtime", Scale(1, 0, 4), "a test"))
    (replica,) = emu.lifecycle.replicas("my-runtime")
    emu.change(lambda lifecycle: lifecycle.drain_replica(replica))
    status = client.call("ComputeModuleStatus", "GET", f"{APP}/master/status")
    assert status["scalingConfig"] == {"maxNumModules": 4, "minNumModules": 0}
    (found,) = status["currentReplicaSet"]["replicas"]
    assert found["state"] == {"state": "DECOMMISSIONED", "reason": ["SCALING_STRATEGY"]}
    emu.change(lambda lifecycle: lifecycle.remove_replica(replica, "a test"))
    found = client.call("ComputeModuleStatus", "GET", f"{APP}/master/status")["currentReplicaSet"]
    assert (found["state"], found["configuredMaxModules"], found["replicas"]) == ("ACTIVE", 4, [])

    path = f"{APP}/master/function-schemas"
    assert client.call("QueryRunnerSchema[]", "GET", path) == []
    runtime.post_schemas([{"functionName": "add", "schema": SCHEMA}, {"functionName": "odd", "schema": 1}])
    add, odd = client.call("QueryRunnerSchema[]", "GET", path, schemaType="FUNCTIONS")
    assert add == {"functionName": "add", **SCHEMA, "issues": [], "ontologyProvenance": None}
    assert (odd["inputs"], odd["output"], odd["issues"]) == ([], None, ["CANNOT_PARSE_INPUTS", "CANNOT_PARSE_OUTPUT"])
    runtime.post_schemas([{"functionName": "odd", "schema": {"inputs": {}, "output": None}}])
    odd = client.call("QueryRunnerSchema[]", "GET", path)[1]
    assert (odd["inputs"], odd["output"], odd["issues"]) == ([], None, ["CANNOT_PARSE_INPUTS"])
    assert client.call("QueryRunnerSchema[]", "GET", path, schemaType="OPENAPI") == []
    assert client.answer("GET", path, schemaType="PROTO")["error"]["errorName"] == "Contour:InvalidRequest"
    assert client.answer("GET", f"{APP}/other/status")["status"] == 404
    client.answers.append(("GetDeployedAppResponse", {**app, "more": 1}))  # the only one that is not typed so
    (mistyped,) = client.mistyped()
    assert "'\"more\"' does not exist" in mistyped


def test_a_schema_that_is_nested_too_deeply_has_issues(emu: Emulator, api: Api) -> None:
    api.open("my-runtime", RID)
    # A journal may have one from where deeper recursion was possible.
    schema = b'{"functionName": "deep", "output": 1, "inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    emu.change(lambda lifecycle: lifecycle.post_schemas("my-runtime", [("deep", schema)]))
    answer = api.contour("GET", f"/contour-backend-multiplexer/api{APP}/master/function-schemas")
    assert answer.status_code == 200, answer.text
    (deep,) = answer.json()
    assert (deep["inputs"], deep["issues"]) == ([], ["CANNOT_PARSE_INPUTS", "CANNOT_PARSE_OUTPUT"])


def test_errors_have_the_envelope_of_foundry_and_the_other_clients_read_them(
    emu: Emulator, api: Api, client: Client
) -> None:
    api.open("my-runtime", RID)
    unknown = client.answer("PUT", f"{JOBS}/status/v2", {"id": "foundry_job_0"})
    assert unknown["status"] == 404
    assert (unknown["error"]["errorCode"], unknown["error"]["errorName"]) == ("NOT_FOUND", "Contour:NotFound")
    assert "There is no job 'foundry_job_0'" in unknown["error"]["errorDescription"]
    job = client.answer("POST", SUBMIT_PATH, SUBMITTED)["value"]
    early = client.answer("PUT", f"{JOBS}/result/v2", job)
    assert (early["status"], early["error"]["errorName"]) == (409, "Contour:JobNotReady")
    refused = api.send("POST", SUBMIT, json=SUBMITTED)
    assert (refused.status_code, refused.json()["errorName"]) == (401, "Contour:InvalidBearerToken")
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    missing = client.answer("GET", "/deployed-apps/ri.none/v2")["error"]
    assert (missing["errorName"], missing["parameters"]) == ("Contour:NotFound", {})
    # Only these routes have these words.
    assert api.send("GET", "/nowhere").json()["error"] == "not_found"
    handle = emu.job(job["id"])
    with pytest.raises(TimeoutError):
        handle.result(timeout=0.05)
    client.answer("DELETE", JOBS, job)
    with pytest.raises(JobFailed, match=CANCELLED):
        handle.result()
    with pytest.raises(NotFound):
        emu.call("add", {}, deployed_app_rid="ri.none")


def test_cancelling_a_running_job_frees_the_slot_of_its_function(serve: Serve, gate: threading.Event) -> None:
    with serve(max_concurrent_tasks=1) as emulator:

        def wait(context, event):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202, ARG001 - as the SDK wants it
            while not gate.wait(0.01):
                pass
            return event["x"]

        emulator.function(wait)
        api, app = Api(emulator.url, emulator.token), "ri.foundry.main.deployed-app.notebook"
        body = {"deployedAppRid": app, "queryType": "wait", "query": {"x": 1}}
        first, second = (api.contour("POST", SUBMIT, json=body).json() for _ in range(2))
        eventually(lambda: api.status(first["id"])["type"] == "running", "the first job runs")
        assert api.status(second["id"])["type"] == "queued"
        assert api.contour("DELETE", SUBMIT.replace("/deployed-apps", ""), json=first).status_code == 204
        assert api.status(first["id"]) == {"type": "failed", "failed": {"message": CANCELLED}}
        eventually(lambda: api.status(second["id"])["type"] == "running", "the second job has the slot")
        gate.set()
        assert api.result(second["id"], wait=30).content == b"1"
        emulator.reset()
