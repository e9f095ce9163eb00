"""What security.md promises: who is let in, what is told of tokens, who can read the files that hold them."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import stat
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, quote_plus, unquote_plus

import nbformat
import pytest
import requests
import yaml
from client import CONTOUR, DEADLINE, EXECUTE, MODULE_HEADER, RESULT, RID, RUNTIMES, Api, Wire, eventually
from conftest import waiting_of
from environments import clean_environ
from IPython.lib.pretty import pretty
from jupyter_server.base.handlers import JupyterHandler
from nbclient import NotebookClient
from test_notebooks import ThisPython

import cmemu_nb
from cmemu_nb import Emulator, errors
from cmemu_nb.arguments import given_settings
from cmemu_nb.clients.http import HttpClient
from cmemu_nb.dashboard.activity import Activity, figures
from cmemu_nb.dashboard.flow import flow_part
from cmemu_nb.dashboard.runtimes import runtimes_part
from cmemu_nb.dashboard.summary import summary
from cmemu_nb.errors import ExportRefused, ExposedWarning, LaunchFailed, NotRunning, SettingError
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.notebook.commands import parse
from cmemu_nb.storage import configuration_file
from cmemu_nb.storage.private_files import PrivateFiles
from cmemu_nb.tokens import Token, last_four
from cmemu_nb.wire.masking import Mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Connect = Callable[[], Wire]
    Serve = Callable[..., AbstractContextManager[Emulator]]

pytestmark = pytest.mark.once

HEALTH = "/_emulate/health"
PLATFORM = "/interactive-module/api/internal-query"
BEARER = "bearer-0123456789-abcdefgh"
FURTHER = "further-0123456789-abcdefg"
SECRET = "client-secret-0123456789"
TOKENS: dict[str, Any] = {"token": BEARER, "tokens": [FURTHER]}
# Constants: the variables of a function would be in tracebacks.
MODULE: dict[str, Any] = {
    "client": {"id": "app", "secret": SECRET},
    "build2_token": SECRET,
    "sources": {"s": {"key": SECRET}},
}
PRINTS_ITS_TOKEN = "import os; print('my token is', open(os.environ['MODULE_AUTH_TOKEN']).read())"


# Listening for other machines


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_a_loopback_address_needs_no_permission_and_gives_no_warning(host: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for allow_remote in (False, True):
            with Emulator(port=0, host=host, allow_remote=allow_remote, home="thread") as emulator:
                assert emulator.running


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "a.host.invalid"])
def test_any_other_address_needs_allow_remote(host: str) -> None:
    with pytest.raises(SettingError, match=r"would let other machines connect\. Set allow_remote=True"):
        Emulator(host=host)


@pytest.mark.parametrize("redirect_uris", [[], ["http://localhost:3000/callback"]])
def test_a_warning_says_what_listening_for_other_machines_exposes(redirect_uris: list[str]) -> None:
    settings: dict[str, Any] = {"allow_remote": True, "redirect_uris": redirect_uris}
    with pytest.warns(ExposedWarning) as warned:
        emulator = Emulator(port=0, host="0.0.0.0", home="thread", **settings).start()
    with emulator:
        (warning,) = warned
        said = str(warning.message)
        assert said.startswith(f"The emulator listens on 0.0.0.0 port {emulator.port}, which other machines can reach.")
        assert "without any token, open and reset sessions" in said
        assert "plain HTTP" in said
        assert ("They can also sign in as any user" in said) == bool(redirect_uris)
        assert emulator.token not in said
        assert warning.filename == __file__


def test_where_warnings_are_errors_it_does_not_listen_and_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    emulator = Emulator(port=0, host="0.0.0.0", allow_remote=True, home="thread")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ExposedWarning):
            emulator.start()
    assert not emulator.running
    assert set(threading.enumerate()) == before


def test_the_address_that_it_listens_on_may_be_used_as_host() -> None:
    with Emulator(port=0, host="127.0.0.2", home="thread") as emulator:
        emulator.open_runtime("r", RID)
        assert emulator.submit("f").status == "queued", "its own client is let in"


# Hosts and origins

HOSTS = [
    *("localhost", "localhost:4000", "127.0.0.1", "127.0.0.1:4000", "127.8.9.1", "[::1]", "[::1]:4000", "::1"),
    *("localhost.", "localhost.:4000", "127.0.0.1.", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "0", "0.0.0.0"),
    *("[::]", "[::ffff:192.0.2.1]", "[fe80::1]", "192.168.1.5:4000", "evil.example", "evil.example:4000"),
    *("localhost.evil.example", "127.0.0.1.evil.example", "evil.example#localhost", "localhost evil.example"),
    *("box", "box:4000", "other-box", "box.evil.example", "evil-box"),
]


def jupyter_allows(host: str) -> bool:
    settings = {"local_hostnames": ["localhost", "box"]}
    handler = SimpleNamespace(settings=settings, request=SimpleNamespace(host=host), log=logging.getLogger("jupyter"))
    allowed: bool = JupyterHandler.check_host(cast("Any", handler))
    return allowed


def test_the_same_hosts_are_let_in_as_by_jupyter_server(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with serve(local_hostnames=["box"]) as emulator:
        told = {}
        for host in HOSTS:
            with Wire(emulator.port) as connection:
                connection.request("GET", HEALTH, {"Host": host})
                told[host] = connection.answer().status == 200
    assert told["localhost"]
    assert not told["evil.example"]
    # We take an IPv6 address only in brackets, as HTTP writes it.
    assert told.pop("::1") is False
    assert told == {host: jupyter_allows(host) for host in told}
    assert caplog.records


FORMS = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"]
SITES = ["null", "https://evil.example", "http://evil.example:4000", "file://", "http://localhost.evil.example"]


@pytest.mark.parametrize("content_type", FORMS)
@pytest.mark.parametrize("origin", SITES)
def test_a_form_of_another_site_changes_nothing(api: Api, wire: Connect, origin: str, content_type: str) -> None:
    runtime = api.open("r", RID)
    job_id = runtime.submit()
    headers = {"Origin": origin, "Content-Type": content_type, "Sec-Fetch-Site": "cross-site"}
    for method, path, token in [
        ("POST", RUNTIMES, {}),
        ("DELETE", RUNTIMES, api.bearer),
        ("POST", f"{runtime.path}/jobs/{job_id}/fail", runtime.headers),
        ("POST", f"{runtime.path}/schemas", runtime.headers),
        ("POST", EXECUTE, api.bearer),
        ("POST", f"{PLATFORM}/restart", runtime.headers),
    ]:
        connection = wire()
        connection.request(method, path, {**headers, **token}, b'{"runtimeId": "r", "reason": "x"}')
        answer = connection.answer()
        assert (answer.status, answer.error()) == (403, "forbidden_origin")
    assert runtime.take_id() == job_id


@pytest.mark.parametrize("path", [RUNTIMES, EXECUTE, HEALTH, "/openapi.json"])
def test_no_page_is_allowed_to_send_what_needs_permission(api: Api, wire: Connect, path: str) -> None:
    """A browser asks first (CORS preflight), and is not told yes."""
    connection = wire()
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    connection.request("OPTIONS", path, {"Origin": api.url, **asked})
    answer = connection.answer()
    assert answer.status == (403 if path == EXECUTE else 405)
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


# Who is let in


@pytest.mark.parametrize(
    "given",
    [
        *("", "x", BEARER[:-1], BEARER + "x", BEARER[:-1] + "i", BEARER.upper(), f"{BEARER} {BEARER}"),
        *(f"{BEARER},{BEARER}", f'"{BEARER}"', "é" * 26, "\xff", "x" * 50_000),
    ],
)
def test_a_bearer_token_that_is_nearly_right_is_refused(serve: Serve, given: str) -> None:
    with serve(token=BEARER) as emulator, Wire(emulator.port) as connection:
        for wanted, header in ((401, given), (200, BEARER)):
            head = f"GET {RUNTIMES} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {header}\r\n\r\n"
            connection.send(head.encode("latin-1"))
            assert connection.answer().status == wanted


def test_a_module_token_that_is_nearly_right_is_refused(serve: Serve) -> None:
    with serve(refusal_seconds=0) as emulator:
        refuse_module_tokens(Api(emulator.url, emulator.token))


def refuse_module_tokens(api: Api) -> None:
    runtime, other = api.open("r"), api.open("other")
    token = runtime.session["moduleAuthToken"]
    for given in ("", "x", token[:-1], token + "x", token.upper(), other.session["moduleAuthToken"], "é", "x" * 50_000):
        for path in (f"{runtime.path}/job", f"{PLATFORM}/job"):
            if path.startswith(PLATFORM) and given == other.session["moduleAuthToken"]:
                continue
            assert api.send("GET", path, headers={MODULE_HEADER: given.encode()}).status_code == 401
    assert runtime.poll().status_code == 204


def test_tokens_are_long_and_no_two_are_the_same(api: Api) -> None:
    tokens = [api.open("r").session["moduleAuthToken"] for _ in range(50)] + [Emulator().token for _ in range(50)]
    assert len(set(tokens)) == 100
    assert min(len(token.removeprefix("foundry_module_auth_")) for token in tokens) >= 43, "32 random bytes"


# Tokens on shared hosts


def shown_runtimes(api: Api, runtime: Any, job_id: str) -> list[dict[str, Any]]:
    listed = api.contour("GET", RUNTIMES).json()["runtimes"]
    return [runtime.inspect(job_id)["runtime"], runtime.show()["runtime"], *listed]


def test_hide_tokens_tells_the_token_only_to_who_opens_the_session(serve: Serve) -> None:
    with serve(hide_tokens=True) as emulator:
        api = Api(emulator.url, emulator.token)
        runtime = api.open("r", RID)
        token = runtime.session["moduleAuthToken"]
        job_id = runtime.submit()
        for shown in shown_runtimes(api, runtime, job_id):
            assert "module_auth_token" not in shown
            assert (shown["runtime_id"], shown["connected"]) == ("r", False)
        assert runtime.take_id() == job_id
        assert emulator.runtime("r").token == token


def test_without_it_the_routes_show_the_token(api: Api) -> None:
    runtime = api.open("r", RID)
    job_id = runtime.submit()
    tokens = {shown["module_auth_token"] for shown in shown_runtimes(api, runtime, job_id)}
    assert tokens == {runtime.session["moduleAuthToken"]}


def test_the_magic_takes_the_options_of_a_shared_host() -> None:
    _, given = parse("start --hide-tokens --allow-remote --max-waiting 5 --slow-client-seconds 2.5 --token abc", {})
    assert given_settings(given) == {
        "hide_tokens": True,
        "allow_remote": True,
        "max_waiting": 5,
        "slow_client_seconds": 2.5,
        "token": "abc",
    }
    assert "abc" not in repr(given)


# Files


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("no_umask")
def test_files_with_tokens_and_keys_are_their_owner_s_alone(serve: Serve) -> None:
    with serve() as emulator:
        emulator.open_runtime("r", RID)
        emulator.env("r", sources={"s": {"key": SECRET}}, build2_token=SECRET, aliases={"a": {"rid": "ri.a"}})
        folder = emulator.files.path
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert {path.name.rpartition("-")[0] for path in files} >= {"token", "build2_token", "source_credentials"}
        assert {rights(path) for path in files} == {0o600}
        assert rights(folder) == 0o700


@pytest.mark.usefixtures("no_umask")
@pytest.mark.parametrize("content", [b"short", b"longer than what was there before"])
def test_a_file_that_is_written_again_gets_its_rights_back(content: bytes) -> None:
    files = PrivateFiles()
    path = files.write("token", b"the first content")
    path.chmod(0o666)
    assert files.write("token", content) == path
    assert (rights(path), path.read_bytes()) == (0o600, content)
    assert rights(files.folder("modules")) == 0o700
    files.close()


# Tokens in what is shown


def test_a_token_shows_its_last_four_characters_and_is_whole_where_it_is_used() -> None:
    token = Token(BEARER)
    assert repr(token) == "'…efgh'"
    assert BEARER not in f"{[token]} { ({'a': token}) } {pretty(token)} {token!r}"
    assert token == BEARER
    assert f"{token}" == str(token) == json.loads(json.dumps(token)) == BEARER
    assert repr(Token("short")) == "'…'"


def test_texts_are_masked() -> None:
    module = "foundry_module_auth_" + "aB3-_x" * 7
    text = f"GET /runtimes/{module}/job, {BEARER}, abc"
    assert Mask(BEARER, "abc")(text) == f"GET /runtimes/{last_four(module)}/job, {last_four(BEARER)}, abc"
    assert Mask(BEARER)("nothing to hide") == "nothing to hide"


HARD = 'p"a\\s/s wö+rd&=%ü-\U0001f600-1234567'


def base64_of(text: str) -> str:
    return base64.b64encode(f"id:{text}!".encode()).decode()


@pytest.mark.parametrize("secret", [HARD, BEARER, "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\n-----END KEY-----\n"])
@pytest.mark.parametrize(
    "form",
    [
        *(str, quote, quote_plus, json.dumps, repr, base64_of),
        lambda text: quote(text, safe=""),
        lambda text: quote(quote(text)),
        lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
        lambda text: json.dumps(json.dumps({"a": text})),
        lambda text: json.dumps(text, ensure_ascii=False),
        lambda text: json.dumps({"url": f"http://x/?q={quote_plus(text)}"}),
    ],
)
def test_a_secret_is_masked_in_whatever_usual_form_it_stands(secret: str, form: Callable[[str], str]) -> None:
    text = form(secret)
    masked = Mask(secret, "another-secret")(f"GET /before/{text}/after")
    assert masked.startswith("GET /before/")
    assert masked.endswith("/after")
    for layers in (masked, unquote_plus(masked), unquote_plus(unquote_plus(masked)), masked.replace("\\", "")):
        for line in secret.splitlines():
            assert line[: len(line) // 2] not in layers
            assert line[-(len(line) // 2) :] not in layers
    parts = re.findall("[A-Za-z0-9+/=]+", text)
    assert all(part not in masked for part in parts if len(part) > 20)


def test_a_module_token_is_masked_also_when_every_character_is_encoded() -> None:
    module = "foundry_module_auth_" + "aB3-_x" * 7
    encoded = "".join(f"%{byte:02X}" for byte in module.encode())
    assert Mask()(f"GET /runtimes/{encoded}/job") == f"GET /runtimes/{last_four(module)}/job"
    assert Mask()(f"a%20b {module}%20c") == f"a%20b {last_four(module)}%20c"


@pytest.mark.parametrize("at", range(1, len(BEARER)))
def test_of_a_secret_that_was_cut_less_than_half_is_shown(at: int) -> None:
    half = len(BEARER) // 2
    for part in (f"the beginning {BEARER[:at]}", f"{BEARER[at:]} the end"):
        assert BEARER[: half + 1] not in Mask(BEARER)(part)
        assert BEARER[-half - 1 :] not in Mask(BEARER)(part)


def test_a_hostile_text_is_masked_in_time_in_proportion_to_its_length() -> None:
    mask = Mask(HARD, BEARER, *(f"secret-{number}-{'x' * 30}" for number in range(5)))
    for piece in ("x", "\\", "%25", "\\u005c", "secret-1-", "foundry_module_auth_"):
        assert len(mask(piece * 10_000)) <= len(piece) * 10_000


class Shown:
    """What an emulator shows, and the tokens that must not be whole in it."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.runtime = emulator.open_runtime("r", RID)
        self.job = self.runtime.enqueue("f")
        self.environment = emulator.env("r", client={"id": "app", "secret": SECRET}, build2_token=SECRET)
        self.secrets = [BEARER, FURTHER, SECRET, str(self.runtime.token)]
        for replica in emulator.lifecycle.replicas("r"):
            self.secrets += [replica.token, replica.scratch_token]

    def check(self, what: str, text: str) -> None:
        assert text
        for secret in self.secrets:
            assert secret not in text, f"{what} shows a whole token: {secret}"

    def check_traceback(self, what: str, action: Callable[[], object], expected: type[BaseException]) -> None:
        """Check a traceback with local variables, as pytest -l and error reporters make them."""
        try:
            action()
        except expected as error:
            text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
            assert "self = " in text, "the traceback has local variables"
        self.check(what, text)


@pytest.fixture
def shown(serve: Serve) -> Iterator[Shown]:
    with serve(token=BEARER, tokens=[FURTHER]) as emulator:
        yield Shown(emulator)


def test_no_view_shows_a_whole_token(shown: Shown) -> None:
    emulator, runtime = shown.emulator, shown.runtime
    things = {
        "emulator": emulator,
        "token": emulator.token,
        "settings": emulator.settings,
        "trait values": emulator.settings.trait_values(),
        "runtime": runtime,
        "its token": runtime.token,
        "record": runtime.record,
        "records": emulator.lifecycle.runtimes(),
        "replicas": emulator.lifecycle.replicas("r"),
        "rich": runtime.record.__rich_repr__(),
        "job": shown.job,
        "functions": emulator.functions,
        "environment": shown.environment,
        "timeline": emulator.timeline(),
        "latency": emulator.latency(),
    }
    for name, thing in things.items():
        shown.check(name, repr(thing))
        shown.check(name, pretty(thing))
        shown.check(name, str(getattr(thing, "_repr_mimebundle_", lambda: "none")()))
    for name in ("runtimes", "jobs", "schemas", "deployed_apps", "events"):
        frame = getattr(emulator, name)
        for form in (frame.to_html(), frame.to_string(), frame.to_csv(), repr(frame), frame.to_json(date_format="iso")):
            shown.check(name, form)
    assert "…efgh" in repr(emulator.token)
    assert last_four(str(runtime.token)) in repr(runtime.record)
    now = time.time_ns()
    shown.check("the dashboard's summary", summary(emulator))
    shown.check("the dashboard's flow", str(flow_part(emulator, figures([Activity()], now, emulator.started_at), now)))
    shown.check("the dashboard's runtimes", str(runtimes_part(emulator, now)))
    shown.check("help of the settings", emulator.settings.class_get_help(emulator.settings))


def test_no_event_shows_a_whole_token(shown: Shown) -> None:
    emulator, events = shown.emulator, shown.emulator.lifecycle.events
    api = Api(emulator.url, BEARER)
    for secret in shown.secrets:
        if secret != SECRET:
            api.send("GET", f"{RUNTIMES}/{secret}/job")
            api.send("GET", f"/{secret}")
            api.send("GET", HEALTH, headers={"Host": f"{secret}.example"})
            api.send("GET", HEALTH, headers={"Origin": f"http://{secret}.example"})
            api.contour("GET", f"{CONTOUR}/jobs/{secret}/status")
            emulator.change(partial(Lifecycle.note, kind="log", detail=f"a library says {secret}"))
    logged = [str(event) for event in events.recent(all=True)]
    assert sum("request_refused" in each for each in logged) >= 20
    shown.check("the log of events", "\n".join(logged))
    # Said by the test, not by a library that failed.
    events._kept.clear()  # noqa: SLF001


def test_what_a_listener_or_a_handler_raises_shows_no_whole_token(shown: Shown) -> None:
    told = threading.Event()

    def listen(_: object) -> None:
        told.set()
        raise ValueError(shown.runtime.token)

    end = shown.emulator.on_event(listen)
    shown.runtime.enqueue("f")
    assert told.wait(DEADLINE)
    events = shown.emulator.lifecycle.events
    eventually(lambda: "listener_failed" in [each.kind for each in events.recent()], "the listener's failure is told")
    end()
    shown.check("the log of events", str(events.recent()))
    events._kept.clear()  # noqa: SLF001


def test_no_traceback_with_local_variables_shows_a_whole_token(shown: Shown, tmp_path: Path) -> None:
    emulator, check, file = shown.emulator, shown.check_traceback, tmp_path / "module.yaml"

    async def call_nobody(url: str) -> None:
        await HttpClient(url).request("GET", "/", {"Authorization": Token(f"Bearer {BEARER}")})

    check("an unknown setting", lambda: Emulator(**TOKENS, prot=1), SettingError)
    check("a wrong value", lambda: Emulator(**TOKENS, port=-1), SettingError)
    check("a wrong host", lambda: Emulator(**TOKENS, host="0.0.0.0"), SettingError)
    check("a token of bytes", lambda: Emulator(token=BEARER.encode()), SettingError)
    check("tokens of bytes", lambda: Emulator(tokens=[FURTHER.encode()]), SettingError)
    check("a token with blanks", lambda: Emulator(token=f" {BEARER}"), SettingError)
    check("an unknown app", lambda: emulator.call("f", None, "ri.none"), errors.NotFound)
    check("a timeout", lambda: shown.job.result(0.01), errors.JobTimeout)
    check("an unknown runtime", lambda: emulator.runtime("none"), errors.NotFound)
    check("a program that ends", lambda: emulator.launch("false", "r", **MODULE), LaunchFailed)
    check("an unknown option", lambda: emulator.launch("false", "r", **MODULE, clientid=1), errors.InvalidRequest)
    check("an unknown option", lambda: emulator.env("r", **MODULE, clientid=1), errors.InvalidRequest)
    check("an unknown option", lambda: emulator.configure("r", **MODULE, clientid=1), errors.InvalidRequest)
    check("an invalid value", lambda: emulator.configure("r", **MODULE, replicas="two"), errors.InvalidRequest)
    file.write_text(yaml.safe_dump({**MODULE, "replicas": "two"}))
    check("an invalid file", lambda: configuration_file.read(file), errors.InvalidRequest)
    file.write_text(json.dumps({**MODULE, "replicas": "two"}))
    check("an invalid file", lambda: configuration_file.read(file), errors.InvalidRequest)
    check("nobody there", lambda: emulator.home.run(call_nobody("http://127.0.0.1:1")), NotRunning)
    shown.emulator.stop()
    check("a stopped emulator", lambda: emulator.submit("f"), NotRunning)
    emulator.start()


def test_a_call_that_the_emulator_s_end_breaks_off_shows_no_whole_token(shown: Shown) -> None:
    waiting = waiting_of(shown.emulator)

    def end() -> None:
        eventually(lambda: waiting._jobs, "the call waits")  # noqa: SLF001
        shown.emulator.stop()

    ending = threading.Thread(target=end)
    ending.start()
    shown.check_traceback("a call that is broken off", shown.job.result, NotRunning)
    ending.join()
    shown.emulator.start()


def test_a_program_that_prints_its_token_leaves_it_in_no_log(shown: Shown) -> None:
    words = [sys.executable, "-c", PRINTS_ITS_TOKEN]
    with pytest.raises(LaunchFailed) as failed:
        shown.emulator.launch(words, "r")
    assert "my token is …" in str(failed.value)
    assert "foundry_module_auth_" not in str(failed.value)
    shown.check("the error", str(failed.value))


PRINTS_ITS_SECRETS = """
import base64, json, os, sys, time, urllib.parse
token = open(os.environ["MODULE_AUTH_TOKEN"]).read()
password = json.load(open(os.environ["SOURCE_CREDENTIALS"]))["s"]["password"]
build = open(os.environ["BUILD2_TOKEN"]).read()
for secret in (token, password, build, os.environ["CLIENT_SECRET"], os.environ["SCRATCH_TOKEN"], sys.argv[1]):
    print("plain", secret)
    print("quoted", urllib.parse.quote(secret, safe=""))
    print("json", json.dumps({"message": secret}))
    print(json.dumps({"message": "sdk " + secret, "level": "INFO"}))
    print("base64", base64.b64encode(b"id:" + secret.encode()).decode())
    for piece in ("split ", secret[:9], secret[9:], "\\n"):
        sys.stdout.write(piece)
        sys.stdout.flush()
        time.sleep(0.01)
    for before in (19_990, 999_990, 1_000_000):
        print("x" * before + secret)
        print("x" * before + secret, "y" * 1_000_000)
print("done")
time.sleep(600)
"""


def test_a_program_that_prints_its_secrets_in_any_form_leaves_none_in_its_log(serve: Serve) -> None:
    with serve(token=BEARER) as emulator:
        extras: dict[str, Any] = {
            "sources": {"s": {"password": HARD}},
            "build2_token": "build/2+token==",
            "client": {"id": "app", "secret": SECRET},
        }
        module = emulator.launch([sys.executable, "-c", PRINTS_ITS_SECRETS, BEARER], "r", **extras)
        eventually(lambda: module.logs.tail(1) == "done", "the program has printed all", 30)
        lines = [str(line) for line in module.logs]
        kinds = Counter(line.split()[0] for line in lines if line[0] != "x")
        assert kinds == {"plain": 6, "quoted": 6, "json": 6, "INFO:": 6, "base64": 6, "split": 6, "done": 1}
        assert len([line for line in lines if line[0] == "x"]) == 36
        assert max(map(len, lines)) == 20_000
        (replica,) = emulator.lifecycle.replicas("r")
        for secret in (HARD, "build/2+token==", SECRET, BEARER, replica.token, replica.scratch_token):
            for part in (secret[: len(secret) // 2 + 1], secret[-len(secret) // 2 - 1 :]):
                assert [line[-100:] for line in lines if part in line or quote(part, safe="") in line] == []
                assert part not in json.dumps([line.replace("\\", "") for line in lines], ensure_ascii=False)
        module.stop()


@pytest.mark.parametrize("before", [100, 170, 185, 195])
def test_a_secret_in_a_path_is_masked_before_the_path_is_cut(serve: Serve, before: int) -> None:
    bearer = "bearer/0123456789+abcdefgh=="
    with serve(token=bearer) as emulator:
        for path in (f"/{'x' * before}/{quote(bearer, safe='')}", f"/{'x' * before}/{quote(bearer)}"):
            assert requests.get(f"{emulator.url}{path}", timeout=10).status_code == 404
        details = [each.detail for each in emulator.lifecycle.events.recent() if each.kind == "request_refused"]
        assert len(details) == 2
        for detail in details:
            assert "bearer" not in str(detail)
            assert "0123" not in str(detail)


@pytest.mark.parametrize("setting", ["token", "client_secret"])
def test_a_module_with_a_whole_token_in_it_is_not_written(tmp_path: Path, setting: str) -> None:
    namespace: dict[str, Any] = {}
    path = tmp_path / "source.py"
    with Emulator(port=0, home="thread", **{setting: BEARER}) as emulator:
        path.write_text(f"TOKEN = {BEARER!r}\ndef ask(context, event):\n    return TOKEN\n")
        exec(compile(path.read_text(), str(path), "exec"), namespace)
        emulator.function(namespace["ask"])
        with pytest.raises(ExportRefused, match=r"would hold a whole token of this emulator \(…efgh\)"):
            emulator.functions.export(tmp_path / "app.py")
    with Emulator(port=0, home="thread") as other:
        other.function(namespace["ask"])
        other.configure("notebook", sources={"Crm": {"password": BEARER}})
        with pytest.raises(ExportRefused, match=r"would hold a whole token"):
            other.functions.export(tmp_path / "app.py")
    assert not (tmp_path / "app.py").exists()


CELLS = """
%load_ext cmemu_nb
---
%config CMEmu.tokens = ["fur" + "ther-0123456789-abcdefg"]
%config CMEmu
---
%cmemu start --port 0
---
emu.token
---
rt = emu.open_runtime("r", "ri.foundry.main.deployed-app.my-app")
rt
---
rt.token, rt.record, emu.lifecycle.runtimes(), emu.settings.trait_values()
---
import json, pathlib
secrets = [str(emu.token), *map(str, emu.settings.tokens), str(rt.token)]
secret_file = pathlib.Path("tokens.json").write_text(json.dumps(secrets))
del secrets
---
job = rt.enqueue("f")
display(emu, job, emu.runtimes, emu.jobs, emu.events, emu.timeline(), emu.functions)
---
emu.env("r")
---
%cmemu env r
---
board = emu.dashboard()
board
---
board.widget.get_state()
---
%xmode Verbose
---
emu.call("nothing", None, "ri.none")
---
emu.runtime("none")
---
job.result(0.01)
---
%cmemu start --name other --port 0 --token a-token-of-mine-012345 --host 0.0.0.0
---
from cmemu_nb import Emulator
Emulator(token=emu.token, prot=4000)
---
emu.lifecycle.authenticate("none", rt.token)
---
import threading
threading.Timer(0.5, emu.stop).start()
job.result()
---
emu.submit("f")
"""


EXPECTED = ["NotFound", "NotFound", "JobTimeout", "SettingError", "NotFound", "NotRunning", "NotRunning"]


def test_a_saved_notebook_holds_no_whole_token(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS.split("---\n")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    # The kernel is to import the package that is tested, wherever it starts.
    here = {"PYTHONPATH": str(Path(cmemu_nb.__file__).parents[1]), "IPYTHONDIR": str(tmp_path / "ipython")}
    client = NotebookClient(notebook, timeout=60, kernel_manager_class=ThisPython, allow_errors=True)
    client.execute(cwd=str(tmp_path), env={**clean_environ(), **here})
    path = tmp_path / "saved.ipynb"
    nbformat.write(notebook, path)
    tokens = json.loads((tmp_path / "tokens.json").read_text())
    assert [len(token) > 20 for token in tokens] == [True] * 3
    saved = path.read_text("utf-8")
    for token in tokens:
        assert token not in saved
        assert f"…{token[-4:]}" in saved
    raised = [each["ename"] for cell in notebook.cells for each in cell.outputs if each.output_type == "error"]
    assert raised == EXPECTED


def test_hostile_results_are_kept_and_shown_as_text(emu: Emulator, api: Api) -> None:
    runtime = api.open("r", RID)
    error = b'{"exception": "<img src=x onerror=a()>"}'
    hostile = [b"<script>alert(1)</script>", b"\x00\xff" * 100, b"[" * 100_000, error]
    for result in hostile:
        job_id = api.submit()
        runtime.take()
        assert runtime.post_result(job_id, result).status_code == 204
        assert api.result(job_id).content == result
        html = emu.job(job_id)._repr_mimebundle_()["text/html"]
        assert "<script" not in html
        assert "<img" not in html
    answer = requests.put(emu.url + RESULT, json={"id": job_id}, headers=api.bearer, timeout=DEADLINE)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
