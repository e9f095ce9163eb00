"""What anybody can have an emulator keep: labels have a limit, and what is kept is counted in bytes.

The client and the emulator are in one process, whose memory is measured with tracemalloc: what is still there when the
requests are answered is what the emulator keeps. The long form sends what was measured first, names of 10 MB.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import time
import tracemalloc
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from client import CONTOUR, EXECUTE, RESULT, RID, RUNTIMES, SUBMIT, Api, Wire, error_code, eventually
from conftest import TOKEN, serving

from cmemu_nb import Emulator
from cmemu_nb.errors import InvalidRequest
from cmemu_nb.executors.modules.logs import ModuleLogs, read_line
from cmemu_nb.lifecycle.job_log import JobLog
from cmemu_nb.server.http import LINGER_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmemu_nb.lifecycle.events import Event

pytestmark = pytest.mark.once

MB = 1_000_000
KEEP_BYTES = MB
LONG = "CMEMU_LONG" in os.environ
COUNT, SIZE = (60, 10 * MB) if LONG else (5, MB)
# What fits in a request's head, which has at most 64 KB.
HEAD_COUNT, HEAD_SIZE = (1000, 60_000) if LONG else (45, 60_000)
# The budget itself, and what the client, the server and pytest keep for themselves.
MAX_GROWTH = 2 * KEEP_BYTES
NUMBERS = itertools.count()


class Target:
    """An emulator with a runtime, whose job is there to be failed."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.api = Api(emulator.url, TOKEN)
        self.runtime = self.api.open("r", RID)
        kind = {"type": "integer", "integer": {}}
        self.runtime.post_schemas([{"functionName": "f", "inputs": [{"name": "x", "dataType": kind}]}])
        self.job_id = self.runtime.submit()
        self.runtime.take()

    def post(self, path: str, body: Any) -> int:
        return self.api.contour("POST", path, json=body).status_code

    def wire(self, method: str, path: str, **headers: str) -> int:
        with Wire(self.emulator.port) as wire:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            wire.request(method, path, {**self.api.bearer, **self.runtime.headers, **fields})
            return wire.answer().status


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with serving(keep_bytes=KEEP_BYTES, execute_timeout=0.01) as emulator:
        tracemalloc.start(1)
        yield emulator
        tracemalloc.stop()


@pytest.fixture
def target(emulator: Emulator) -> Iterator[Target]:
    yield Target(emulator)
    emulator.reset()


def kept() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def growth(attack: Callable[[Target, str], int], target: Target, count: int, size: int) -> tuple[int, set[int]]:
    """Return how many bytes more are kept after some requests, each with a long text of its own; and their statuses."""
    attack(target, "short")
    before = kept()
    statuses = {attack(target, f"{next(NUMBERS)}-".ljust(size, "x")) for _ in range(count)}
    # A connection whose body was refused is read for two seconds more.
    end = time.monotonic() + LINGER_SECONDS + 1
    while (grown := kept() - before) > MAX_GROWTH and time.monotonic() < end:
        time.sleep(0.1)
    return grown, statuses


def schemas(target: Target, text: str) -> int:
    return target.runtime.post_schemas([{"functionName": text, "inputs": []}]).status_code


IN_BODIES: dict[str, Callable[[Target, str], int]] = {
    "the id of a runtime": lambda to, text: to.post(RUNTIMES, {"runtimeId": text}),
    "the app of a runtime": lambda to, text: to.post(RUNTIMES, {"runtimeId": "q", "deployedAppRid": text}),
    "the branch of a runtime": lambda to, text: to.post(
        RUNTIMES, {"runtimeId": "q", "deployedAppRid": "a", "branch": text}
    ),
    "the display name of a runtime": lambda to, text: to.post(RUNTIMES, {"runtimeId": text[:20], "displayName": text}),
    "the function of a schema": schemas,
    "the function of an execute": lambda to, text: to.post(EXECUTE, {"deployedAppRid": RID, "queryType": text}),
    "the function of a submission": lambda to, text: to.post(SUBMIT, {"deployedAppRid": RID, "queryType": text}),
    "the app of a submission": lambda to, text: to.post(SUBMIT, {"deployedAppRid": text, "queryType": "f"}),
    "the branch of a submission": lambda to, text: to.post(
        SUBMIT, {"deployedAppRid": RID, "deployedAppBranch": text, "queryType": "f"}
    ),
    "the function of a direct submission": lambda to, text: to.post(f"{to.runtime.path}/jobs", {"queryType": text}),
    "the reason of a failure": lambda to, text: to.post(
        f"{to.runtime.path}/jobs/{to.runtime.submit()}/fail", {"reason": text}
    ),
    "the reason of a cancellation": lambda to, text: to.post(
        "/_emulate/jobs/cancel", {"jobs": to.runtime.submit(), "reason": text}
    ),
    "the job of a cancellation": lambda to, text: to.post("/_emulate/jobs/cancel", {"jobs": text}),
    "the job of a result": lambda to, text: to.api.contour("PUT", RESULT, json={"id": text}).status_code,
    "a version of a query": lambda to, text: to.post(
        "/api/v2/functions/queries/f/execute", {"parameters": {}, "version": text}
    ),
    "a parameter of a query": lambda to, text: to.post(
        "/api/v2/functions/queries/f/execute", {"parameters": {text: 1}}
    ),
    "a branch of a query": lambda to, text: to.post(
        "/api/v2/functions/queries/f/execute", {"parameters": {}, "branch": text}
    ),
}
IN_HEADS: dict[str, Callable[[Target, str], int]] = {
    "an unknown route": lambda to, text: to.wire("GET", f"/{text}"),
    "a method": lambda to, text: to.wire(text.upper().replace("-", ""), "/_emulate/health"),
    "the runtime of a poll": lambda to, text: to.wire("GET", f"{RUNTIMES}/{text}/job"),
    "the job of a result": lambda to, text: to.wire("POST", f"{to.runtime.path}/results/{text}"),
    "the job of a status": lambda to, text: to.wire("GET", f"{CONTOUR}/jobs/{text}/status"),
    "the job of a diagnosis": lambda to, text: to.wire("GET", f"/_emulate/jobs/{text}/diagnosis"),
    "the function of a schema": lambda to, text: to.wire("DELETE", f"{to.runtime.path}/schemas/{text}"),
    "an option of a list": lambda to, text: to.wire("GET", f"{to.runtime.path}/jobs?{text}=1"),
    "the function of a query": lambda to, text: to.wire("GET", f"/api/v2/functions/queries/{text}"),
    "the rid of a query": lambda to, text: to.wire("GET", f"/api/v2/functions/queries/getByRid?rid={text}"),
    "a host": lambda to, text: to.wire("GET", "/_emulate/health", Host=text),
    "an origin": lambda to, text: to.wire("GET", "/_emulate/health", Origin=text),
    "a content type": lambda to, text: to.wire(
        "POST", f"{to.runtime.path}/results/{running_job(to)}", Content_Type=text
    ),
    "a content type of a stream": lambda to, text: post_stream(to, content_type=text),
}


def running_job(target: Target) -> str:
    target.runtime.submit()
    return target.runtime.take_id()


def post_stream(target: Target, content_type: str) -> int:
    job_id = running_job(target)
    with Wire(target.emulator.port) as wire:
        headers = {**target.runtime.headers, "Transfer-Encoding": "chunked", "Content-Type": content_type}
        wire.request("POST", f"{target.runtime.path}/results/{job_id}", headers)
        wire.send_chunk(b"1")
        wire.send_chunk(b"")
        return wire.answer().status


@pytest.mark.parametrize("where", IN_BODIES)
def test_long_texts_in_bodies_are_not_kept(where: str, target: Target) -> None:
    grown, statuses = growth(IN_BODIES[where], target, COUNT, SIZE)
    assert statuses <= {400, 404}
    assert grown < MAX_GROWTH


@pytest.mark.parametrize("where", IN_HEADS)
def test_long_texts_in_heads_are_not_kept(where: str, target: Target) -> None:
    grown, statuses = growth(IN_HEADS[where], target, HEAD_COUNT, HEAD_SIZE)
    assert statuses <= {400, 403, 404, 405}
    assert grown < MAX_GROWTH


def test_labels_as_long_as_they_may_be_are_kept_within_the_budget(target: Target) -> None:
    before = kept()
    for _ in range(1000 if LONG else 150):
        job_id = target.runtime.submit(f"{next(NUMBERS)}-".ljust(4096, "x"))
        assert target.runtime.fail(job_id, "y" * 4096).status_code == 204
    eventually(lambda: not target.emulator.lifecycle.keeps_more_than(10**9, KEEP_BYTES), "the oldest were let go")
    assert kept() - before < MAX_GROWTH
    assert target.runtime.show()["runtime"]["evicted_jobs"] > 20


def test_who_sends_a_long_label_is_told_the_setting_the_length_and_what_to_do(target: Target) -> None:
    text = "ü" * 2049
    lifecycle, headers = target.emulator.lifecycle, target.runtime.headers
    for what, path, body in (
        ("query type", f"{target.runtime.path}/jobs", {"queryType": text}),
        ("query type", SUBMIT, {"deployedAppRid": RID, "queryType": text}),
        ("deployed app RID", RUNTIMES, {"runtimeId": "q", "deployedAppRid": text}),
        ("branch", RUNTIMES, {"runtimeId": "q", "deployedAppRid": "a", "branch": text}),
        ("display name", RUNTIMES, {"runtimeId": "q", "displayName": text}),
        ("reason", f"{target.runtime.path}/jobs/{target.job_id}/fail", {"reason": text}),
        ("reason", "/_emulate/jobs/cancel", {"jobs": "all", "reason": text}),
    ):
        answer = target.api.contour("POST", path, json=body)
        assert (answer.status_code, error_code(answer)) == (400, "invalid_request")
        assert answer.json()["error_description"] == (
            f"The {what} has 4,098 bytes, and max_label_bytes allows 4,096. Use a shorter one, or start the emulator "
            "with a larger max_label_bytes."
        )
    answer = target.runtime.post_schemas([{"functionName": "fine"}, {"functionName": text}])
    assert "The function name has 4,098 bytes" in answer.json()["error_description"]
    assert [each.function_name for each in lifecycle.schemas("r")] == ["f"]
    assert [each.runtime_id for each in lifecycle.runtimes()] == ["r"]
    lifecycle.authenticate("r", headers["Module-Auth-Token"])  # the session is as it was
    assert target.runtime.submit(text[:2048])
    with pytest.raises(InvalidRequest, match="max_label_bytes allows 4,096"):
        target.emulator.open_runtime("q", display_name=text)


def test_the_limit_is_a_setting_that_a_start_changes() -> None:
    with Emulator(port=0, home="thread", max_label_bytes=256) as emulator:
        emulator.open_runtime("r", deployed_app_rid=RID)
        with pytest.raises(InvalidRequest, match="The query type has 300 bytes, and max_label_bytes allows 256"):
            emulator.submit("f" * 300, {})
        emulator.stop()
        emulator.start(max_label_bytes=300)
        assert emulator.submit("f" * 300, {}).record.query_type == "f" * 300


def test_messages_show_the_beginning_of_what_they_repeat(target: Target) -> None:
    long = "n" * 50_000
    told: list[Event] = []
    target.emulator.lifecycle.events.subscribe(told.append)
    for number in range(12):
        target.api.open(f"{number}{'r' * 900}")
        target.runtime.post_schemas([{"functionName": f"{number}{'s' * 4000}"}])
    told.clear()
    descriptions = [
        target.api.contour(method, path).json()
        for method, path in (
            ("GET", f"{RUNTIMES}/{long}"),
            ("GET", f"{CONTOUR}/jobs/{long}/status"),
            ("DELETE", f"{target.runtime.path}/schemas/{quote('ü' * 5000)}"),
            ("GET", f"/api/v2/functions/queries/getByRid?rid={long}"),
        )
    ]
    for answer in descriptions:
        assert len(answer.get("error_description") or answer["errorDescription"]) < 2000
    assert all(len(event.detail or "") < 2000 and len(event.runtime_id or "") <= 1000 for event in told)
    assert "'nnnn" in descriptions[0]["error_description"]
    target.runtime.submit("unknown")
    target.runtime.take()
    [unknown] = [event for event in told if event.kind == "unknown_query_type"]
    assert len(unknown.detail or "") < 2000


@pytest.fixture
def traced() -> Iterator[None]:
    """Trace memory, beside the emulator's fixture or without it."""
    already = tracemalloc.is_tracing()
    tracemalloc.start(1)
    yield
    if not already:
        tracemalloc.stop()


@pytest.mark.usefixtures("traced")
def test_a_modules_log_is_bounded_in_lines_and_characters() -> None:
    logs = ModuleLogs()
    fields = {"message": "m" * 900_000, "level": "l" * 50_000, "params": {"job_id": "j" * 50_000}}
    line, before = json.dumps(fields).encode(), kept()
    for _ in range(520):
        logs.append(read_line("r", line, str))
    assert len(logs) == 500
    assert kept() - before < 12 * MB
    for number in range(11_000):
        logs.append(read_line("r", f"line {number}".encode(), str))
    assert [line.message for line in logs] == [f"line {number}" for number in range(1000, 11_000)]


@pytest.mark.usefixtures("traced")
def test_a_log_of_single_characters_takes_the_memory_of_its_text() -> None:
    log = JobLog()
    text, before = "".join(chr(0x4E00 + number % 1000) for number in range(100_000)), kept()
    for each in text:
        log.write(each)
    assert kept() - before < 2 * len(text) + MB
    assert log.text == text
