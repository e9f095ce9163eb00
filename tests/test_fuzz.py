"""Bytes of any kind over real sockets: mostly good requests, with faults put into them.

Always true: the emulator answers in the documented shape or closes, it logs no fault and prints nothing, it sees
exactly the requests that `read_requests` reads, and it serves the next connection.
`CMEMU_LONG=1` tries ten times as many.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from client import CONTOUR, DESCRIBED, EXECUTE, RESULT, RID, ROUTER, RUNTIMES, SUBMIT, Api, Runtime
from conftest import TOKEN
from fuzz_inputs import (
    APP_JOB,
    JOB,
    RUNTIME,
    RUNTIME_IDS,
    SECRET,
    SMUGGLED,
    encoded,
    framed,
    json_texts,
    mutated,
    odd_texts,
    pieces,
    pipelines,
    post,
    schema_bodies,
    spaces,
)
from fuzzing import End, Reading, Sent, Watched, read_answers, read_requests
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from cmemu_nb.errors import WireError
from cmemu_nb.wire.paths import DEPLOYED_APPS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from client import WireAnswer

    from cmemu_nb import Emulator
    from cmemu_nb.lifecycle.records import Job

pytestmark = pytest.mark.once


TIMES = 10 if os.environ.get("CMEMU_LONG") else 1
PROBE = f"POST {RUNTIMES} HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"


def fuzz(examples: int) -> settings:
    return settings(
        max_examples=examples * TIMES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture
def watched(emu: Emulator, capfd: pytest.CaptureFixture[str]) -> Iterator[Watched]:
    with Watched(emu) as watched:
        yield watched
    assert capfd.readouterr().err == ""


def open_runtime(watched: Watched) -> Runtime:
    """Open or reset the session on a new connection: the emulator is alive, and has no jobs of before."""
    assert watched.faults == []
    watched.queued.clear()
    body = json.dumps({"runtimeId": "fuzz", "deployedAppRid": RID})
    answer = one_answer(watched, (PROBE % (len(body), body)).encode())
    assert answer.status == 200
    return Runtime(Api(watched.emu.url, TOKEN), json.loads(answer.body))


def one_answer(watched: Watched, request: bytes) -> WireAnswer:
    raw, _ = watched.converse([request])
    answers, bare = read_answers(raw, read_requests(request))
    assert (len(answers), bare) == (1, False), (raw, request)
    return answers[0]


def job_of(watched: Watched, job_id: str | None) -> Job:
    job = watched.emu.lifecycle.find_job(job_id or "")
    assert job is not None
    return job


def check_conversation(watched: Watched, sent: list[bytes], before: Sequence[str | None] = ()) -> None:
    """Send bytes; the emulator must see the requests that we read in them, no more and no fewer."""
    data = b"".join(sent)
    raw, ended = watched.converse(sent)
    reading = read_requests(data)
    note(f"sent {data!r}, answered {raw!r}, {ended}, read {reading.end}")
    answers, bare = read_answers(raw, reading)
    early = bool(answers) and refused_early(answers[-1], reading, len(answers) - 1)
    if early:
        # Documented, of Tornado: it may add its bare 400 to an answer that says "close" when the rest is malformed.
        assert not bare or reading.end is End.MALFORMED
    else:
        assert len(answers) == len(reading.whole)
        assert bare == (reading.end is End.MALFORMED)
        assert ended == ("waiting" if reading.end is End.OPEN else "closed")
    check_jobs(watched, reading, answers, before)


def refused_early(answer: WireAnswer, reading: Reading, position: int) -> bool:
    """Tell whether a request was refused before its body was read, which ends the connection."""
    sent = reading.whole[position] if position < len(reading.whole) else reading.begun
    assert sent is not None
    long = any(len(length) > 8 for length in sent.values("content-length"))
    may_be = answer.status >= 400 and (bool(sent.values("transfer-encoding")) or long)
    return may_be and answer.headers["Connection"] == "close"


def check_jobs(watched: Watched, reading: Reading, answers: list[WireAnswer], before: Sequence[str | None]) -> None:
    queued = list(before)
    for sent, answer in zip(reading.whole, answers, strict=False):
        said = json.loads(answer.body) if answer.status == 200 and sent.method == "POST" else {}
        if job_id := said.get("jobId", said.get("id")):
            queued.append(job_id)
            check_job(job_of(watched, job_id), sent)
    assert watched.queued == queued


def check_job(job: Job, sent: Sent) -> None:
    body = json.loads(sent.body)
    assert job.query_type == body["queryType"].strip()
    assert job.query in sent.body or ("query" not in body and job.query == b"{}")
    assert json.loads(job.query) == body.get("query", {})


@fuzz(700)
@given(sent=pipelines())
def test_the_emulator_sees_exactly_the_requests_that_were_sent(watched: Watched, sent: list[bytes]) -> None:
    token = open_runtime(watched).headers["Module-Auth-Token"].encode()
    check_conversation(watched, [piece.replace(SECRET, token) for piece in sent])


@fuzz(300)
@given(data=st.data())
def test_a_result_is_stored_whole_and_as_sent_or_not_at_all(watched: Watched, data: st.DataObject) -> None:
    runtime = open_runtime(watched)
    take = post(f"{RUNTIME}/jobs", JOB) + poll(runtime)
    taken, _ = read_answers(watched.converse([take])[0], read_requests(take))
    job = job_of(watched, json.loads(taken[0].body)["jobId"])
    framing, body = data.draw(framed(data.draw(st.binary(max_size=300) | st.just(SMUGGLED))))
    head = [f"POST {RUNTIME}/results/{job.job_id} HTTP/1.1".encode(), b"Host: localhost"]
    head += [b"%b: %b" % (name.encode(), value.encode()) for name, value in runtime.headers.items()]
    request = data.draw(mutated(b"\r\n".join([*head, *framing, b"", b""]) + body))
    check_conversation(watched, data.draw(pieces(request)), [job.job_id])
    check_result(job_of(watched, job.job_id), read_requests(request))


def check_result(job: Job, reading: Reading) -> None:
    if job.status == "succeeded":
        assert job.result == reading.whole[0].body
    else:
        assert job.result is None
        # Only a stream that was well begun can break off.
        assert job.status == "running" or (reading.begun and is_chunked(reading.begun))


def is_chunked(sent: Sent) -> bool:
    return [each.lower() for each in sent.values("transfer-encoding")] == ["chunked"] and not sent.values(
        "content-length"
    )


# Paths


@fuzz(200)
@given(runtime_id=RUNTIME_IDS.filter(lambda text: text.strip() not in ("", ".", "..")), data=st.data())
def test_a_runtime_is_found_under_every_encoding_of_its_id(
    watched: Watched, runtime_id: str, data: st.DataObject
) -> None:
    assert watched.faults == []
    opened = one_answer(watched, post(RUNTIMES, json.dumps({"runtimeId": runtime_id}).encode()))
    assert opened.status == 200
    session = json.loads(opened.body)
    assert session["runtimeId"] == runtime_id.strip()
    segment = data.draw(encoded(runtime_id.strip()))
    target = session["getJobUri"].partition("localhost")[2].encode()
    head = b" HTTP/1.1\r\nHost: localhost\r\nModule-Auth-Token: " + session["moduleAuthToken"].encode() + b"\r\n\r\n"
    assert one_answer(watched, b"GET " + target + head).status == 204
    shown = one_answer(watched, b"GET " + RUNTIMES.encode() + b"/" + segment + head)
    assert json.loads(shown.body)["runtime"]["runtime_id"] == runtime_id.strip()
    near_miss = data.draw(mutated(b"GET " + RUNTIMES.encode() + b"/" + segment + head))
    check_conversation(watched, [near_miss], watched.queued[:])


# JSON


def refuse(constant: str) -> None:
    raise ValueError(constant)


def readable(body: bytes) -> Any:
    """Read JSON strictly, its numbers as text; None if it is none. No JSON body of ours is null."""
    try:
        return json.loads(body.decode(), parse_int=str, parse_float=str, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None


def poll(runtime: Runtime) -> bytes:
    token = runtime.headers["Module-Auth-Token"]
    return f"GET {RUNTIME}/job HTTP/1.1\r\nHost: localhost\r\nModule-Auth-Token: {token}\r\n\r\n".encode()


def submit_and_poll(watched: Watched, target: str, body: bytes) -> tuple[WireAnswer, WireAnswer]:
    runtime = open_runtime(watched)
    sent = post(target, body) + poll(runtime)
    note(f"sent {sent!r}")
    answers, bare = read_answers(watched.converse([sent])[0], read_requests(sent))
    assert not bare
    submitted, polled = answers
    assert (submitted.status, polled.status) in ((200, 200), (400, 204))
    return submitted, polled


@pytest.mark.parametrize("target", [f"{RUNTIME}/jobs", SUBMIT])
@fuzz(200)
@given(before=spaces, query=json_texts, after=spaces)
def test_a_query_reaches_the_poll_byte_by_byte(
    watched: Watched, target: str, before: bytes, query: bytes, after: bytes
) -> None:
    body = b'{"deployedAppRid": "' + RID.encode() + b'", "queryType": "f", "query":' + before + query + after + b"}"
    submitted, polled = submit_and_poll(watched, target, body)
    said = json.loads(submitted.body)
    job_id = said.get("jobId", said.get("id")).encode()
    head = b'{"type":"computeModuleJobV1","computeModuleJobV1":{"jobId":"' + job_id + b'","queryType":"f","query":'
    assert polled.body == head + query + b"}}"


@fuzz(300)
@given(query=odd_texts)
def test_a_query_that_is_nearly_json_is_refused_or_reaches_the_poll(watched: Watched, query: bytes) -> None:
    body = b'{"queryType": "f", "query": ' + query + b"}"
    submitted, polled = submit_and_poll(watched, f"{RUNTIME}/jobs", body)
    wanted = readable(body)
    if submitted.status == 200:
        assert wanted is not None
        job = readable(polled.body)["computeModuleJobV1"]
        assert (job["queryType"], job["query"]) == (wanted["queryType"].strip(), wanted.get("query", {}))
        query = job_of(watched, job["jobId"]).query
        assert polled.body.endswith(b',"query":' + query + b"}}")
        assert query in body or query == b"{}"
    elif isinstance(wanted, dict) and isinstance(wanted.get("queryType"), str) and wanted["queryType"].strip():
        assert re.search(rb"\\u[dD][89a-fA-F]", query) or len(query) > 500, "good JSON was refused"


def post_schemas(watched: Watched, body: bytes) -> tuple[int, dict[str, bytes]]:
    runtime = open_runtime(watched)
    note(f"posted {body!r}")
    answer = one_answer(watched, post(f"{RUNTIME}/schemas", body, runtime.headers["Module-Auth-Token"]))
    return answer.status, {each.function_name: each.schema_payload for each in watched.emu.lifecycle.schemas("fuzz")}


@fuzz(150)
@given(body=schema_bodies())
def test_schemas_in_every_accepted_format_are_stored_as_posted(
    watched: Watched, body: tuple[bytes, dict[str, bytes]]
) -> None:
    assert post_schemas(watched, body[0]) == (204, body[1])


@fuzz(150)
@given(data=st.data())
def test_schemas_that_are_nearly_right_are_stored_as_posted_or_refused(watched: Watched, data: st.DataObject) -> None:
    body = data.draw(mutated(data.draw(schema_bodies())[0]) | odd_texts)
    status, stored = post_schemas(watched, body)
    assert (status == 204) or (status == 400 and stored == {})
    for name, payload in stored.items():
        assert name.strip()
        assert payload in body
        assert readable(b"[" + payload + b"]")
    assert status == 400 or readable(body) is not None


# Any body to any route


BODY_ROUTES = [
    ("POST", RUNTIMES, b'{"runtimeId": "other", "deployedAppRid": null, "branch": "b", "displayName": "D"}'),
    ("POST", EXECUTE, APP_JOB),
    ("POST", SUBMIT, APP_JOB),
    ("PUT", RESULT, b'{"id": "j", "jobHandle": "{\\"jobId\\": \\"j\\"}"}'),
    ("PUT", RESULT, b'{"jobHandle": "{\\"jobId\\": \\"j\\"}"}'),
    ("PUT", f"{CONTOUR}/jobs/status/v2", b'{"jobHandle": "{\\"jobId\\": \\"j\\"}"}'),
    ("DELETE", f"{CONTOUR}/jobs", b'{"id": "j", "status": {"type": "queued", "queued": {}}}'),
    ("GET", f"{DEPLOYED_APPS}/{RID}/v2/function-schemas", b""),
    ("POST", f"{RUNTIME}/jobs/j/fail", b'{"reason": "x"}'),
    ("GET", f"{CONTOUR}/jobs/j/status", b""),
]


@fuzz(300)
@given(route=st.sampled_from(BODY_ROUTES), data=st.data())
def test_any_body_is_answered_with_a_described_status(
    watched: Watched, route: tuple[str, str, bytes], data: st.DataObject
) -> None:
    open_runtime(watched)
    method, target, body = route
    options = data.draw(st.sampled_from(["", "", "?", "?limit=1", "?status=%ff&x", "?" + quote("é")]))
    sent = post(target + options, data.draw(mutated(body) | odd_texts)).replace(b"POST", method.encode(), 1)
    note(f"sent {sent!r}")
    raw, ended = watched.converse([sent])
    answers, bare = read_answers(raw, read_requests(sent))
    assert not bare
    assert len(answers) == (ended != "held")
    for answer in answers:
        assert str(answer.status) in described(method, target)


def described(method: str, target: str) -> set[str]:
    try:
        route, _ = ROUTER.match(method, target)
    except WireError as error:
        return {str(error.status)}
    return set(DESCRIBED[route.path][method.lower()]["responses"])
