"""The platform routes over TLS, as a client sees them that knows the host, its token and the authority's file."""

from __future__ import annotations

import json
import logging
import ssl
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
import pytest
import requests
import trustme
from client import RUNTIMES, Api, closed, error_code, eventually
from conftest import waiting_of

from cmemu_nb import Emulator
from cmemu_nb.storage.certificates import CA_BUNDLES
from cmemu_nb.wire.paths import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmemu_nb.calls.handles import RuntimeHandle

RID = "ri.foundry.main.deployed-app.real"
PROGRAMS = Path(__file__).parent / "programs"


class Client:
    """A plain client of the platform routes."""

    def __init__(self, emulator: Emulator, token: str) -> None:
        self.url = f"{emulator.platform_url}{PLATFORM}"
        self.authority = str(emulator.certificates.authority_path)
        self.headers = {"Module-Auth-Token": token}

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        options["headers"] = {**self.headers, **options.get("headers", {})}
        return closed(requests.request(method, f"{self.url}{path}", verify=self.authority, timeout=30, **options))

    def poll(self, wait: int = 1) -> requests.Response:
        return self.send("GET", "/job", headers={"Prefer": f"wait={wait}"})

    def take(self) -> str:
        answer = self.poll(30)
        assert answer.status_code == 200, answer.text
        job_id: str = answer.json()["computeModuleJobV1"]["jobId"]
        return job_id

    def post(self, job_id: str, body: Any) -> int:
        return self.send("POST", f"/results/{job_id}", data=body).status_code


@pytest.fixture
def emu(serve: Callable[..., Any]) -> Iterator[Emulator]:
    with serve(refusal_seconds=0.05) as emulator:
        yield emulator
        emulator.reset()


@pytest.fixture
def runtime(emu: Emulator) -> RuntimeHandle:
    return emu.open_runtime("real", deployed_app_rid=RID)


def token_of(environment: dict[str, str]) -> str:
    return Path(environment["MODULE_AUTH_TOKEN"]).read_text()


def replica(emu: Emulator, tasks: int = 1) -> Client:
    return Client(emu, token_of(emu.env("real", tasks)))


def test_the_certificate_is_valid_for_this_machine_and_the_authority_is_its_own(emu: Emulator) -> None:
    context = ssl.create_default_context(cafile=str(emu.certificates.authority_path))
    assert len(context.get_ca_certs()) == 1
    for host in ("localhost", "127.0.0.1", "127.0.1.1"):
        url = f"{emu.platform_url.replace('127.0.0.1', host)}/_emulate/health"
        health = requests.get(url, verify=str(emu.certificates.authority_path), timeout=10).json()
        assert health["status"] == "ok"


def test_a_client_that_asks_for_the_address_of_the_machine_s_name_arrives_where_debian_puts_it(emu: Emulator) -> None:
    named = "import runpy, socket; socket.gethostbyname = lambda name: '127.0.1.1'"
    program = ["python", "-c", f"{named}; runpy.run_path({str(PROGRAMS / 'custom_client.py')!r})"]
    emu.launch(program, "real", environment={"HTTPS_PROXY": "http://127.0.0.1:9"}).wait_until_responsive()
    assert emu.call("halve", {"n": 5}) == 2.5


@pytest.fixture
def silent_tornado() -> Iterator[None]:
    """Tornado's loggers as `import distributed` leaves them."""
    logger = logging.getLogger("tornado")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def distrusted(emulator: Emulator) -> bool:
    """Send a request without the authority, and return whether the newest event says so."""
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{emulator.platform_url}/_emulate/health", timeout=10)
    return bool(eventually(lambda: "UNKNOWN_CA" in emulator.events.detail.iloc[-1], "the event"))


@pytest.mark.usefixtures("silent_tornado")
def test_a_client_that_does_not_trust_the_authority_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    general = logging.getLogger("tornado.general")
    with Emulator(port=0) as emulator, Emulator(port=0) as other:
        assert distrusted(emulator)
        assert distrusted(other)
        general.error("a line of another server")
    general.error("a line after the end")
    assert caplog.messages == []
    general.critical("a critical line")
    assert caplog.messages == ["a critical line"]


def test_token_and_certificate_files_are_their_owner_s_alone_and_go_with_the_emulator(
    serve: Callable[..., Any],
) -> None:
    with serve() as emulator:
        emulator.open_runtime("real")
        environment = emulator.env("real")
        for name in ("MODULE_AUTH_TOKEN", "DEFAULT_CA_PATH", "CONNECTIONS_TO_OTHER_PODS_CA_PATH", "SSL_CERT_FILE"):
            assert stat.S_IMODE(Path(environment[name]).stat().st_mode) == 0o600
        assert stat.S_IMODE(emulator.files.path.stat().st_mode) == 0o700
        folder = emulator.files.path
    emulator.files.close()
    assert not folder.exists()


def test_a_module_trusts_public_authorities_and_those_of_the_notebook_s_environment_too(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    organisation = trustme.CA()
    organisation.cert_pem.write_to_path(tmp_path / "organisation.pem")
    for name in CA_BUNDLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "organisation.pem"))
    public = set(authorities(certifi.where()))
    with serve() as emulator:
        emulator.open_runtime("real")
        environment = emulator.env("real")
        (bundle,) = {environment[name] for name in CA_BUNDLES}
        ours = authorities(environment["DEFAULT_CA_PATH"])
        assert len(public) > 100
        assert set(authorities(bundle)) == {*public, *ours, *authorities(tmp_path / "organisation.pem")}
        assert len(authorities(bundle)) == len(public) + 2


def authorities(path: str | Path) -> list[bytes]:
    return ssl.create_default_context(cafile=path).get_ca_certs(binary_form=True)


def test_a_job_is_run_over_tls(emu: Emulator, runtime: RuntimeHandle) -> None:
    client = Client(emu, runtime.token)
    assert client.send("POST", "/schemas", json=[{"functionName": "f", "schema": {}}]).status_code == 204
    job = emu.submit("f", {"x": 1})
    answer = client.poll()
    assert answer.json() == {
        "type": "computeModuleJobV1",
        "computeModuleJobV1": {"jobId": job.id, "queryType": "f", "query": {"x": 1}},
    }
    assert client.post(job.id, b"42") == 204
    assert job.result() == 42
    assert list(emu.schemas.index) == [("real", "f")]


def test_the_platform_routes_are_served_on_the_plain_port_too(emu: Emulator, runtime: RuntimeHandle) -> None:
    job = emu.submit("f")
    answer = requests.get(f"{emu.url}{PLATFORM}/job", headers={"Module-Auth-Token": runtime.token}, timeout=10)
    assert answer.json()["computeModuleJobV1"]["jobId"] == job.id


@pytest.mark.usefixtures("runtime")
def test_the_first_poll_of_a_replica_is_answered_at_once_and_the_next_waits_for_a_job(emu: Emulator) -> None:
    client = replica(emu)
    assert client.send("GET", "/job").status_code == 204
    with ThreadPoolExecutor() as pool:
        polling = pool.submit(client.poll, 30)
        eventually(lambda: emu.event_frame(all=True).kind.tolist().count("poll_empty") == 1, "it waits")
        job = emu.submit("f")
        assert polling.result().json()["computeModuleJobV1"]["jobId"] == job.id


def test_a_wrong_token_is_refused_late(serve: Callable[..., Any]) -> None:
    with serve(refusal_seconds=0.5) as emulator:
        start = time.monotonic()
        answer = Client(emulator, "wrong").send("GET", "/job")
        assert (answer.status_code, error_code(answer)) == (401, "invalid_module_auth_token")
        assert time.monotonic() - start >= 0.5


def test_a_revoked_token_is_refused_while_it_waits(emu: Emulator, runtime: RuntimeHandle) -> None:
    client = replica(emu)
    client.send("GET", "/job")
    with ThreadPoolExecutor() as pool:
        polling = pool.submit(client.poll, 30)
        runtime.reset()
        assert polling.result().status_code == 401


@pytest.mark.usefixtures("runtime")
def test_a_replica_gets_no_more_jobs_at_a_time_than_it_may(emu: Emulator) -> None:
    client, other = replica(emu, 2), replica(emu)
    jobs = [emu.submit("f", n) for n in range(5)]
    taken = [client.take(), client.take()]
    assert client.poll().status_code == 204
    assert other.take() == jobs[2].id
    with ThreadPoolExecutor() as pool:
        polling = pool.submit(client.take)
        assert client.post(taken[0], b"1") == 204
        assert polling.result() == jobs[3].id
        polling = pool.submit(client.take)
        eventually(lambda: waiting_of(emu)._slots, "it waits until it may have one more")  # noqa: SLF001
        jobs[1].fail("by hand")
        assert polling.result() == jobs[4].id


@pytest.mark.usefixtures("runtime")
def test_a_full_replica_that_waits_leaves_jobs_to_the_others(emu: Emulator) -> None:
    full, free = replica(emu), replica(emu)
    emu.submit("f")
    full.take()
    free.poll()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(full.poll, 5)
        free_waiting = pool.submit(free.poll, 30)
        eventually(lambda: len(emu.lifecycle.events.recent(all=True)) > 0, "both wait")
        job = emu.submit("f")
        assert free_waiting.result().json()["computeModuleJobV1"]["jobId"] == job.id
        assert waiting.result().status_code == 204


@pytest.mark.usefixtures("runtime")
def test_a_restarted_replica_s_jobs_fail_and_the_others_go_on(emu: Emulator) -> None:
    client, other = replica(emu, 2), replica(emu)
    jobs = [emu.submit("f") for _ in range(3)]
    client.take()
    client.take()
    assert other.take() == jobs[2].id
    answer = client.send("POST", "/restart")
    assert (answer.status_code, answer.json()) == (200, [jobs[0].id, jobs[1].id])
    assert [job.record.error_message for job in jobs] == ["the replica restarted"] * 2 + [None]
    assert jobs[2].status == "running"


def test_results_that_come_too_late_are_noted_change_nothing_and_are_no_error(
    emu: Emulator, runtime: RuntimeHandle
) -> None:
    client = Client(emu, runtime.token)
    job = emu.submit("f")
    client.take()
    job.fail("by hand")
    assert client.post(job.id, b'"late"') == 204
    assert client.post(job.id, iter([b'"la', b'te"'])) == 204
    assert client.post(job.id, json.dumps({"error": "why"}).encode()) == 204
    late = [event.detail for event in emu.lifecycle.events.recent() if event.kind == "late_result"]
    assert late == ['"late"', '"late"', '{"error": "why"}']
    assert job.record.error_message == "by hand: why"


def test_a_job_that_is_failed_while_its_result_streams_in_stays_failed(emu: Emulator, runtime: RuntimeHandle) -> None:
    client = Client(emu, runtime.token)
    job = emu.submit("f")
    client.take()
    go_on = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield b'"a"'
        go_on.wait()
        yield b'"b"'

    with ThreadPoolExecutor() as pool:
        posting = pool.submit(client.post, job.id, chunks())
        eventually(lambda: (stream := emu.lifecycle.stream(job.id)) and stream.body, "the first chunk has come")
        job.fail("by hand")
        go_on.set()
        assert posting.result() == 204
    assert (job.status, job.record.result) == ("failed", None)


def test_ids_that_were_never_issued_and_jobs_that_still_queue_are_refused(
    emu: Emulator, runtime: RuntimeHandle
) -> None:
    client = Client(emu, runtime.token)
    assert client.post("foundry_job_nobody", b"1") == 404
    assert client.post(emu.submit("f").id, b"1") == 409


def test_the_same_result_again_changes_nothing(emu: Emulator, runtime: RuntimeHandle) -> None:
    client = Client(emu, runtime.token)
    job = emu.submit("f")
    client.take()
    assert [client.post(job.id, b"1"), client.post(job.id, b"1")] == [204, 204]
    assert "late_result" not in [event.kind for event in emu.lifecycle.events.recent()]
    assert Api(emu.url, emu.token).contour("GET", RUNTIMES).status_code == 200
