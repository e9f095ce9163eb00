"""The OAuth client, by the official client SDK and the official executor SDK, and what becomes of its tokens."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import threading
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest
import requests
from cli_processes import serving as headless
from client import CONTOUR, RUNTIMES, Api, closed, error_code, eventually
from environments import node_modules, program
from foundry_sdk import ConfidentialClientAuth, Config, FoundryClient, UserTokenAuth
from foundry_sdk.v2.admin.errors import UserIsActive, UserNotFound
from httpx import HTTPStatusError
from test_journal import held_by_another

from cmemu_nb import Emulator
from cmemu_nb.errors import SettingError
from cmemu_nb.tokens import ACCESS_TOKEN_START
from cmemu_nb.wire.masking import Mask

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    Serve = Callable[..., AbstractContextManager[Emulator]]

TOKEN_URL = "/multipass/api/oauth2/token"
REVOKE_URL = "/multipass/api/oauth2/revoke_token"
SECRET = "client-secret-0123456789"
NPM_PROGRAM = """
import { createConfidentialOauthClient } from "@osdk/oauth";
const [url, id, secret] = JSON.parse(process.argv[2]);
const auth = createConfidentialOauthClient(id, secret, url);
const token = await auth();
const me = () => fetch(`${url}/multipass/api/me`, { headers: { Authorization: `Bearer ${token}` } });
const { username } = await (await me()).json();
await auth.signOut();
const after = (await me()).status;
let refused;
try {
    await createConfidentialOauthClient(id, "wrong", url)();
} catch (error) {
    refused = error.message;
}
console.log(JSON.stringify({ username, after, refused }));
"""


pytestmark = pytest.mark.usefixtures("sdk_connections")


def auth_of(emu: Emulator, secret: str | None = None, **options: Any) -> ConfidentialClientAuth:
    host = urlsplit(emu.url).netloc
    options = {"should_refresh": False, "config": Config(scheme="http"), **options}
    return ConfidentialClientAuth(emu.client_id, secret or str(emu.client_secret), hostname=host, **options)


def form(emu: Emulator, **fields: str | None) -> dict[str, str]:
    given = {"client_id": emu.client_id, "client_secret": str(emu.client_secret), **fields}
    return {name: value for name, value in given.items() if value is not None}


def token_of(emu: Emulator) -> str:
    answer = Api(emu.url, "").send("POST", TOKEN_URL, data=form(emu, grant_type="client_credentials"))
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


def status(emu: Emulator, token: str) -> int:
    return status_of(emu.url, token)


def status_of(url: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return closed(requests.get(url + RUNTIMES, headers=headers, timeout=10)).status_code


def test_the_client_sdk_gets_a_token_that_every_bearer_route_takes(emu: Emulator) -> None:
    token = auth_of(emu).get_token()
    assert (token.token_type, token.expires_in, token.refresh_token) == ("bearer", 3600, None)
    assert token.access_token.startswith(ACCESS_TOKEN_START)
    assert token_of(emu) != token.access_token
    api = Api(emu.url, token.access_token)
    runtime = api.open("r", "ri.foundry.main.deployed-app.r")
    job_id = api.submit("f", rid="ri.foundry.main.deployed-app.r")
    assert api.contour("GET", f"{CONTOUR}/jobs/{job_id}/status").status_code == 200
    assert api.contour("GET", runtime.uri).status_code == 200, "where either token is taken"


def test_scopes_may_be_asked_for(emu: Emulator) -> None:
    assert status(emu, auth_of(emu, scopes=["api:functions-execute"]).get_token().access_token) == 200


def test_sign_out_ends_the_token_and_no_other(emu: Emulator) -> None:
    auth, other = auth_of(emu), token_of(emu)
    token = auth.get_token().access_token
    auth.sign_out()
    assert (status(emu, token), status(emu, other)) == (401, 200)
    answer = Api(emu.url, "").send("POST", REVOKE_URL, data=form(emu, token=token))
    assert (answer.status_code, answer.content) == (200, b""), "again is no error"


def test_a_wrong_secret_is_refused_in_the_sdk_s_own_way(emu: Emulator) -> None:
    for options in ({}, {"should_refresh": True}):
        with pytest.raises(HTTPStatusError, match="401 Unauthorized"):
            auth_of(emu, "wrong", **options).get_token()


@pytest.mark.parametrize("path", [TOKEN_URL, REVOKE_URL])
@pytest.mark.parametrize(
    "wrong",
    [{"client_id": "x"}, {"client_secret": "x"}, {"client_id": None}, {"client_secret": " "}, {"client_secret": "ü"}],
    ids=str,
)
def test_whoever_is_not_the_client_gets_nothing(emu: Emulator, path: str, wrong: dict[str, Any]) -> None:
    fields = form(emu, grant_type="client_credentials", token="x", **wrong)
    answer = Api(emu.url, "").send("POST", path, data=fields)
    assert (answer.status_code, error_code(answer)) == (401, "invalid_client")
    assert ".client_secret" in answer.json()["error_description"]


def test_the_client_may_be_sent_as_basic_authentication(serve: Serve) -> None:
    secret = "a secret: 100% ü+"
    with serve(client_id="my app", client_secret=secret) as emulator:

        def send(text: str, scheme: str = "Basic", path: str = TOKEN_URL, **fields: str) -> Any:
            headers = {"Authorization": f"{scheme} {base64.b64encode(text.encode()).decode()}"}
            return Api(emulator.url, "").send("POST", path, headers=headers, data=fields)

        encoded = f"my+app:{quote(secret)}"
        given = [
            send(encoded, scheme, grant_type="client_credentials", scope="x").json() for scheme in ("Basic", "basic")
        ]
        token = given[0]["access_token"]
        assert status(emulator, token) == 200
        for wrong in ("my+app:x", f"x:{quote(secret)}", "my+app", ""):
            # Fields of the form do not help a wrong header.
            refused = send(wrong, **form(emulator, grant_type="client_credentials"))
            assert (refused.status_code, error_code(refused)) == (401, "invalid_client")
        assert send(encoded, path=REVOKE_URL, token=token).status_code == 200
        assert status(emulator, token) == 401


@pytest.mark.parametrize("header", ["Basic", "Basic ÿ", "Basic !!!", "Basic /w==", "Bearer x"])
def test_what_is_no_basic_authentication_is_no_client(emu: Emulator, header: str) -> None:
    headers = {"Authorization": header.encode("latin-1")}
    answer = Api(emu.url, "").send("POST", TOKEN_URL, headers=headers, data={"grant_type": "client_credentials"})
    assert (answer.status_code, error_code(answer)) == (401, "invalid_client")


def test_the_confidential_client_of_npm_gets_tokens_and_revokes_them(emu: Emulator, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(node_modules() / "node_modules")
    (tmp_path / "app.mjs").write_text(NPM_PROGRAM)
    given = json.dumps([emu.url, emu.client_id, str(emu.client_secret)])
    node = [str(program("nodejs")), "app.mjs", given]
    done = subprocess.run(node, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    answered = json.loads(done.stdout)
    assert answered == {"username": "cmemu", "after": 401, "refused": "Failed to get token: invalid_client"}


# Users


def test_a_token_belongs_to_a_user_of_the_seed_file_or_to_the_emulator_s_own(tmp_path: Path) -> None:
    path, other = tmp_path / "seed.yaml", "0d5c1b6e-9a7d-42c3-8e1f-0a2b4c6d8e90"
    path.write_text(f"tokens: {{token-of-alice: {{login: alice}}, token-of-other: {{login: {other}}}}}")
    with Emulator.from_seed(path, port=0, home="thread") as emulator:
        logins = {"token-of-alice": "alice", "token-of-other": other, str(emulator.token): "cmemu"}
        for token, login in logins.items():
            host = urlsplit(emulator.url).netloc
            users = FoundryClient(UserTokenAuth(token), host, config=Config(scheme="http")).admin.User
            current = users.get_current()
            assert (current.username, current.status, current.realm) == (login, "ACTIVE", "cmemu")
            assert users.get(current.id) == users.get(current.id, status="ACTIVE") == current
            headers = {"Authorization": f"Bearer {token}"}
            mine = closed(requests.get(f"{emulator.url}/multipass/api/me", headers=headers, timeout=10)).json()
            assert (mine["username"], mine["id"]) == (login, current.id)
            by_login = closed(requests.get(f"{emulator.url}/api/v2/admin/users/{login}", headers=headers, timeout=10))
            assert by_login.json() == mine
            assert (login == other) == (current.id == other)
            with pytest.raises(UserIsActive):
                users.get(current.id, status="DELETED")
        with pytest.raises(UserNotFound) as raised:
            users.get(unknown := str(uuid.uuid4()))
        assert raised.value.parameters == {"userId": unknown}
        refused = closed(requests.get(f"{emulator.url}/api/v2/admin/users/bob", headers=headers, timeout=10)).json()
        assert f"There is no user 'bob'. The users are 'alice' and '{other}'" in refused["errorDescription"]
        for path_of in ("/multipass/api/me", "/api/v2/admin/users/getCurrent", "/api/v2/admin/users/alice"):
            assert Api(emulator.url, "").send("GET", path_of).status_code == 401


@pytest.mark.parametrize("grant", [None, "password", "implicit"])
def test_other_grants_are_refused(emu: Emulator, grant: str | None) -> None:
    answer = Api(emu.url, "").send("POST", TOKEN_URL, data=form(emu, grant_type=grant))
    assert (answer.status_code, error_code(answer)) == (400, "unsupported_grant_type")
    assert "Send grant_type=client_credentials" in answer.json()["error_description"]


def test_a_revocation_needs_a_token(emu: Emulator) -> None:
    answer = Api(emu.url, "").send("POST", REVOKE_URL, data=form(emu))
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request")


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff=1", b"a=1&" * 200])
def test_what_is_no_form_is_no_client(emu: Emulator, body: bytes) -> None:
    assert Api(emu.url, "").send("POST", TOKEN_URL, data=body).status_code == 401


def test_a_token_ends_when_its_time_is_over_and_the_sdk_asks_for_another(serve: Serve) -> None:
    with serve(access_token_seconds=1) as emulator:
        auth = auth_of(emulator)
        first = auth.get_token().access_token
        assert auth.get_token().access_token != first, "the SDK renews a token in its last minute"
        eventually(lambda: status(emulator, first) == 401, "the token has expired")
        assert status(emulator, auth.get_token().access_token) == 200


def test_the_sdk_refreshes_in_the_background_until_it_signs_out(serve: Serve) -> None:
    with serve(access_token_seconds=1) as emulator:
        before = threading.active_count()
        auth = auth_of(emulator, should_refresh=True)
        first = auth.get_token().access_token
        eventually(lambda: auth._token and auth._token.access_token != first, "it has another token")  # noqa: SLF001
        auth.sign_out()
        eventually(lambda: threading.active_count() == before, "its thread has ended")


@pytest.mark.parametrize("index", [0, len(ACCESS_TOKEN_START), 40, -1])
def test_a_token_that_is_nearly_right_is_refused(emu: Emulator, index: int) -> None:
    token = token_of(emu)
    changed = "A" if token[index] != "A" else "B"
    spoilt = token[:index] + changed + (token[index + 1 :] if index != -1 else "")
    assert [status(emu, each) for each in (spoilt, token[:-1], token + "A", f"{token}=")] == [401] * 4
    assert status(emu, token) == 200


def test_a_token_of_another_emulator_is_refused(emu: Emulator, serve: Serve) -> None:
    with serve() as other:
        assert (status(emu, token_of(other)), status(other, token_of(emu))) == (401, 401)


def test_the_client_can_be_set(serve: Serve) -> None:
    with serve(client_id="my-app", client_secret=SECRET) as emulator:
        assert (emulator.client_id, emulator.client_secret) == ("my-app", SECRET)
        assert SECRET not in repr([emulator.client_secret, emulator.settings.client_secret])
        assert status(emulator, token_of(emulator)) == 200
    assert Emulator().client_id == "cmemu-client"
    assert Emulator().client_secret != Emulator().client_secret


@pytest.mark.parametrize(
    "settings",
    [{"client_id": ""}, {"client_secret": ""}, {"client_secret": 1}, {"access_token_seconds": 0}],
    ids=str,
)
def test_settings_of_the_client_that_can_t_be(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=r"client_id or client_secret|client_secret must be|access_token_seconds"):
        Emulator(**settings)


def test_neither_secret_nor_token_is_in_events(emu: Emulator) -> None:
    token = token_of(emu)
    api = Api(emu.url, token)
    for slip in (token, str(emu.client_secret)):
        assert api.contour("GET", f"{CONTOUR}/jobs/{slip}/status").status_code == 404
    Api(emu.url, "").send("POST", TOKEN_URL, data=form(emu, grant_type=token))
    told = str(emu.lifecycle.events.recent())
    assert told.count("request_refused") >= 3
    assert not [secret for secret in (token, emu.client_secret) if secret in told]
    assert Mask()(f"a {token} b") == f"a …{token[-4:]} b"


def test_a_revocation_that_is_not_in_the_journal_says_so_and_counts_all_the_same(tmp_path: Path, serve: Serve) -> None:
    path = tmp_path / "lifecycle.db"
    with serve(journal=str(path)) as emulator:
        token = token_of(emulator)
        with held_by_another(path):
            answer = Api(emulator.url, "").send("POST", REVOKE_URL, data=form(emulator, token=token))
        assert (answer.status_code, error_code(answer)) == (503, "journal_behind")
        assert "Then revoke it again." in answer.json()["error_description"]
        assert status(emulator, token) == 401
        assert Api(emulator.url, "").send("POST", REVOKE_URL, data=form(emulator, token=token)).status_code == 200


def test_with_a_journal_client_tokens_and_revocations_outlive_the_process(tmp_path: Path, serve: Serve) -> None:
    path = tmp_path / "lifecycle.db"
    with serve(journal=str(path)) as first:
        kept, ended = token_of(first), token_of(first)
        Api(first.url, "").send("POST", REVOKE_URL, data=form(first, token=ended))
    with serve(journal=str(path)) as second:
        assert (second.client_id, second.client_secret) == (first.client_id, first.client_secret)
        assert (status(second, kept), status(second, ended)) == (200, 401)
    with serve(journal=str(path), client_id="set", client_secret=SECRET) as third:
        assert (third.client_id, third.client_secret) == ("set", SECRET)
        assert status(third, kept) == 401, "another secret ends all tokens"
        assert re.fullmatch(r"'….{4}'", repr(third.client_secret))


def test_a_headless_emulator_has_the_client_that_its_options_say() -> None:
    with headless("--client-id", "my-app", "--client-secret", SECRET) as server:
        fields = {"client_id": "my-app", "client_secret": SECRET, "grant_type": "client_credentials"}
        answer = Api(server.url, "").send("POST", TOKEN_URL, data=fields)
        assert status_of(server.url, answer.json()["access_token"]) == 200
        assert SECRET not in server.first_line + "".join(server.end())
