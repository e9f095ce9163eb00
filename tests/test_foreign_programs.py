"""Programs that know the emulator by its page alone: curl, and an executor in Node."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from client import CONTOUR, EXECUTE, MODULE_HEADER, RESULT, RID, RUNTIMES, SUBMIT, Api, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from cmemu_nb import Emulator

pytestmark = pytest.mark.once

EXECUTOR = Path(__file__).parent / "foreign" / "executor.mjs"
SCHEMA = {"type": "object", "properties": {"input": {"type": "string"}}}


# curl


def curl(*arguments: str) -> tuple[int, bytes]:
    """Run curl and return the status and the body of the answer."""
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--write-out", "%{stderr}%{http_code}", *arguments]
    done = subprocess.run(command, capture_output=True, check=True)
    return int(done.stderr), done.stdout


def curl_json(*arguments: str) -> Any:
    status, body = curl(*arguments)
    assert status == 200
    return json.loads(body)


def open_session(url: str) -> tuple[dict[str, str], list[str]]:
    body = {"runtimeId": "my-runtime", "deployedAppRid": RID, "branch": "master", "displayName": "My App"}
    content_type = "Content-Type: application/json"
    session = curl_json("-X", "POST", url + RUNTIMES, "-H", content_type, "-d", json.dumps(body))
    return session, ["-H", f"{MODULE_HEADER}: {session['moduleAuthToken']}"]


def test_curl_goes_through_the_whole_lifecycle(emu: Emulator) -> None:
    session, token = open_session(emu.url)
    bearer = ["-H", f"Authorization: Bearer {emu.token}"]
    assert curl(session["getJobUri"], *token) == (204, b"")
    call = json.dumps({"deployedAppRid": RID, "queryType": "myFunction", "query": {"input": "value"}})
    job_id = curl_json("-X", "POST", emu.url + SUBMIT, *bearer, "-d", call)["id"]
    status_uri = f"{emu.url}{CONTOUR}/jobs/{job_id}/status"
    assert curl_json(status_uri, *bearer)["type"] == "queued"
    envelope = curl_json(session["getJobUri"], *token)
    job = {"jobId": job_id, "queryType": "myFunction", "query": {"input": "value"}}
    assert envelope == {"type": "computeModuleJobV1", "computeModuleJobV1": job}
    assert curl_json(status_uri, *bearer)["type"] == "running"
    result = '{"output": "computed value"}'
    posted = [f"{session['postResultUri']}/{job_id}", *token, "-H", "Content-Type: application/octet-stream"]
    assert curl("-X", "POST", *posted, "-d", result) == (204, b"")
    state = curl_json(f"{emu.url}{RUNTIMES}/my-runtime/jobs/{job_id}")
    assert (state["job"]["status"], state["job"]["result_body_utf8"]) == ("succeeded", result)
    assert state["runtime"]["connected"] is True
    assert curl("-X", "PUT", emu.url + RESULT, *bearer, "-d", json.dumps({"id": job_id})) == (200, result.encode())


@pytest.mark.parametrize(
    "schemas",
    [
        [{"functionName": "myFunction", "schema": SCHEMA}],
        {"functions": [{"functionName": "myFunction", "schema": SCHEMA}]},
        {"myFunction": SCHEMA},
    ],
)
def test_curl_posts_schemas_in_each_format_of_the_page(emu: Emulator, schemas: Any) -> None:
    session, token = open_session(emu.url)
    content_type = "Content-Type: application/json"
    posted = curl("-X", "POST", session["postSchemaUri"], *token, "-H", content_type, "-d", json.dumps(schemas))
    assert posted == (204, b"")
    (schema,) = curl_json(f"{emu.url}{RUNTIMES}/my-runtime", *token)["schemas"]
    assert (schema["function_name"], schema["schema_payload"]) == ("myFunction", SCHEMA)


def test_curl_waits_for_the_result_of_a_sync_execute(
    emu: Emulator, background: Callable[..., Future[tuple[int, bytes]]]
) -> None:
    session, token = open_session(emu.url)
    call = json.dumps({"deployedAppRid": RID, "queryType": "f"})
    bearer = f"Authorization: Bearer {emu.token}"
    executed = background(curl, "-X", "POST", emu.url + EXECUTE, "-H", bearer, "-d", call)
    envelope = curl_json(session["getJobUri"], *token, "-H", "Prefer: wait=30")
    job_id = envelope["computeModuleJobV1"]["jobId"]
    assert curl(f"{session['postResultUri']}/{job_id}", *token, "--data-binary", "\x01é\n")[0] == 204
    assert executed.result() == (200, "\x01é\n".encode())


def test_curl_with_a_wrong_token_gets_the_pages_answer(emu: Emulator) -> None:
    session, _ = open_session(emu.url)
    for header in ([], ["-H", f"{MODULE_HEADER}: wrong"]):
        status, body = curl(session["getJobUri"], *header)
        assert status == 401
        assert json.loads(body) == {
            "error": "invalid_module_auth_token",
            "error_description": "The Module-Auth-Token header is invalid.",
        }


# Node


@pytest.fixture
def node_executor(api: Api) -> Iterator[None]:
    """An executor in Node, polling."""
    command = ["node", str(EXECUTOR), api.url, "node-runtime", RID]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        eventually(lambda: process.poll() is not None or connected(api), "the executor polls")
        yield
        still_polling = process.poll() is None
        process.terminate()
        assert process.stderr is not None
        assert (still_polling, process.stderr.read()) == (True, b"")


def connected(api: Api) -> bool:
    runtimes = api.contour("GET", RUNTIMES).json()["runtimes"]
    return any(runtime["connected"] for runtime in runtimes)


def calls() -> list[tuple[str, Any, Any]]:
    """Return 50 calls as function, query and the right result."""
    adding = [("add", {"x": number, "y": number * 10**9}, number * (10**9 + 1)) for number in range(20)]
    texts = [f"{number} é 😀 <script>\n" for number in range(15)]
    words = [[str(number % divisor) for number in range(10)] for divisor in range(1, 16)]
    return [
        *adding,
        *(("reverse", {"text": text}, text[::-1]) for text in texts),
        *(("count", {"words": each}, dict(Counter(each))) for each in words),
    ]


@pytest.mark.usefixtures("node_executor")
def test_an_executor_in_node_computes_fifty_submitted_jobs(api: Api) -> None:
    submitted = [(api.submit(function, query), right) for function, query, right in calls()]
    assert len(submitted) == 50
    for job_id, right in submitted:
        assert api.result(job_id, wait=30).json() == right


@pytest.mark.usefixtures("node_executor")
def test_an_executor_in_node_answers_fifty_sync_clients(api: Api, background: Callable[..., Future[Any]]) -> None:
    answers = [(background(api.execute, function, query), right) for function, query, right in calls()]
    for answer, right in answers:
        assert answer.result().json() == right
    schemas = api.contour("GET", f"{RUNTIMES}/node-runtime").json()["schemas"]
    assert [schema["function_name"] for schema in schemas] == ["add", "count", "reverse"]
