"""Signing in with a browser: the authorization code flow with PKCE, refresh tokens, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import requests
from client import RID, Api, closed, error_code
from foundry_sdk import Config, FoundryClient, PublicClientAuth
from test_oauth import REVOKE_URL, TOKEN_URL, status, token_of
from web_pages import answer_sign_in_page, open_sign_in_page, sent_back

from cmemu_nb import Emulator
from cmemu_nb.errors import SettingError
from cmemu_nb.foundry import sign_in
from cmemu_nb.server.openapi import examples
from cmemu_nb.server.routes.oauth import MAX_FORM_BYTES
from cmemu_nb.tokens import CODE_START, REFRESH_TOKEN_START
from cmemu_nb.wire.masking import Mask
from cmemu_nb.wire.paths import AUTHORIZE, PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    Serve = Callable[..., AbstractContextManager[Emulator]]

CALLBACK, WITH_QUERY = "http://localhost:3000/callback", "my-app://back?from=cmemu"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
EVIL = '"><script>alert(1)</script>'
SEED = f"""tokens:
  token-of-alice: {{login: alice}}
  token-of-bob: {{login: bob}}
  token-of-evil: {{login: '{EVIL}'}}
"""

pytestmark = [pytest.mark.usefixtures("shared_emulator", "sdk_connections"), pytest.mark.long_lived]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    path = tmp_path_factory.mktemp("seed") / "seed.yaml"
    path.write_text(SEED)
    with Emulator.from_seed(path, port=0, home="thread", redirect_uris=[CALLBACK, WITH_QUERY]) as emulator:
        yield emulator


def post(emu: Emulator, path: str = TOKEN_URL, **fields: str | None) -> requests.Response:
    given = {"client_id": emu.client_id, **fields}
    return Api(emu.url, "").send("POST", path, data={name: value for name, value in given.items() if value is not None})


def code_of(emu: Emulator, login: str = "alice", **options: str) -> str:
    return sent_back(answer_sign_in_page(emu, login, **options))["code"]


def redeem(emu: Emulator, code: str, **fields: str | None) -> requests.Response:
    given = {"code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER, **fields}
    return post(emu, TOKEN_URL, grant_type="authorization_code", **given)


def signed_in(emu: Emulator, login: str = "alice", **options: str) -> dict[str, Any]:
    answer = redeem(emu, code_of(emu, login, **options))
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


def refresh(emu: Emulator, refresh_token: str, **fields: str) -> requests.Response:
    return post(emu, grant_type="refresh_token", refresh_token=refresh_token, **fields)


def refused(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, error_code(answer)


# Signing in


def test_who_signs_in_is_the_user_of_the_token_and_of_the_jobs(emulator: Emulator) -> None:
    answer = answer_sign_in_page(emulator, "alice", state="a b&c=ü")
    assert answer.headers["Location"].startswith(f"{CALLBACK}?")
    back = sent_back(answer)
    assert (set(back), back["state"]) == ({"code", "state"}, "a b&c=ü")
    tokens = redeem(emulator, back["code"]).json()
    assert (tokens["token_type"], tokens["expires_in"]) == ("bearer", 3600)
    assert tokens["scope"] == examples.SIGN_IN["scope"]
    api = Api(emulator.url, tokens["access_token"])
    assert api.send("GET", "/multipass/api/me", headers=api.bearer).json()["username"] == "alice"
    runtime = api.open("r", RID)
    job_id = api.submit("f", {}, RID)
    taken = Api(emulator.url, "").send("GET", f"{PLATFORM}/job", headers=runtime.headers).json()["computeModuleJobV1"]
    assert (taken["userId"], emulator.lifecycle.job(job_id).user_id) == ("alice", "alice")
    assert "alice for http://localhost:3000/callback" in list(emulator.events["detail"])


def test_the_public_client_of_the_python_sdk_signs_in_refreshes_and_signs_out(serve: Serve) -> None:
    with serve(redirect_uris=[CALLBACK], sign_in_as="Ada Lovelace", access_token_seconds=30) as emulator:
        host = urlsplit(emulator.url).netloc
        options: dict[str, Any] = {"hostname": host, "should_refresh": False, "config": Config(scheme="http")}
        auth = PublicClientAuth(emulator.client_id, CALLBACK, scopes=["api:read-data"], **options)
        answer = closed(requests.get(auth.sign_in(), allow_redirects=False, timeout=10))
        back = sent_back(answer)
        auth.set_token(back["code"], back["state"])
        assert auth._token is not None  # noqa: SLF001
        first = auth._token.access_token  # noqa: SLF001
        second = auth.get_token()
        assert second.access_token != first, "the SDK renews a token in its last minute"
        client = FoundryClient(auth, host, config=Config(scheme="http"))
        assert client.admin.User.get_current().username == "Ada Lovelace"
        kept = str(auth.get_token().refresh_token)
        auth.sign_out()
        assert refused(refresh(emulator, kept)) == (400, "invalid_grant"), "the refresh token has ended, too"
        assert status(emulator, first) == 401, "and the first access token of the same sign-in"


def test_without_a_seed_file_the_user_is_cmemu_and_without_redirect_uris_nobody_signs_in(serve: Serve) -> None:
    with serve(redirect_uris=[CALLBACK]) as emulator:
        assert status(emulator, signed_in(emulator, "cmemu")["access_token"]) == 200
    with serve() as emulator:
        assert refused(open_sign_in_page(emulator)) == (400, "invalid_request")
        for fields in ({"grant_type": "authorization_code", "code": "x"}, {"grant_type": "refresh_token"}):
            assert refused(post(emulator, **fields)) == (401, "invalid_client")
        assert refused(post(emulator, REVOKE_URL, token="x")) == (401, "invalid_client")


def test_cancel_sends_the_user_back_without_a_code(emulator: Emulator) -> None:
    back = sent_back(answer_sign_in_page(emulator, None, redirect_uri=WITH_QUERY))
    assert back == {
        "from": "cmemu",
        "error": "access_denied",
        "error_description": "Nobody signed in.",
        "state": "any-text",
    }


# The page


def test_the_page_escapes_what_it_shows_and_cannot_be_framed(emulator: Emulator) -> None:
    answer = open_sign_in_page(emulator, scope=f"api:read-data {EVIL}", state=EVIL)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert policy.endswith("base-uri 'none'; form-action 'self' http://localhost:3000; frame-ancestors 'none'")
    assert "<script" not in answer.text
    assert re.findall(r'name="login" value="(.+?)"', answer.text)[:2] == ["alice", "bob"]
    assert (
        "form-action 'self' my-app:;"
        in open_sign_in_page(emulator, redirect_uri=WITH_QUERY).headers["Content-Security-Policy"]
    )
    assert sent_back(answer_sign_in_page(emulator, EVIL))["code"]


@pytest.mark.parametrize("origin", ["http://localhost:1", "null", CALLBACK, "https://evil.example"])
def test_no_other_page_can_answer_it(emulator: Emulator, origin: str) -> None:
    assert refused(answer_sign_in_page(emulator, "alice", origin)) == (403, "forbidden_origin")


def test_an_answer_needs_the_ticket_of_a_page_and_counts_once(emulator: Emulator) -> None:
    ticket = re.findall(r'name="ticket" value="([\w-]+)"', open_sign_in_page(emulator).text)[0]

    def choose(**fields: str) -> requests.Response:
        api, headers = Api(emulator.url, ""), {"Origin": emulator.url}
        return api.send("POST", AUTHORIZE, headers=headers, data=fields, allow_redirects=False)

    for fields in ({}, {"login": "alice"}, {"login": "alice", "ticket": ticket[:-1]}):
        assert refused(choose(**fields)) == (400, "invalid_request")
    assert sent_back(choose(login="alice", ticket=ticket))["code"]
    again = choose(login="alice", ticket=ticket)
    assert refused(again) == (400, "invalid_request")
    assert "Start again from the application." in again.json()["error_description"]
    unknown = answer_sign_in_page(emulator, "alicf")
    assert "there is no user 'alicf'. Did you mean 'alice'?" in unknown.json()["error_description"]


def test_pages_and_codes_are_valid_for_some_time_only(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (sign_in.PAGE_SECONDS, sign_in.CODE_SECONDS) == (600, 60)
    monkeypatch.setattr(sign_in, "CODE_SECONDS", 0)
    with serve(redirect_uris=[CALLBACK]) as emulator:
        assert refused(redeem(emulator, code_of(emulator, "cmemu"))) == (400, "invalid_grant")
    monkeypatch.setattr(sign_in, "PAGE_SECONDS", 0)
    with serve(redirect_uris=[CALLBACK]) as emulator:
        assert refused(answer_sign_in_page(emulator, "cmemu")) == (400, "invalid_request")


# Whom it sends back, and where


@pytest.mark.parametrize(
    "redirect_uri",
    [
        *(f"{CALLBACK}/", f"{CALLBACK}?x", CALLBACK.upper(), "http://localhost:3000", "http://localhost:3001/callback"),
        *("https://evil.example/callback", f"{CALLBACK}@evil.example", f"{CALLBACK}#x", "", "//evil.example", None),
    ],
)
def test_a_browser_is_sent_to_no_other_address(emulator: Emulator, redirect_uri: str | None) -> None:
    for options in ({}, {"response_type": "token"}, {"code_challenge": None}):
        answer = open_sign_in_page(emulator, redirect_uri=redirect_uri, **options)
        assert refused(answer) == (400, "invalid_request")
        assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
    ],
    ids=str,
)
def test_the_application_is_told_what_is_wrong(emulator: Emulator, wrong: dict[str, Any], error: str) -> None:
    back = sent_back(open_sign_in_page(emulator, **wrong))
    assert (back["error"], back["state"]) == (error, "any-text")
    assert "code" not in back


def test_an_unknown_client_or_an_endless_state_is_refused(emulator: Emulator) -> None:
    assert refused(open_sign_in_page(emulator, client_id="x")) == (400, "invalid_request")
    assert refused(open_sign_in_page(emulator, client_id=None)) == (400, "invalid_request")
    assert refused(open_sign_in_page(emulator, state="x" * 9_000)) == (400, "invalid_request")
    split = closed(requests.get(f"{emulator.url}{AUTHORIZE}?state=%0d%0aSet-Cookie:x", timeout=10))
    assert split.status_code == 400
    evil = sent_back(open_sign_in_page(emulator, code_challenge=None, state="\r\nSet-Cookie: x"))
    assert evil["state"] == "\r\nSet-Cookie: x"


# Codes


def test_a_code_is_valid_once_and_used_again_it_ends_the_sign_in(emulator: Emulator) -> None:
    code = code_of(emulator)
    tokens = redeem(emulator, code).json()
    assert status(emulator, tokens["access_token"]) == 200
    assert refused(redeem(emulator, code)) == (400, "invalid_grant")
    assert status(emulator, tokens["access_token"]) == 401
    assert refused(refresh(emulator, tokens["refresh_token"])) == (400, "invalid_grant")


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            {"code_verifier": VERIFIER[:-1]},
            {"code_verifier": ""},
            {"code_verifier": examples.SIGN_IN["code_challenge"]},
        ),
        *({"redirect_uri": WITH_QUERY}, {"redirect_uri": None}),
    ],
    ids=str,
)
def test_who_did_not_begin_the_sign_in_gets_nothing_and_the_code_ends(
    emulator: Emulator, wrong: dict[str, str | None]
) -> None:
    code = code_of(emulator)
    assert redeem(emulator, code, **wrong).status_code == 400
    # A form without a verifier at all is not an attempt.
    ended = "" not in wrong.values()
    assert redeem(emulator, code).status_code == (400 if ended else 200)


def test_the_client_s_own_errors(emulator: Emulator) -> None:
    code = code_of(emulator)
    assert refused(redeem(emulator, code, client_id="x")) == (401, "invalid_client")
    assert refused(redeem(emulator, code, client_secret="wrong")) == (401, "invalid_client")
    assert refused(post(emulator, grant_type="authorization_code")) == (400, "invalid_request")
    assert refused(post(emulator, grant_type="refresh_token")) == (400, "invalid_request")
    assert refused(post(emulator, grant_type="client_credentials")) == (401, "invalid_client"), "a secret is needed"
    assert redeem(emulator, code, client_secret=str(emulator.client_secret)).status_code == 200, "it may have a secret"


def test_the_client_of_a_module_gets_no_tokens_of_users(serve: Serve) -> None:
    other = {"client_id": "orders-app", "client_secret": "secret-of-orders"}
    with serve(redirect_uris=[CALLBACK]) as emulator:
        emulator.open_runtime("app")
        emulator.env("app", client={"id": "orders-app", "secret": "secret-of-orders"})
        assert post(emulator, grant_type="client_credentials", **other).status_code == 200
        code = code_of(emulator, "cmemu")
        assert refused(redeem(emulator, code, **other)) == (400, "invalid_grant")
        tokens = redeem(emulator, code).json()
        assert refused(refresh(emulator, tokens["refresh_token"], **other)) == (400, "invalid_grant")
        assert refresh(emulator, tokens["refresh_token"]).status_code == 200


def test_a_form_that_is_too_large_is_refused_before_it_is_read(emulator: Emulator) -> None:
    large = "x" * MAX_FORM_BYTES
    assert refused(post(emulator, grant_type="refresh_token", refresh_token=large)) == (413, "payload_too_large")
    assert refused(post(emulator, "/multipass/api/oauth2/revoke_token", token=large)) == (413, "payload_too_large")
    answer = Api(emulator.url, "").send("POST", AUTHORIZE, data={"ticket": large}, headers={"Origin": emulator.url})
    assert refused(answer) == (413, "payload_too_large")


# Refresh tokens


def test_a_refresh_token_is_replaced_each_time_and_used_again_it_ends_the_sign_in(emulator: Emulator) -> None:
    first = signed_in(emulator)
    second = refresh(emulator, first["refresh_token"]).json()
    third = refresh(emulator, second["refresh_token"]).json()
    assert len({each["refresh_token"] for each in (first, second, third)}) == 3
    api = Api(emulator.url, third["access_token"])
    assert api.send("GET", "/multipass/api/me", headers=api.bearer).json()["username"] == "alice"
    assert refused(refresh(emulator, second["refresh_token"])) == (400, "invalid_grant"), "somebody else has it"
    assert refused(refresh(emulator, third["refresh_token"])) == (400, "invalid_grant")
    assert [status(emulator, each["access_token"]) for each in (first, third)] == [401, 401]


def test_without_offline_access_there_is_no_refresh_token(emulator: Emulator) -> None:
    assert "refresh_token" not in signed_in(emulator, scope="api:read-data")
    assert not {"refresh_token", "scope"} & signed_in(emulator, scope="").keys()


def test_a_refresh_may_ask_for_less_and_not_for_more(emulator: Emulator) -> None:
    tokens = signed_in(emulator, scope="offline_access a b")
    assert refused(refresh(emulator, tokens["refresh_token"], scope="a c")) == (400, "invalid_scope")
    less = refresh(emulator, tokens["refresh_token"], scope="a").json()
    assert less["scope"] == "a"
    assert refresh(emulator, less["refresh_token"]).json()["scope"] == "offline_access a b"


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_a_revocation_ends_the_whole_sign_in_and_no_other(emulator: Emulator, kind: str) -> None:
    tokens, others = signed_in(emulator), signed_in(emulator)
    assert post(emulator, REVOKE_URL, token=tokens[kind]).status_code == 200
    assert post(emulator, REVOKE_URL, token=tokens[kind]).status_code == 200, "again is no error"
    assert refused(refresh(emulator, tokens["refresh_token"])) == (400, "invalid_grant")
    assert [status(emulator, each["access_token"]) for each in (tokens, others)] == [401, 200]
    assert refresh(emulator, others["refresh_token"]).status_code == 200


@pytest.mark.parametrize("token", ["", "x", REFRESH_TOKEN_START, f"{REFRESH_TOKEN_START}{'0' * 28}x", "ü"])
def test_what_is_no_refresh_token_is_refused_and_revoking_it_does_nothing(emulator: Emulator, token: str) -> None:
    assert refresh(emulator, token).status_code == 400
    assert post(emulator, REVOKE_URL, token=token).status_code == (200 if token else 400)


# What is kept, and what is shown


def test_the_number_of_sign_ins_is_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in, "MAX_SIGN_INS", 3)
    with serve(redirect_uris=[CALLBACK]) as emulator:
        first, *others = [signed_in(emulator, "cmemu") for _ in range(4)]
        assert refused(refresh(emulator, first["refresh_token"])) == (400, "invalid_grant")
        assert [refresh(emulator, each["refresh_token"]).status_code for each in others] == [200] * 3


def test_with_a_journal_the_user_of_a_token_outlives_the_process_and_so_does_a_revocation(
    tmp_path: Path, serve: Serve
) -> None:
    settings = {"journal": str(tmp_path / "lifecycle.db"), "redirect_uris": [CALLBACK], "sign_in_as": "Zoë"}
    with serve(**settings) as first:
        kept, ended = ((redeem(first, sent_back(open_sign_in_page(first))["code"]).json()) for _ in range(2))
        post(first, REVOKE_URL, token=ended["access_token"])
    with serve(**settings) as second:
        api = Api(second.url, kept["access_token"])
        assert api.send("GET", "/multipass/api/me", headers=api.bearer).json()["username"] == "Zoë"
        assert status(second, ended["access_token"]) == 401
        assert refused(refresh(second, kept["refresh_token"])) == (400, "invalid_grant"), "refresh tokens do not"


def test_no_event_has_a_code_or_a_token(emulator: Emulator) -> None:
    code = code_of(emulator)
    tokens = redeem(emulator, code).json()
    api = Api(emulator.url, tokens["access_token"])
    slips = [code, tokens["access_token"], tokens["refresh_token"]]
    for slip in slips:
        assert api.contour("GET", f"/multipass/api/{slip}").status_code == 404
        assert Mask()(f"a {slip} b") == f"a …{slip[-4:]} b"
    told = str(emulator.lifecycle.events.recent())
    assert told.count("/multipass/api/") >= 3
    assert not [slip for slip in slips if slip in told]
    assert code.startswith(CODE_START)


@pytest.mark.parametrize(("index", "login"), [(21, "alice"), (40, "bob"), (-1, "alice"), (-60, "bob")])
def test_the_user_of_a_token_cannot_be_changed(emulator: Emulator, index: int, login: str) -> None:
    token = signed_in(emulator, login)["access_token"]
    changed = "A" if token[index] != "A" else "B"
    spoilt = token[:index] + changed + (token[index + 1 :] if index != -1 else "")
    assert [status(emulator, each) for each in (spoilt, token[:-1], f"{token}=", f"{token}A")] == [401] * 4
    assert status(emulator, token_of(emulator)) == status(emulator, token) == 200


@pytest.mark.parametrize(
    "settings",
    [
        *(
            {"redirect_uris": [each]}
            for each in ("*", "localhost:3000/x", "http://a/#x", "http://a b", "javascript://x")
        ),
        *({"redirect_uris": [each]} for each in ("", "http://a\r\nX: y", "http://a;b", "http://a,b/")),
        *({"redirect_uris": [each]} for each in ("http://[a]/", "http://[::1/", "http://a:99999/")),
        *({"sign_in_as": each} for each in ("", " ", "a\nb")),
    ],
    ids=str,
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=r"to which no user can be sent back|sign_in_as is empty"):
        Emulator(**settings)


def test_the_verifier_of_these_tests_is_that_of_the_examples() -> None:
    digest = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
    assert digest == examples.SIGN_IN["code_challenge"]
