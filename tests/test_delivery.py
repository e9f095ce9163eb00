"""Jobs and results on their way: polls that are held, clients that go away, results in chunks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from client import CONTOUR, EXECUTE, RESULT, RID, RUNTIMES, SUBMIT, Api, Runtime, Wire, error_code, eventually, framed

from cmemu_nb.wire.paths import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from cmemu_nb import Emulator

    AtOnce = Callable[[], AbstractContextManager[None]]
    Background = Callable[..., Future[Any]]
    Connect = Callable[[], Wire]
    UntilHeld = Callable[..., None]

pytestmark = pytest.mark.once

CALL = json.dumps({"deployedAppRid": RID, "queryType": "f"}).encode()
LARGE = "x" * 8_000_000  # more than the buffers between server and client hold


def start_poll(connection: Wire, runtime: Runtime, wait: int = 60) -> None:
    connection.request("GET", f"{runtime.path}/job", {**runtime.headers, "Prefer": f"wait={wait}"})


def start_execute(connection: Wire, api: Api, body: bytes = CALL) -> None:
    connection.request("POST", EXECUTE, api.bearer, body)


def start_stream(connection: Wire, runtime: Runtime, job_id: str) -> None:
    connection.request("POST", f"{runtime.path}/results/{job_id}", {**runtime.headers, "Transfer-Encoding": "chunked"})


def execute_with_streamed_result(api: Api, wire: Connect) -> tuple[Runtime, str, Wire, Wire]:
    """Let a sync client wait for a job whose result has begun to arrive in chunks, none of them sent yet."""
    runtime = api.open(deployed_app_rid=RID)
    client, poster = wire(), wire()
    start_execute(client, api)
    job_id = runtime.take(wait=30)["jobId"]
    start_stream(poster, runtime, job_id)
    return runtime, job_id, client, poster


def job_id_of(answer: bytes) -> str:
    job_id: str = json.loads(answer)["computeModuleJobV1"]["jobId"]
    return job_id


def status_of(runtime: Runtime, job_id: str) -> str:
    # Not by inspection, which sends the whole query.
    status: str = runtime.api.status(job_id)["type"]
    return status


# Polls that are held


@pytest.mark.parametrize("prefer", ["wait=60", "WAIT = 60", "respond-async, wait=60", 'wait="60"', "wait=60; foo=bar"])
def test_a_held_poll_is_answered_when_a_job_comes(api: Api, wire: Connect, until_held: UntilHeld, prefer: str) -> None:
    runtime, connection = api.open(), wire()
    connection.request("GET", f"{runtime.path}/job", {**runtime.headers, "Prefer": prefer})
    until_held(polls=1)
    job_id = runtime.submit()
    answer = connection.answer()
    assert (answer.status, job_id_of(answer.body)) == (200, job_id)
    assert answer.headers["Preference-Applied"] == "wait=60"


def test_a_held_poll_ends_with_204_when_its_time_is_over(api: Api) -> None:
    answer = api.open().poll(wait=1)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["Preference-Applied"] == "wait=1"


@pytest.mark.parametrize("prefer", ["wait=0", "wait=-5", "wait=x", "wait", "wait=1.5", "return=minimal", "waits=9", ""])
def test_a_poll_without_a_wait_is_answered_at_once(api: Api, prefer: str) -> None:
    runtime = api.open()
    assert runtime.send("GET", runtime.session["getJobUri"], headers={"Prefer": prefer}).status_code == 204


def test_a_wait_is_granted_for_at_most_60_seconds(api: Api) -> None:
    runtime = api.open()
    runtime.submit()
    answer = runtime.send("GET", runtime.session["getJobUri"], headers={"Prefer": "wait=3600"})
    assert answer.headers["Preference-Applied"] == "wait=60"


def test_each_job_wakes_one_of_several_polls_the_longest_held_first(
    api: Api, wire: Connect, until_held: UntilHeld
) -> None:
    runtime = api.open()
    polls = [wire() for _ in range(5)]
    for count, connection in enumerate(polls, 1):
        start_poll(connection, runtime)
        until_held(polls=count)
    for connection in polls:
        job_id = runtime.submit()
        assert job_id_of(connection.answer().body) == job_id


def test_jobs_that_come_in_one_moment_wake_one_poll_each(
    api: Api, wire: Connect, until_held: UntilHeld, at_once: AtOnce
) -> None:
    runtime = api.open(deployed_app_rid=RID)
    polls, submitters = [wire() for _ in range(5)], [wire() for _ in range(5)]
    for connection in polls:
        start_poll(connection, runtime)
    until_held(polls=5)
    with at_once():
        for connection in submitters:
            connection.request("POST", SUBMIT, api.bearer, CALL)
    submitted = {json.loads(connection.answer().body)["id"] for connection in submitters}
    assert {job_id_of(connection.answer().body) for connection in polls} == submitted


@pytest.mark.parametrize("first", ["poll", "job"])
def test_a_job_that_comes_in_the_same_moment_as_a_poll_is_taken_by_it(
    api: Api, wire: Connect, at_once: AtOnce, first: str
) -> None:
    runtime = api.open(deployed_app_rid=RID)
    poll, submitter = wire(), wire()
    with at_once():
        if first == "poll":
            start_poll(poll, runtime)
        submitter.request("POST", SUBMIT, api.bearer, CALL)
        if first == "job":
            start_poll(poll, runtime)
    assert job_id_of(poll.answer().body) == json.loads(submitter.answer().body)["id"]


def test_polls_of_one_runtime_are_not_woken_by_jobs_of_another(api: Api, wire: Connect, until_held: UntilHeld) -> None:
    first, second = api.open("first"), api.open("second")
    one, two = wire(), wire()
    start_poll(one, first)
    start_poll(two, second)
    until_held(polls=2)
    second_job = second.submit()
    assert job_id_of(two.answer().body) == second_job
    first_job = first.submit()
    assert job_id_of(one.answer().body) == first_job


# Runtimes that go away

GOING_AWAY = [Wire.close, Wire.reset]


@pytest.mark.parametrize("go_away", GOING_AWAY)
def test_a_held_poll_whose_client_went_away_takes_no_job(
    api: Api, wire: Connect, until_held: UntilHeld, go_away: Callable[[Wire], None]
) -> None:
    runtime, connection = api.open(), wire()
    start_poll(connection, runtime)
    until_held(polls=1)
    go_away(connection)
    until_held(polls=0)
    job_id = runtime.submit()
    assert status_of(runtime, job_id) == "queued"
    assert runtime.take_id() == job_id


@pytest.mark.parametrize("go_away", GOING_AWAY)
@pytest.mark.parametrize("turns", range(3))
def test_the_next_poll_gets_the_job_when_the_first_one_goes_away_before_its_answer(
    emu: Emulator,
    api: Api,
    wire: Connect,
    until_held: UntilHeld,
    at_once: AtOnce,
    go_away: Callable[[Wire], None],
    turns: int,
) -> None:
    runtime = api.open(deployed_app_rid=RID)
    gone, next_in_line, submitter = wire(), wire(), wire()
    loop = emu.home.loop

    def go_away_after(turns: int) -> None:
        if turns:
            loop.call_soon(go_away_after, turns - 1)
        else:
            go_away(gone)

    start_poll(gone, runtime)
    until_held(polls=1)
    start_poll(next_in_line, runtime)
    until_held(polls=2)
    with at_once():
        submitter.request("POST", SUBMIT, api.bearer, CALL)
        loop.call_soon_threadsafe(go_away_after, turns)
    assert job_id_of(next_in_line.answer().body) == json.loads(submitter.answer().body)["id"]


@pytest.mark.parametrize("go_away", GOING_AWAY)
@pytest.mark.parametrize("wait", [0, 60])
def test_a_poll_whose_client_is_gone_before_it_is_read_takes_no_job(
    api: Api, wire: Connect, at_once: AtOnce, go_away: Callable[[Wire], None], wait: int
) -> None:
    runtime, connection = api.open(), wire()
    job_id = runtime.submit()
    with at_once():
        start_poll(connection, runtime, wait)
        go_away(connection)
    assert runtime.take_id() == job_id


@pytest.mark.parametrize("go_away", GOING_AWAY)
@pytest.mark.parametrize("held", [False, True])
def test_a_job_whose_answer_is_cut_off_goes_back_to_the_head_of_the_queue(
    api: Api, wire: Connect, until_held: UntilHeld, go_away: Callable[[Wire], None], *, held: bool
) -> None:
    runtime, connection = api.open(), wire()
    if held:
        start_poll(connection, runtime)
        until_held(polls=1)
    first, second = runtime.submit("large", LARGE), runtime.submit("small")
    if not held:
        start_poll(connection, runtime)
    assert connection.head().status == 200
    assert status_of(runtime, first) == "running"
    go_away(connection)
    eventually(lambda: status_of(runtime, first) == "queued", "the job is given back")
    job = runtime.take()
    assert (job["jobId"], job["query"]) == (first, LARGE)
    assert runtime.take_id() == second


def test_a_job_that_is_given_back_wakes_a_held_poll(api: Api, wire: Connect, until_held: UntilHeld) -> None:
    runtime = api.open()
    gone, held = wire(), wire()
    job_id = runtime.submit("large", LARGE)
    start_poll(gone, runtime)
    assert gone.head().status == 200
    start_poll(held, runtime)
    until_held(polls=1)
    gone.close()
    assert job_id_of(held.answer().body) == job_id


def test_several_jobs_that_are_given_back_keep_their_order(api: Api, wire: Connect) -> None:
    runtime = api.open()
    submitted = [runtime.submit("large", LARGE) for _ in range(3)]
    polls = [wire() for _ in submitted]
    for connection in polls:
        start_poll(connection, runtime)
        assert connection.head().status == 200
    for connection in polls:
        connection.close()
    eventually(lambda: {status_of(runtime, each) for each in submitted} == {"queued"}, "the jobs are given back")
    assert [runtime.take_id() for _ in submitted] == submitted


# Resets while something is held


def test_a_reset_refuses_the_held_poll_at_once_and_its_job_goes_to_the_new_session(
    api: Api, wire: Connect, until_held: UntilHeld
) -> None:
    old, connection = api.open(), wire()
    start_poll(connection, old)
    until_held(polls=1)
    new = api.open()
    answer = connection.answer()
    assert (answer.status, answer.error()) == (401, "invalid_module_auth_token")
    assert new.submit() == new.take_id()


def test_a_deleted_runtimes_held_poll_is_told_so_at_once(api: Api, wire: Connect, until_held: UntilHeld) -> None:
    runtime, connection = api.open(), wire()
    start_poll(connection, runtime)
    until_held(polls=1)
    assert runtime.send("DELETE", runtime.uri).status_code == 204
    assert connection.answer().error() == "not_found"


def test_a_poll_that_comes_in_the_same_moment_as_a_reset_is_refused_at_once(
    api: Api, wire: Connect, at_once: AtOnce
) -> None:
    old, poll, opener = api.open(), wire(), wire()
    with at_once():
        start_poll(poll, old)
        opener.request("POST", RUNTIMES, {}, b'{"runtimeId": "my-runtime"}')
    assert poll.answer().error() == "invalid_module_auth_token"
    assert opener.answer().status == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "{path}/schemas", b'[{"name": "old"}]'),
        ("POST", f"{PLATFORM}/schemas", b'[{"name": "old"}]'),
        ("POST", "{path}/jobs", b'{"queryType": "old"}'),
        ("GET", "{path}/job", b"a poll with a body"),
        ("GET", f"{PLATFORM}/job", b"a poll with a body"),
        ("POST", f"{PLATFORM}/restart", b"a notice with a body"),
        ("DELETE", "{path}", b"a deletion with a body"),
    ],
)
def test_a_request_whose_body_comes_after_a_reset_is_refused(
    api: Api, wire: Connect, method: str, path: str, body: bytes
) -> None:
    old, connection = api.open(), wire()
    headers = {**old.headers, "Expect": "100-continue", "Content-Length": str(len(body))}
    connection.request(method, path.format(path=old.path), headers)
    assert connection.file.readline().split()[1] == b"100"
    assert connection.file.readline() == b"\r\n"
    new = api.open()
    job_id = new.submit()
    connection.send(body)
    assert connection.answer().error() == "invalid_module_auth_token"
    assert new.show()["schemas"] == []
    assert [job["job_id"] for job in new.send("GET", f"{new.uri}/jobs").json()["jobs"]] == [job_id]
    assert new.take_id() == job_id


@pytest.mark.parametrize("poll_first", [False, True])
def test_a_job_of_the_new_session_is_never_taken_with_the_old_token(
    api: Api, wire: Connect, until_held: UntilHeld, at_once: AtOnce, *, poll_first: bool
) -> None:
    old = api.open(deployed_app_rid=RID)
    poll, opener, submitter = wire(), wire(), wire()
    if poll_first:
        start_poll(poll, old)
        until_held(polls=1)
    with at_once():
        if not poll_first:
            start_poll(poll, old)
        opener.request("POST", RUNTIMES, {}, json.dumps({"runtimeId": "my-runtime", "deployedAppRid": RID}).encode())
        submitter.request("POST", SUBMIT, api.bearer, CALL)
    new = Runtime(api, json.loads(opener.answer().body))
    assert poll.answer().error() == "invalid_module_auth_token"
    assert new.take_id() == json.loads(submitter.answer().body)["id"]


# Clients that go away


@pytest.mark.parametrize("go_away", GOING_AWAY)
def test_the_job_of_a_sync_client_that_goes_away_leaves_the_queue(
    api: Api, wire: Connect, until_held: UntilHeld, go_away: Callable[[Wire], None]
) -> None:
    runtime, client = api.open(deployed_app_rid=RID), wire()
    start_execute(client, api)
    until_held(jobs=1)
    go_away(client)
    until_held(jobs=0)
    assert runtime.poll().status_code == 204
    (job,) = runtime.send("GET", f"{runtime.uri}/jobs").json()["jobs"]
    assert (job["status"], job["error_message"]) == ("failed", "the client disconnected before a runtime took the job")


@pytest.mark.parametrize("go_away", GOING_AWAY)
def test_a_running_job_goes_on_when_its_sync_client_goes_away(
    api: Api, wire: Connect, until_held: UntilHeld, go_away: Callable[[Wire], None]
) -> None:
    runtime, client = api.open(deployed_app_rid=RID), wire()
    start_execute(client, api)
    job_id = runtime.take(wait=30)["jobId"]
    until_held(jobs=1)
    go_away(client)
    until_held(jobs=0)
    assert status_of(runtime, job_id) == "running"
    assert runtime.post_result(job_id, b"1").status_code == 204
    assert status_of(runtime, job_id) == "succeeded"


@pytest.mark.parametrize("go_away", GOING_AWAY)
@pytest.mark.parametrize("path", [EXECUTE, SUBMIT])
def test_a_client_that_is_gone_before_its_call_is_read_leaves_no_job_for_a_runtime(
    api: Api, wire: Connect, until_held: UntilHeld, at_once: AtOnce, path: str, go_away: Callable[[Wire], None]
) -> None:
    runtime = api.open(deployed_app_rid=RID)
    client, poll = wire(), wire()
    start_poll(poll, runtime)
    until_held(polls=1)
    with at_once():
        client.request("POST", path, api.bearer, CALL)
        go_away(client)
    job_id = runtime.submit()
    assert job_id_of(poll.answer().body) == job_id


@pytest.mark.parametrize("go_away", GOING_AWAY)
@pytest.mark.parametrize("wait_for", ["status", "result"])
def test_nothing_is_held_for_a_client_that_is_gone(
    api: Api, wire: Connect, until_held: UntilHeld, at_once: AtOnce, go_away: Callable[[Wire], None], wait_for: str
) -> None:
    api.open(deployed_app_rid=RID)
    job_id = api.submit()
    path = f"{CONTOUR}/jobs/{job_id}/status" if wait_for == "status" else RESULT
    client = wire()
    with at_once():
        method = "GET" if wait_for == "status" else "PUT"
        client.request(method, path, {**api.bearer, "Prefer": "wait=60"}, json.dumps({"id": job_id}).encode())
        go_away(client)
    until_held(jobs=0)


# Results in chunks


def test_a_chunked_result_reaches_the_sync_client_chunk_by_chunk(api: Api, wire: Connect) -> None:
    runtime, job_id, client, poster = execute_with_streamed_result(api, wire)
    chunks = [b'{"n":1}', bytes(range(256)), b"\r\n0\r\n\r\n", b"x" * 50_000]
    for number, chunk in enumerate(chunks):
        poster.send_chunk(chunk)
        if number == 0:
            head = client.head()
            assert (head.status, head.headers["Content-Type"]) == (200, "application/octet-stream")
        received = b""
        while len(received) < len(chunk):
            received += client.chunk()
        assert received == chunk
        assert status_of(runtime, job_id) == "running"
    poster.send_chunk(b"")
    assert client.chunk() == b""
    assert poster.answer().status == 204
    assert api.result(job_id).content == b"".join(chunks)


def test_one_who_waits_for_the_whole_result_gets_all_its_chunks(
    api: Api, wire: Connect, background: Background, until_held: UntilHeld
) -> None:
    runtime, poster = api.open(deployed_app_rid=RID), wire()
    job_id = api.submit()
    runtime.take()
    result = background(api.result, job_id, wait=60)
    until_held(jobs=1)
    start_stream(poster, runtime, job_id)
    poster.send_chunk(b"ab")
    poster.send_chunk(b"c")
    poster.send_chunk(b"")
    assert result.result().content == b"abc"


@pytest.mark.parametrize("sent", [b"", b"12345"])
@pytest.mark.parametrize("break_off", [*GOING_AWAY, lambda wire: wire.send(b"no chunk size\r\n")])
def test_a_chunked_result_that_breaks_off_fails_its_job(
    api: Api, wire: Connect, sent: bytes, break_off: Callable[[Wire], None]
) -> None:
    runtime, job_id, client, poster = execute_with_streamed_result(api, wire)
    if sent:
        poster.send_chunk(sent)
        assert client.head().status == 200
        assert client.chunk() == sent
    break_off(poster)
    why = f"the result stream broke off after {len(sent)} bytes"
    if sent:
        with pytest.raises(ConnectionError):
            client.chunk()
    else:
        answer = client.answer()
        assert (answer.error(), json.loads(answer.body)["error_description"]) == ("job_failed", why)
    job = runtime.job(job_id)
    assert (job["status"], job["error_message"]) == ("failed", why)
    assert runtime.post_result(job_id, b"").status_code == 409


@pytest.mark.parametrize("go_away", GOING_AWAY)
def test_chunks_that_arrive_together_with_the_end_of_the_connection_count(
    api: Api, wire: Connect, at_once: AtOnce, go_away: Callable[[Wire], None]
) -> None:
    runtime, job_id, client, poster = execute_with_streamed_result(api, wire)
    poster.send_chunk(b"1")
    assert (client.head().status, client.chunk()) == (200, b"1")
    with at_once():
        poster.send_chunk(b"23")
        poster.send_chunk(b"45")
        go_away(poster)
    reason = eventually(lambda: runtime.job(job_id)["error_message"], "the job failed")
    assert reason == "the result stream broke off after 5 bytes"
    assert client.chunk() == b"2345"
    with pytest.raises(ConnectionError):
        client.chunk()


@pytest.mark.parametrize("go_away", GOING_AWAY)
def test_a_whole_result_that_breaks_off_changes_nothing_and_the_retry_counts(
    api: Api, wire: Connect, go_away: Callable[[Wire], None]
) -> None:
    runtime, poster = api.open(), wire()
    job_id = runtime.submit()
    runtime.take()
    poster.request("POST", f"{runtime.path}/results/{job_id}", {**runtime.headers, "Content-Length": "10"}, b"12345")
    go_away(poster)
    assert runtime.poll().status_code == 204
    assert status_of(runtime, job_id) == "running"
    assert runtime.post_result(job_id, b"1234567890").status_code == 204
    assert runtime.job(job_id)["result_body_utf8"] == "1234567890"


def test_a_stream_goes_on_when_its_sync_client_goes_away(api: Api, wire: Connect, until_held: UntilHeld) -> None:
    runtime, job_id, client, poster = execute_with_streamed_result(api, wire)
    poster.send_chunk(b"first")
    assert client.head().status == 200
    client.reset()
    until_held(jobs=0)
    poster.send_chunk(b"second")
    poster.send_chunk(b"")
    assert poster.answer().status == 204
    assert runtime.job(job_id)["result_body_utf8"] == "firstsecond"


@pytest.mark.parametrize(("end", "code"), [("fail", "job_already_completed"), ("reset", "not_found")])
def test_a_job_that_ends_in_the_middle_of_its_stream_ends_both_sides(
    api: Api, wire: Connect, end: str, code: str
) -> None:
    runtime, job_id, client, poster = execute_with_streamed_result(api, wire)
    poster.send_chunk(b"first")
    assert client.head().status == 200
    assert client.chunk() == b"first"
    if end == "fail":
        runtime.fail(job_id, "by hand")
    else:
        api.open(deployed_app_rid=RID)
    with pytest.raises(ConnectionError):
        client.chunk()
    poster.send_chunk(b"second")
    assert poster.answer().error() == code


@pytest.mark.parametrize("framing", ["whole", "chunked"])
def test_a_second_result_is_refused_while_the_first_one_arrives(api: Api, wire: Connect, framing: str) -> None:
    runtime, job_id, client, poster = execute_with_streamed_result(api, wire)
    poster.send_chunk(b"first")
    assert client.head().status == 200
    assert error_code(runtime.post_result(job_id, framed(framing, b"other"))) == "job_already_completed"
    poster.send_chunk(b"second")
    poster.send_chunk(b"")
    assert poster.answer().status == 204
    assert b"".join(client.chunks()) == b"firstsecond"


# Connections


def test_pipelined_requests_are_answered_in_their_order(api: Api, wire: Connect) -> None:
    runtime, connection = api.open(), wire()
    submitted = [runtime.submit() for _ in range(3)]
    for _ in submitted:
        connection.request("GET", f"{runtime.path}/job", runtime.headers)
    connection.request("GET", f"{runtime.path}/nothing")
    connection.request("GET", f"{runtime.path}/job", {**runtime.headers, "Prefer": "wait=60"})
    connection.request("GET", "/_emulate/health")
    assert [job_id_of(connection.answer().body) for _ in submitted] == submitted
    assert connection.answer().error() == "not_found"
    last = runtime.submit()
    assert job_id_of(connection.answer().body) == last
    assert connection.answer().body.startswith(b'{"status":"ok"')


def test_a_connection_survives_refusals_and_a_stream(api: Api, wire: Connect) -> None:
    runtime = api.open(deployed_app_rid=RID)
    client, executor = wire(), wire()
    client.request("POST", EXECUTE, api.bearer, b"no JSON")
    assert client.answer().status == 400
    client.request("POST", EXECUTE, {}, CALL)
    assert client.answer().status == 401
    client.request("BREW", EXECUTE, api.bearer, CALL)
    assert client.answer().status == 405
    for number in range(2):
        start_execute(client, api)
        executor.request("GET", f"{runtime.path}/job", {**runtime.headers, "Prefer": "wait=60"})
        start_stream(executor, runtime, job_id_of(executor.answer().body))
        executor.send_chunk(b"%d" % number)
        executor.send_chunk(b"")
        assert executor.answer().status == 204
        assert client.answer().body == b"%d" % number


def test_a_stream_to_a_client_of_http_1_0_ends_with_its_connection(api: Api, wire: Connect) -> None:
    runtime = api.open(deployed_app_rid=RID)
    client, poster = wire(), wire()
    bearer = api.bearer["Authorization"]
    head = f"POST {EXECUTE} HTTP/1.0\r\nHost: localhost\r\nAuthorization: {bearer}\r\nConnection: keep-alive\r\n"
    client.send(f"{head}Content-Length: {len(CALL)}\r\n\r\n".encode() + CALL)
    start_stream(poster, runtime, runtime.take(wait=30)["jobId"])
    poster.send_chunk(b"first")
    assert client.head().status == 200
    poster.send_chunk(b"second")
    poster.send_chunk(b"")
    assert client.file.read() == b"firstsecond"
