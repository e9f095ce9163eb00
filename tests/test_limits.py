"""Limits: how many connections and held requests there may be, how slow a client, how long a head; others go on."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from client import CONTOUR, DEADLINE, EXECUTE, RESULT, RID, RUNTIMES, Api, Wire, eventually
from conftest import waiting_of

from cmemu_nb.server import connection_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from cmemu_nb import Emulator

    Connect = Callable[[], Wire]
    Serve = Callable[..., AbstractContextManager[Emulator]]

pytestmark = pytest.mark.once

HEALTH = "/_emulate/health"
CALL = json.dumps({"deployedAppRid": RID, "queryType": "f"}).encode()
SLOW = 0.2


def refusals(emulator: Emulator) -> list[str]:
    return [each.detail or "" for each in emulator.lifecycle.events.recent() if each.kind == "request_refused"]


def until_refused(emulator: Emulator, what: str) -> None:
    eventually(lambda: any(what in each for each in refusals(emulator)), f"an event says {what!r}")


def held(emulator: Emulator) -> tuple[int, int]:
    waiting = waiting_of(emulator)
    return len(waiting._polls), len(waiting._jobs)  # noqa: SLF001


@pytest.fixture
def slow(serve: Serve) -> Iterator[Emulator]:
    """An emulator that has no patience with requests and much with connections."""
    with serve(slow_client_seconds=SLOW) as emulator:
        yield emulator


# Slow heads


@pytest.mark.parametrize("head", [b"G", b"GET /_emulate/health HTTP/1.1\r\nHost: localhost\r\nX-A: "])
def test_a_head_that_has_begun_must_end_in_time(slow: Emulator, head: bytes) -> None:
    with Wire(slow.port) as connection:
        connection.send(head)
        assert connection.closed_by_server()
    reason = "the connection was closed, because its client did not complete the head"
    until_refused(slow, f"a request from 127.0.0.1: {reason}")


def test_a_head_that_trickles_is_closed_all_the_same(slow: Emulator) -> None:
    with Wire(slow.port) as connection, ThreadPoolExecutor(1) as pool:
        closed = pool.submit(connection.closed_by_server)
        connection.send(b"GET /_emulate/health HTTP/1.1\r\n")

        def trickle() -> bool:
            try:
                connection.send(b"X-A: b\r\n")
            except OSError:
                return True
            return closed.done()

        eventually(trickle, "the connection is closed while the head still comes")
    until_refused(slow, "did not complete the head")


def test_a_connection_may_be_idle_between_requests_while_others_are_closed(slow: Emulator) -> None:
    with Wire(slow.port) as idle, Wire(slow.port) as fresh, Wire(slow.port) as begun:
        idle.request("GET", HEALTH)
        assert idle.answer().status == 200
        for _ in range(3):
            with Wire(slow.port) as other:
                other.send(b"GET")
                assert other.closed_by_server()
        begun.send(b"GET")
        assert begun.closed_by_server()
        for connection in (idle, fresh):
            connection.request("GET", HEALTH)
            assert connection.answer().status == 200


def test_idle_connections_end_when_idle_seconds_are_over(serve: Serve) -> None:
    with serve(idle_seconds=SLOW) as emulator, Wire(emulator.port) as connection:
        connection.request("GET", HEALTH)
        assert connection.answer().status == 200
        assert connection.closed_by_server()
        assert refusals(emulator) == []


def test_a_handshake_that_has_begun_must_end_in_time(slow: Emulator) -> None:
    port = int(slow.platform_url.rpartition(":")[2])
    with Wire(port) as connection:
        connection.send(b"\x16\x03\x01")
        assert connection.closed_by_server()
    until_refused(slow, "did not complete the head")


# Slow bodies


@pytest.mark.parametrize("framing", ["whole", "chunked"])
def test_a_body_that_stops_coming_is_given_up_and_changes_nothing(slow: Emulator, framing: str) -> None:
    with Wire(slow.port) as connection:
        headers = {"Content-Length": "100"} if framing == "whole" else {"Transfer-Encoding": "chunked"}
        connection.request("POST", RUNTIMES, headers)
        connection.send(b'{"runtimeId"' if framing == "whole" else b'c\r\n{"runtimeId"\r\n')
        assert connection.closed_by_server()
    until_refused(slow, f"POST {RUNTIMES}: the connection was closed, because its client sent nothing of the body")
    assert slow.lifecycle.runtimes() == []


def test_a_whole_result_that_stops_coming_leaves_its_job_running(slow: Emulator) -> None:
    api = Api(slow.url, slow.token)
    runtime = api.open()
    job_id = runtime.submit()
    runtime.take()
    with Wire(slow.port) as connection:
        path = f"{runtime.path}/results/{job_id}"
        connection.request("POST", path, {**runtime.headers, "Content-Length": "10"}, b"12345")
        assert connection.closed_by_server()
    assert runtime.job(job_id)["status"] == "running"
    assert runtime.post_result(job_id, b"1234567890").status_code == 204


def test_a_streamed_result_may_pause_for_longer(slow: Emulator) -> None:
    api = Api(slow.url, slow.token)
    runtime = api.open(deployed_app_rid=RID)
    job_id = api.submit()
    runtime.take()
    with Wire(slow.port) as poster:
        poster.request("POST", f"{runtime.path}/results/{job_id}", {**runtime.headers, "Transfer-Encoding": "chunked"})
        poster.send_chunk(b"first")
        for _ in range(3):
            with Wire(slow.port) as other:
                other.send(b"GET")
                assert other.closed_by_server()
        poster.send_chunk(b"second")
        poster.send_chunk(b"")
        assert poster.answer().status == 204
    assert api.result(job_id).content == b"firstsecond"


def test_a_streamed_result_that_is_silent_for_too_long_fails_its_job(serve: Serve) -> None:
    with serve(idle_seconds=1) as emulator:
        api = Api(emulator.url, emulator.token)
        runtime = api.open(deployed_app_rid=RID)
        with Wire(emulator.port) as client, Wire(emulator.port) as poster:
            client.request("POST", EXECUTE, api.bearer, CALL)
            job_id = runtime.take(wait=30)["jobId"]
            headers = {**runtime.headers, "Transfer-Encoding": "chunked"}
            poster.request("POST", f"{runtime.path}/results/{job_id}", headers)
            poster.send_chunk(b"first")
            assert client.head().status == 200
            assert client.chunk() == b"first"
            assert poster.closed_by_server()
            with pytest.raises(ConnectionError):
                client.chunk()
        job = runtime.job(job_id)
        assert (job["status"], job["error_message"]) == ("failed", "the result stream broke off after 5 bytes")
        until_refused(emulator, "sent nothing of the body")


# Slow readers


def test_a_job_whose_poll_takes_nothing_of_its_answer_is_given_back(slow: Emulator) -> None:
    api = Api(slow.url, slow.token)
    runtime = api.open()
    job_id = runtime.submit("large", "x" * 8_000_000)
    with Wire(slow.port) as connection:
        connection.request("GET", f"{runtime.path}/job", runtime.headers)
        assert connection.head().status == 200
        eventually(lambda: api.status(job_id)["type"] == "queued", "the job is given back")
    until_refused(slow, "read nothing of its answer")
    assert runtime.take_id() == job_id


def test_a_reader_that_takes_a_little_again_and_again_gets_all_of_it(serve: Serve) -> None:
    with serve(slow_client_seconds=1) as emulator:
        read_slowly_beside_one_that_does_not(emulator)


def read_slowly_beside_one_that_does_not(slow: Emulator) -> None:
    api = Api(slow.url, slow.token)
    runtime = api.open(deployed_app_rid=RID)
    job_id = api.submit()
    runtime.take()
    size = 100_000_000
    runtime.post_result(job_id, b"x" * size)
    with Wire(slow.port) as connection, Wire(slow.port) as stuck:
        for each in (stuck, connection):
            each.request("GET", f"{CONTOUR}/jobs/{job_id}/result", api.bearer)
        assert connection.head().status == 200
        got = 0
        while not refusals(slow):
            got += len(connection.file.read(20_000))
            assert api.send("GET", HEALTH).ok
        assert got < size, "it reads slowly"
        while got < size:
            piece = connection.file.read(min(1_000_000, size - got))
            assert piece, f"it was closed after {got} bytes"
            got += len(piece)
        assert len(refusals(slow)) == 1


# Long heads


@pytest.mark.parametrize("length", [65_537, 1_000_000])
def test_a_head_over_64_kib_closes_its_connection_with_an_event(
    serve: Serve, capfd: pytest.CaptureFixture[str], length: int
) -> None:
    with serve() as emulator:
        with Wire(emulator.port) as connection:
            head = f"GET {HEALTH} HTTP/1.1\r\nHost: localhost\r\nX-Long: {'x' * length}\r\n\r\n"
            with contextlib.suppress(ConnectionError):
                connection.send(head.encode())
            assert connection.closed_by_server()
        until_refused(emulator, "the head is longer than 64 KiB")
        assert Api(emulator.url, emulator.token).send("GET", HEALTH).status_code == 200
    assert capfd.readouterr() == ("", "")


def test_a_head_of_60_kib_is_taken(serve: Serve) -> None:
    with serve() as emulator:
        assert Api(emulator.url, emulator.token).send("GET", HEALTH, headers={"X-Long": "x" * 60_000}).ok


# Many connections


def open_connections(emulator: Emulator, count: int) -> list[Wire]:
    opened = [Wire(emulator.port) for _ in range(count)]
    for each in opened:
        each.request("GET", HEALTH)
        assert each.answer().status == 200
    return opened


def test_what_comes_over_max_connections_is_told_so_and_the_others_go_on(serve: Serve) -> None:
    with serve(max_connections=5, slow_client_seconds=SLOW) as emulator:
        opened = open_connections(emulator, 5)
        for _ in range(3):
            with Wire(emulator.port) as one_more:
                one_more.request("GET", HEALTH)
                answer = one_more.answer()
                assert (answer.status, answer.error()) == (503, "too_busy")
                assert (answer.headers["Retry-After"], answer.headers["Connection"]) == ("1", "close")
                assert one_more.file.read() == b""
        assert requests.get(emulator.url + HEALTH, timeout=DEADLINE).status_code == 503
        until_refused(emulator, "connections were turned away: 5 are open")
        for each in opened:
            each.request("GET", HEALTH)
            assert each.answer().status == 200
        opened.pop().close()

        def served() -> bool:
            with Wire(emulator.port) as again:
                again.request("GET", HEALTH)
                return again.answer().status == 200

        eventually(served, "there is room for a new connection when one has left")
        for each in opened:
            each.close()


def test_connections_of_both_ports_count(serve: Serve) -> None:
    with serve(max_connections=2) as emulator:
        opened = open_connections(emulator, 2)
        port = int(emulator.platform_url.rpartition(":")[2])
        context = ssl.create_default_context(cafile=str(emulator.certificates.authority_path))
        plain = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            secure.sendall(b"GET /_emulate/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert secure.recv(4096).startswith(b"HTTP/1.1 503 ")
        for each in opened:
            each.close()


def test_a_crowd_that_is_turned_away_leaves_nothing_behind(serve: Serve) -> None:
    with serve(max_connections=1) as emulator:
        (first,) = open_connections(emulator, 1)
        crowd = [socket.create_connection(("127.0.0.1", emulator.port), timeout=DEADLINE) for _ in range(300)]
        for each in crowd:
            each.settimeout(DEADLINE)
            try:
                while each.recv(4096):
                    pass
            except ConnectionResetError:
                pass
            each.close()
        first.request("GET", HEALTH)
        assert first.answer().status == 200
        first.close()


def test_there_are_never_more_connections_than_files_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    for soft, most in ((1024, 896), (64, 1), (100_000, 8192), (resource.RLIM_INFINITY, 8192)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert connection_limits.open_files_allow(8192) == most


# Many held requests


def start_poll(connection: Wire, runtime: Any, wait: int = 60) -> None:
    connection.request("GET", f"{runtime.path}/job", {**runtime.headers, "Prefer": f"wait={wait}"})


def test_what_would_wait_beyond_max_waiting_is_refused_and_changes_nothing(serve: Serve) -> None:
    with serve(max_waiting=2) as emulator:
        api = Api(emulator.url, emulator.token)
        runtime = api.open(deployed_app_rid=RID)
        with Wire(emulator.port) as client, Wire(emulator.port) as other:
            for each in (client, other):
                each.request("POST", EXECUTE, api.bearer, CALL)
            eventually(lambda: held(emulator) == (0, 2), "both clients wait")
            first, second = runtime.take_id(), runtime.take_id()

            refused = api.execute()
            assert (refused.status_code, refused.json()["error"]) == (503, "too_busy")
            assert refused.headers["Retry-After"] == "1"
            assert len(emulator.lifecycle.jobs()) == 2, "a refused client leaves no job"
            assert api.result(first, wait=30).status_code == 503
            assert runtime.poll(wait=30).status_code == 503
            until_refused(emulator, "503 too_busy")

            # What does not have to wait goes on.
            assert runtime.poll().status_code == 204
            third = api.submit()
            assert runtime.take(wait=30)["jobId"] == third
            assert api.status(first)["type"] == "running"
            for job_id in (first, second, third):
                assert runtime.post_result(job_id, b"1").status_code == 204
            assert (client.answer().body, other.answer().body) == (b"1", b"1")
        with Wire(emulator.port) as poll:
            start_poll(poll, runtime)
            eventually(lambda: held(emulator)[0], "a poll is held again")
            job_id = runtime.submit()
            assert json.loads(poll.answer().body)["computeModuleJobV1"]["jobId"] == job_id


@pytest.mark.parametrize("go_away", [Wire.close, Wire.reset])
def test_a_client_that_goes_away_makes_room(serve: Serve, go_away: Callable[[Wire], None]) -> None:
    with serve(max_waiting=1) as emulator:
        runtime = Api(emulator.url, emulator.token).open()
        for _ in range(3):
            with Wire(emulator.port) as poll:
                start_poll(poll, runtime)
                eventually(lambda: held(emulator)[0], "the poll is held")
                assert runtime.poll(wait=1).status_code == 503
                go_away(poll)
            eventually(lambda: not held(emulator)[0], "the poll is gone")
            assert runtime.poll(wait=1).status_code == 204


def test_a_stream_that_is_relayed_counts_until_it_ends(serve: Serve) -> None:
    with serve(max_waiting=1) as emulator:
        api = Api(emulator.url, emulator.token)
        runtime = api.open(deployed_app_rid=RID)
        with Wire(emulator.port) as client, Wire(emulator.port) as poster:
            client.request("POST", EXECUTE, api.bearer, CALL)
            eventually(lambda: held(emulator)[1], "the client waits")
            job_id = runtime.take_id()
            headers = {**runtime.headers, "Transfer-Encoding": "chunked"}
            poster.request("POST", f"{runtime.path}/results/{job_id}", headers)
            poster.send_chunk(b"1")
            assert client.head().status == 200
            assert runtime.poll(wait=1).status_code == 503
            poster.send_chunk(b"")
            assert b"".join(client.chunks()) == b"1"
        assert runtime.poll(wait=1).status_code == 204


def test_a_cell_s_call_waits_until_there_is_room(serve: Serve) -> None:
    with serve(max_waiting=1) as emulator:
        api = Api(emulator.url, emulator.token)
        runtime = api.open(deployed_app_rid=RID)
        with Wire(emulator.port) as poll, ThreadPoolExecutor(1) as pool:
            start_poll(poll, runtime)
            eventually(lambda: held(emulator)[0], "the poll is held")
            other = api.open("other")
            job_id = other.submit()
            other.take()
            result = pool.submit(emulator.job(job_id).result, 20)
            until_refused(emulator, f"PUT {RESULT}: ")
            poll.close()
            assert other.post_result(job_id, b"5").status_code == 204
            assert result.result() == 5
