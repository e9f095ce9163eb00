"""Pages of other origins: only those of the setting, only on the routes for applications, and never without a token."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from client import EXECUTE, RID, RUNTIMES, SUBMIT, Api, Wire
from conftest import TOKEN, serving

from cmemu_nb import Emulator
from cmemu_nb.errors import SettingError
from cmemu_nb.server.application import ROUTES
from cmemu_nb.server.cors import is_shared
from cmemu_nb.server.request import Request
from cmemu_nb.wire.paths import PLATFORM, QUERIES, SCRATCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client import WireAnswer

PAGE, OTHER_PAGE = "https://app.example.com", "http://localhost:3000"
ME = "/multipass/api/me"
SHARED = [
    SUBMIT,
    EXECUTE,
    f"{QUERIES}/f/execute",
    "/multipass/api/oauth2/token",
    "/multipass/api/oauth2/revoke_token",
    ME,
]
NOT_SHARED = [RUNTIMES, "/_emulate/export", f"{PLATFORM}/restart", f"{SCRATCH}/cache", "/openapi.json", "/docs", "/"]


@pytest.fixture(scope="module")
def open_to_pages() -> Iterator[Emulator]:
    with serving(allowed_origins=[PAGE, OTHER_PAGE], refusal_seconds=0.0) as emulator:
        yield emulator


@pytest.fixture
def to_pages(open_to_pages: Emulator) -> Iterator[Wire]:
    with Wire(open_to_pages.port) as connection:
        yield connection


def ask(wire: Wire, path: str, origin: str = PAGE, method: str = "POST", headers: str = "authorization") -> WireAnswer:
    """Send a preflight request, as a browser does."""
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    wire.request("OPTIONS", path, {"Origin": origin, **asked})
    return wire.answer()


def permissions(answer: WireAnswer) -> dict[str, str]:
    given = {name: value for name, value in answer.headers.items() if name.lower().startswith("access-control-")}
    assert "*" not in "".join(given.values())
    assert "Access-Control-Allow-Credentials" not in given
    return given


@pytest.mark.parametrize("path", SHARED)
@pytest.mark.parametrize("origin", [PAGE, OTHER_PAGE])
def test_a_page_of_an_allowed_origin_may_send_a_token_and_still_needs_one(
    to_pages: Wire, path: str, origin: str
) -> None:
    method = "GET" if path == ME else "POST"
    allowed = ask(to_pages, path, origin, method, "authorization, content-type,fetch-user-agent")
    given = permissions(allowed)
    assert (allowed.status, given["Access-Control-Allow-Origin"], allowed.headers["Vary"]) == (204, origin, "Origin")
    assert method in given["Access-Control-Allow-Methods"].split(", ")
    assert given["Access-Control-Allow-Headers"] == "authorization, content-type,fetch-user-agent"
    to_pages.request(method, path, {"Origin": origin}, b"{}" if method == "POST" else b"")
    answer = to_pages.answer()
    assert (answer.status, permissions(answer)["Access-Control-Allow-Origin"]) == (401, origin)


@pytest.mark.parametrize("path", NOT_SHARED)
def test_no_other_route_is_opened_to_any_page(to_pages: Wire, path: str) -> None:
    for origin in (PAGE, OTHER_PAGE):
        refused = ask(to_pages, path, origin)
        assert (refused.status, permissions(refused)) == (403 if origin == PAGE else 405, {})
        to_pages.request("GET", path, {"Origin": origin, "Authorization": f"Bearer {TOKEN}"})
        answer = to_pages.answer()
        assert permissions(answer) == {}
        assert origin != PAGE or answer.error() == "forbidden_origin"


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com:444",
        "http://app.example.com",
        f"{PAGE}.evil.example",
        "https://APP.example.com",
        "null",
    ],
)
def test_an_origin_must_be_exactly_one_of_the_setting(to_pages: Wire, origin: str) -> None:
    for path in SHARED:
        refused = ask(to_pages, path, origin)
        assert (refused.status, permissions(refused)) == (403, {})
        assert b"allowed_origins" in refused.body
        to_pages.request("GET", path, {"Origin": origin, "Authorization": f"Bearer {TOKEN}"})
        assert to_pages.answer().error() in ("forbidden_origin", "ForbiddenOrigin")


def test_a_page_of_this_machine_is_told_what_to_set(to_pages: Wire, open_to_pages: Emulator) -> None:
    refused = ask(to_pages, SUBMIT, "http://localhost:3001")
    assert (refused.status, refused.error(), permissions(refused)) == (403, "forbidden_origin", {})
    hint = "allowed_origins=['http://localhost:3001'] (cmemu serve --allowed-origins http://localhost:3001)"
    assert hint in refused.body.decode()
    assert hint in str(open_to_pages.events["detail"].iloc[-1])


def test_no_origin_is_allowed_by_default(api: Api) -> None:
    with Wire(int(api.url.rpartition(":")[2])) as wire:
        for path in SHARED:
            for origin, status in ((PAGE, 403), (api.url, 403)):
                assert (ask(wire, path, origin).status, permissions(ask(wire, path, origin))) == (status, {})


def test_headers_that_no_browser_asks_for_are_not_repeated(to_pages: Wire) -> None:
    for headers in ("", "a b", "*", "a:b", "x," * 100, "ü"):
        assert "Access-Control-Allow-Headers" not in permissions(ask(to_pages, SUBMIT, headers=headers))
    assert ask(to_pages, "/api/v2/nothing").status == 404
    to_pages.request("OPTIONS", SUBMIT, {"Origin": PAGE})
    assert to_pages.answer().status == 405


def test_errors_and_streams_can_be_read_by_the_page_too(open_to_pages: Emulator, to_pages: Wire) -> None:
    api = Api(open_to_pages.url, TOKEN)
    runtime = api.open("r", RID)
    runtime.post_schemas(
        {"f": {"inputs": [], "output": {"type": "single", "single": {"dataType": {"type": "integer"}}}}}
    )
    headers = {"Origin": PAGE, "Authorization": f"Bearer {TOKEN}"}
    to_pages.request("POST", EXECUTE, {**headers, "Content-Type": "application/json"}, b"{")
    answer = to_pages.answer()
    assert (answer.status, permissions(answer)["Access-Control-Allow-Origin"]) == (400, PAGE)
    to_pages.request("POST", f"{QUERIES}/f/streamingExecute", headers, b'{"parameters": {}}')
    runtime.post_result(str(runtime.poll(wait=30).json()["computeModuleJobV1"]["jobId"]), b"42")
    streamed = to_pages.answer()
    assert (streamed.status, permissions(streamed)["Access-Control-Allow-Origin"]) == (200, PAGE)
    assert b"42" in streamed.body


def test_routes_for_modules_and_for_people_are_never_shared() -> None:
    def shared(path: str) -> bool:
        request: Any = Request.__new__(Request)
        request.path = path
        return is_shared(request)

    opened = {route.path for route in ROUTES if shared(route.path)}
    assert {path for path in opened if not path.startswith(("/api/", "/contour-backend-multiplexer/"))} == {
        path for path in SHARED if path.startswith("/multipass/")
    }
    assert not [path for path in opened if re.search("_emulate|internal-query|scratch|authorize", path)]


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "localhost:3000",
        "http://localhost:3000/",
        "HTTP://localhost",
        "http://localhost:80",
        "",
        "http://a b",
    ],
)
def test_what_is_no_origin_is_refused_by_the_setting(origin: str) -> None:
    with pytest.raises(SettingError, match="not the origin of a web page"):
        Emulator(allowed_origins=["http://localhost:3000", origin])


def test_origins_in_every_spelling_of_a_browser_are_taken() -> None:
    origins = ["http://localhost", "https://localhost:8443", "http://[::1]:3000", "http://127.0.0.1:5173", PAGE]
    assert Emulator(allowed_origins=origins).settings.allowed_origins == origins
    assert Emulator(allowed_origins=PAGE).settings.allowed_origins == [PAGE]
