"""Behind a hub: a real Jupyter server with jupyter-server-proxy, as a hub starts it, and an emulator beside it."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import requests
from client import (
    DEADLINE,
    EXECUTE,
    MODULE_HEADER,
    RESULT,
    RID,
    RUNTIMES,
    SUBMIT,
    Wire,
    WireAnswer,
    closed,
    error_code,
    eventually,
    free_port,
)
from conftest import TOKEN, serving
from environments import program
from lab_browser import CHROMIUM, lab_environ
from playwright.sync_api import expect, sync_playwright

from cmemu_nb.dashboard.activity import figures
from cmemu_nb.dashboard.flow import flow_part
from cmemu_nb.display.cards import show_emulator
from cmemu_nb.wire.jupyterhub import proxy_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cmemu_nb import Emulator

pytestmark = [pytest.mark.once, pytest.mark.long_lived]

PREFIX = "/user/jo%40example.org/"
HUB = "hub.example.org"
JUPYTER_TOKEN = "the-jupyter-token"
LOGIN = {"token": JUPYTER_TOKEN}
HEALTH = "/_emulate/health"
FETCH = """async ([url, token]) => [
    (await fetch(url)).status,
    (await fetch(url, {headers: {Authorization: `Bearer ${token}`}})).status,
]"""
BEARER = {"Authorization": f"Bearer {TOKEN}"}
IDS = ["my-runtime", "my runtime", "team/ä?x=1#2", "100%", "100%41", "a%2Fb", "ünï:;,=&+@!$'()*~|\\^`\"<>{}[]", "..."]


class Proxy:
    """The hub's address of an emulator, as it is asked by who is logged in to Jupyter."""

    def __init__(self, jupyter_port: int, emulator: Emulator) -> None:
        self.emulator = emulator
        self.root = f"http://127.0.0.1:{jupyter_port}"
        self.url = f"{self.root}{PREFIX}proxy/{emulator.port}"

    def session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        return session

    def send(
        self, method: str, uri: str, host: str = HUB, login: Mapping[str, str] = LOGIN, **kwargs: Any
    ) -> requests.Response:
        """Send a request as it comes from the hub: under its name, with what a browser on it would send."""
        url = uri if uri.startswith("http") else self.url + uri
        url = url.replace(f"https://{HUB}", self.root)
        headers = {"Host": host, **kwargs.pop("headers", {})}
        with self.session() as session:
            answer = session.request(method, url, headers=headers, params=login, timeout=DEADLINE, **kwargs)
            return closed(answer)

    def open(self, runtime_id: str, **kwargs: Any) -> requests.Response:
        body = {"runtimeId": runtime_id, "deployedAppRid": RID}
        return self.send("POST", RUNTIMES, json=body, **kwargs)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        connection.request("GET", f"{PREFIX}api")
        with contextlib.closing(connection), connection.getresponse() as answer:
            return answer.status == 200
    return False


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run a Jupyter server as a hub does; gives its port."""
    home, port = tmp_path_factory.mktemp("home"), free_port()
    # The tests take the place of the hub's own proxy, so they are trusted with the name they ask for.
    options = [f"--ServerApp.base_url={PREFIX}", f"--ServerApp.port={port}", "--ServerApp.allow_remote_access=True"]
    options += [
        "--ServerApp.port_retries=0",
        "--no-browser",
        "--allow-root",
        f"--IdentityProvider.token={JUPYTER_TOKEN}",
    ]
    log = home / "jupyter.log"
    environ = lab_environ(home) | {"JUPYTERHUB_SERVICE_PREFIX": PREFIX}
    with (
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, "-m", "jupyter_server", *options], cwd=home, env=environ, stdout=output, stderr=output
        ) as server,
    ):
        try:
            end = time.monotonic() + 60
            while not answers(port):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.05)
            yield port
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def served(jupyter: int) -> Iterator[Proxy]:
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("JUPYTERHUB_SERVICE_PREFIX", PREFIX)
        with serving() as emulator:
            yield Proxy(jupyter, emulator)


@pytest.fixture
def proxy(served: Proxy) -> Iterator[Proxy]:
    yield served
    served.emulator.reset()


def refused(answer: requests.Response, code: str) -> str:
    """Check that an answer refuses the sender, and return what it says."""
    assert answer.status_code == 403
    assert error_code(answer) == code
    said: str = answer.json()["error_description"]
    return said


# With a token


@pytest.mark.parametrize("runtime_id", IDS)
def test_a_runtime_lives_its_life_through_the_proxy_by_the_uris_it_was_answered(proxy: Proxy, runtime_id: str) -> None:
    session = proxy.open(runtime_id, headers={**BEARER, "X-Forwarded-Proto": "https"}).json()
    assert session["runtimeId"] == runtime_id
    assert session["getJobUri"].startswith(f"https://{HUB}{PREFIX}proxy/{proxy.emulator.port}{RUNTIMES}/")
    token = {MODULE_HEADER: session["moduleAuthToken"]}
    assert proxy.send("POST", session["postSchemaUri"], json={"functionName": "f"}, headers=token).status_code == 204
    body = {"deployedAppRid": RID, "queryType": "f", "query": {"x": 1}}
    job_id = proxy.send("POST", SUBMIT, json=body, headers=BEARER).json()["id"]
    job = proxy.send("GET", session["getJobUri"], headers={**token, "Prefer": "wait=10"}).json()["computeModuleJobV1"]
    assert (job["jobId"], job["query"]) == (job_id, {"x": 1})
    posted = proxy.send("POST", f"{session['postResultUri']}/{job_id}", data=b"\x00 any bytes", headers=token)
    assert posted.status_code == 204
    result = proxy.send("PUT", RESULT, json={"id": job_id}, headers=BEARER)
    assert result.content == b"\x00 any bytes"


@pytest.mark.parametrize("runtime_id", ["my-runtime", "my runtime", "ä", "100%"])
def test_a_program_that_encodes_an_ordinary_id_itself_reaches_it_too(proxy: Proxy, runtime_id: str) -> None:
    proxy.emulator.open_runtime(runtime_id)
    shown = proxy.send("GET", f"{RUNTIMES}/{quote(runtime_id, safe='')}", headers=BEARER)
    assert shown.json()["runtime"]["runtime_id"] == runtime_id


def test_beside_the_proxy_uris_stay_local(proxy: Proxy) -> None:
    runtime = proxy.emulator.open_runtime("team/a")
    assert runtime.get_job_uri == f"{proxy.emulator.url}{RUNTIMES}/team%2Fa/job"
    opened = requests.post(proxy.emulator.url + RUNTIMES, json={"runtimeId": "team/a"}, timeout=DEADLINE)
    closed(opened)
    assert opened.json()["getJobUri"] == runtime.get_job_uri


def test_the_scheme_is_the_one_that_the_outermost_proxy_was_asked_by(proxy: Proxy) -> None:
    def scheme(told: str) -> str:
        opened = proxy.open("r", headers={**BEARER, "X-Forwarded-Proto": told})
        return str(opened.json()["getJobUri"]).partition(":")[0]

    assert [scheme(told) for told in ("https", "https,http", "http", "javascript", "")] == [
        *("https", "https", "http", "http", "http"),
    ]


@pytest.mark.parametrize("how", [{}, {"Accept": "text/event-stream"}], ids=["whole", "as it arrives"])
def test_a_stream_arrives_as_it_is_posted_for_who_accepts_an_event_stream(proxy: Proxy, how: dict[str, str]) -> None:
    runtime = proxy.emulator.open_runtime("r", RID)
    body = {"deployedAppRid": RID, "queryType": "f", "query": {}}
    with ThreadPoolExecutor(1) as pool, Wire(proxy.emulator.port) as executor, proxy.session() as session:
        asked = pool.submit(
            session.post,
            f"{proxy.url}{EXECUTE}?token={JUPYTER_TOKEN}",
            json=body,
            stream=True,
            headers={"Host": HUB, **BEARER, **how},
            timeout=DEADLINE,
        )
        job = eventually(lambda: proxy.emulator.lifecycle.newest_jobs(1), "the job is queued")[0]
        token = {MODULE_HEADER: runtime.token}
        executor.request("GET", f"{RUNTIMES}/r/job", token)
        assert executor.answer().status == 200
        executor.request("POST", f"{RUNTIMES}/r/results/{job.job_id}", {**token, "Transfer-Encoding": "chunked"})
        executor.send_chunk(b"first")
        if how:
            with asked.result() as answer:
                pieces = answer.iter_content(5)
                assert next(pieces) == b"first"
                executor.send_chunk(b"last")
                executor.send_chunk(b"")
                assert b"".join(pieces) == b"last"
                closed(answer)
        else:
            executor.send_chunk(b"last")
            executor.send_chunk(b"")
            assert closed(asked.result()).content == b"firstlast"
        assert executor.answer().status == 204


# Without one


@pytest.mark.parametrize("path", [HEALTH, "/openapi.json", f"{RUNTIMES}/r/jobs/j", "/no/such/route", RUNTIMES])
def test_who_sends_no_token_through_the_proxy_is_told_to_send_one(proxy: Proxy, path: str) -> None:
    said = refused(proxy.send("GET", path), "forbidden_host")
    assert "send 'Authorization: Bearer <token>' with the emulator's token" in said
    assert proxy.send("GET", path, headers=BEARER).status_code != 403


@pytest.mark.parametrize("origin", ["https://evil.example", f"https://{HUB}", "null"])
def test_a_page_of_any_site_can_open_no_session_with_its_users_login_alone(proxy: Proxy, origin: str) -> None:
    kept = proxy.emulator.open_runtime("r").token
    for host in (HUB, "localhost"):
        answer = proxy.open("r", host=host, headers={"Origin": origin})
        said = refused(answer, "forbidden_host" if host == HUB else "forbidden_origin")
        assert "needs a token" in said
    assert proxy.emulator.runtime("r").token == kept
    assert proxy.open("r", headers={"Origin": origin, **BEARER}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {MODULE_HEADER: "foundry_module_auth_wrong"}],
    ids=["bearer", "scheme", "module"],
)
def test_a_token_that_is_wrong_is_none(proxy: Proxy, headers: dict[str, str]) -> None:
    refused(proxy.send("GET", HEALTH, headers=headers), "forbidden_host")


def test_a_module_token_opens_what_it_opens_beside_the_proxy(proxy: Proxy) -> None:
    mine, other = (proxy.emulator.open_runtime(name).token for name in ("mine", "other"))
    poll = f"{RUNTIMES}/mine/job"
    assert proxy.send("GET", poll, headers={MODULE_HEADER: mine}).status_code == 204
    assert proxy.send("GET", poll, headers={MODULE_HEADER: other}).status_code == 401
    proxy.emulator.open_runtime("mine")
    refused(proxy.send("GET", poll, headers={MODULE_HEADER: mine}), "forbidden_host")


def test_an_executor_whose_login_takes_the_place_of_the_bearer_token_polls_and_posts(proxy: Proxy) -> None:
    runtime = proxy.emulator.open_runtime("r", RID)
    job = proxy.emulator.submit("f")
    headers = {"Authorization": f"token {JUPYTER_TOKEN}", MODULE_HEADER: runtime.token}
    polled = proxy.send("GET", f"{RUNTIMES}/r/job", login={}, headers=headers)
    assert polled.json()["computeModuleJobV1"]["jobId"] == job.id
    assert proxy.send("POST", f"{RUNTIMES}/r/results/{job.id}", login={}, headers=headers, data=b"1").status_code == 204
    assert job.result() == 1


def test_the_login_of_who_asks_is_in_no_event(proxy: Proxy) -> None:
    refused(proxy.send("GET", HEALTH), "forbidden_host")
    events = proxy.emulator.lifecycle.events.recent()
    assert events[-1].kind == "request_refused"
    assert not [event for event in events if JUPYTER_TOKEN in str(event)]


def test_who_is_not_logged_in_to_jupyter_does_not_get_so_far(proxy: Proxy) -> None:
    assert proxy.send("GET", HEALTH, login={}, headers=BEARER, allow_redirects=False).status_code == 302


def test_the_address_that_says_nothing_of_the_proxy_is_refused(proxy: Proxy) -> None:
    url = proxy.url.replace("/proxy/", "/proxy/absolute/")
    said = refused(proxy.send("GET", url + HEALTH, headers=BEARER), "forbidden_host")
    assert "does not name this machine" in said


@pytest.mark.browser
def test_in_chromium_the_hub_s_page_and_the_dashboard_get_in_with_the_token_and_another_site_s_form_does_not(
    proxy: Proxy,
) -> None:
    kept = proxy.emulator.open_runtime("r").token
    hub = proxy.root.replace("127.0.0.1", HUB)
    target = proxy.url.replace(proxy.root, hub)
    # As text it is JSON: {"runtimeId": "r", "x": "="}
    form = (
        f'<form method="post" enctype="text/plain" action="{target}{RUNTIMES}">'
        """<input name='{"runtimeId": "r", "x": "' value='"}'></form><script>document.forms[0].submit()</script>"""
    )
    with sync_playwright() as playwright:
        rules = f"--host-resolver-rules=MAP {HUB} 127.0.0.1"
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=[*CHROMIUM, rules])
        page = browser.new_page()
        page.goto(f"{hub}{PREFIX}api/status?token={JUPYTER_TOKEN}")
        page.goto(f"{hub}{PREFIX}any-page")
        statuses = page.evaluate(FETCH, [f"{target}{HEALTH}", TOKEN])
        page.goto(f"{target}/ui#token={TOKEN}")
        expect(page.get_by_role("tablist")).to_be_visible(timeout=DEADLINE * 1000)
        job_id = proxy.emulator.runtime("r").enqueue("double").id
        expect(page.get_by_text(f"…{job_id[-6:]}")).to_be_visible(timeout=DEADLINE * 1000)
        assert page.url == f"{target}/ui"
        page.route("http://evil.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
        with page.expect_response(f"{target}{RUNTIMES}") as posted:
            page.goto("http://evil.example/", wait_until="commit")
        refusal = (posted.value.status, posted.value.json()["error"])
        browser.close()
    assert statuses == [403, 200]
    assert refusal == (403, "forbidden_host")
    assert proxy.emulator.runtime("r").token == kept


# The header


def told(emulator: Emulator, *contexts: str, host: str = HUB, token: bool = True) -> WireAnswer:
    """Ask the emulator itself, as a page that has its name point here would."""
    lines = "".join(f"X-Forwarded-Context: {each}\r\n" for each in contexts)
    bearer = f"Authorization: Bearer {TOKEN}\r\n" if token else ""
    with Wire(emulator.port) as connection:
        connection.send(f"GET {HEALTH} HTTP/1.1\r\nHost: {host}\r\n{bearer}{lines}\r\n".encode("latin-1"))
        return connection.answer()


def test_whoever_sends_the_header_needs_a_token(proxy: Proxy) -> None:
    context = f"{PREFIX}proxy/{proxy.emulator.port}"
    assert told(proxy.emulator, context).status == 200
    assert told(proxy.emulator, context, token=False).error() == "forbidden_host"


@pytest.mark.parametrize(
    "contexts",
    [
        (),
        ("/user/somebody/proxy/4000",),
        (PREFIX.rstrip("/"),),
        (f"{PREFIX}proxy/4000", f"{PREFIX}proxy/4000"),
        (f"{PREFIX}proxy/<b>",),
        (f"{PREFIX}proxy/\xe4",),
        (f"https://{HUB}{PREFIX}",),
    ],
)
def test_a_header_that_is_not_of_this_hub_means_nothing(proxy: Proxy, contexts: tuple[str, ...]) -> None:
    assert told(proxy.emulator, *contexts).error() == "forbidden_host"


def test_without_a_hub_the_header_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX", raising=False)
    with serving() as emulator:
        context = f"{PREFIX}proxy/{emulator.port}"
        assert emulator.proxy_url is None
        assert told(emulator, context).error() == "forbidden_host"
        headers = {"X-Forwarded-Context": context, "X-Forwarded-Proto": "https"}
        opened = requests.post(emulator.url + RUNTIMES, json={"runtimeId": "a/b"}, headers=headers, timeout=DEADLINE)
        closed(opened)
        assert opened.json()["getJobUri"] == f"{emulator.url}{RUNTIMES}/a%2Fb/job"


# What people see


def test_what_is_shown_is_where_the_proxy_serves(proxy: Proxy) -> None:
    shown = proxy.emulator.proxy_url
    assert shown == f"{PREFIX}proxy/{proxy.emulator.port}"
    assert proxy.send("GET", proxy.root + shown + HEALTH, headers=BEARER).json()["status"] == "ok"
    assert shown in repr(proxy.emulator)
    assert f"behind the hub  {shown}" in show_emulator(proxy.emulator)["text/plain"]
    assert flow_part(proxy.emulator, figures([], 0, 0), 0)["facts"]["proxy_url"] == shown
    assert proxy.emulator.url == f"http://127.0.0.1:{proxy.emulator.port}"


@pytest.mark.parametrize(
    ("prefix", "public", "expected"),
    [
        ("/user/jo/", "https://hub.example.org/user/jo/", "https://hub.example.org/user/jo/proxy/4000"),
        ("/user/jo/", "https://hub.example.org/", "/user/jo/proxy/4000"),
        ("/user/jo/", "/user/jo/", "/user/jo/proxy/4000"),
        ("/user/jo", "", "/user/jo/proxy/4000"),
        ("/", "", None),
        ("", "https://hub.example.org/user/jo/", None),
    ],
)
def test_the_host_is_told_where_the_hub_tells_it(
    monkeypatch: pytest.MonkeyPatch, prefix: str, public: str, expected: str | None
) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", prefix)
    monkeypatch.setenv("JUPYTERHUB_PUBLIC_URL", public)
    assert proxy_url(4000) == expected
