"""Web applications in Chromium: pages of other origins call functions, and sign users in with the client of npm."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import urlencode

import pytest
from cells import make
from environments import node_modules
from lab_browser import chromium, screenshot
from playwright.sync_api import expect
from web_pages import web_site

from cmemu_nb import Emulator
from cmemu_nb.server.openapi import examples
from cmemu_nb.wire.paths import AUTHORIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from playwright.sync_api import BrowserContext

    Serve = Callable[..., AbstractContextManager[Emulator]]

pytestmark = [pytest.mark.browser, pytest.mark.long_lived]
CALL = """async ([url, token, path, body]) => {
    try {
        const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
        const answer = await fetch(url + path, { method: body ? "POST" : "GET", headers, body: body ?? undefined });
        return [answer.status, await answer.text()];
    } catch (error) {
        return [0, String(error)];
    }
}"""
DOUBLE = """
class Input(TypedDict):
    x: int

def double(context, event: Input) -> int:
    return 2 * event["x"]
"""
MODULES = {
    "@osdk/oauth": "/node_modules/@osdk/oauth/build/browser/index.js",
    "oauth4webapi": "/node_modules/oauth4webapi/build/index.js",
    "tiny-invariant": "/node_modules/tiny-invariant/dist/esm/tiny-invariant.js",
    "typescript-event-target": "/node_modules/typescript-event-target/dist/index.mjs",
}
# It signs in when its button is pressed, and when it is opened again after that.
APPLICATION = """<!doctype html><title>An application</title>
<script>var process = { env: { NODE_ENV: "production" } };</script>
<script type="importmap">{"imports": MODULES}</script>
<button>Sign in</button><output></output>
<script type="module">
import { createPublicOauthClient } from "@osdk/oauth";
const auth = createPublicOauthClient(CLIENT, URL_OF_EMULATOR, location.origin + "/index.html");
const call = async () => {
    const headers = { "Content-Type": "application/json", Authorization: `Bearer ${await auth()}` };
    const answer = await fetch(URL_OF_EMULATOR + PATH, { method: "POST", headers, body: '{"parameters": {}}' });
    document.querySelector("output").textContent = await answer.text();
};
Object.assign(window, { auth, call });
document.querySelector("button").onclick = call;
if (location.search) await call();
</script>"""
WHO = """
def who(context, event) -> str:
    return context["userId"]
"""
EXECUTE = "/api/v2/functions/queries/double/execute"


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    with chromium() as context:
        yield context


def test_a_page_of_an_allowed_origin_calls_a_function_and_a_page_of_another_one_cannot(
    serve_functions: Serve, browser: BrowserContext, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("<!doctype html><title>An application</title>")
    with (
        web_site(tmp_path) as origin,
        web_site(tmp_path) as other,
        serve_functions(allowed_origins=[origin]) as emulator,
    ):
        emulator.function(make(DOUBLE, TypedDict=TypedDict))
        token = str(emulator.token)

        def call(token: str, path: str = EXECUTE, body: str | None = '{"parameters": {"x": 21}}') -> Any:
            return page.evaluate(CALL, [emulator.url, token, path, body])

        page = browser.new_page()
        page.goto(origin)
        assert call(token) == [200, '{"value":42}']
        assert call("")[0] == call("wrong")[0] == 401, "the page can read why"
        assert call(token, "/multipass/api/me", None)[0] == 200
        assert call(token, "/_emulate/export", None) == [0, "TypeError: Failed to fetch"]
        page.goto(other)
        assert call(token) == [0, "TypeError: Failed to fetch"]
        assert len(emulator.jobs) == 1
        assert "allowed_origins=" in str(emulator.events["detail"].iloc[-1])
        page.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An origin with the packages of npm, and the folder of its pages."""
    (tmp_path / "node_modules").symlink_to(node_modules() / "node_modules")
    with web_site(tmp_path) as origin:
        yield origin, tmp_path


def write_application(folder: Path, emulator: Emulator) -> None:
    names = {
        "MODULES": MODULES,
        "CLIENT": emulator.client_id,
        "URL_OF_EMULATOR": emulator.url,
        "PATH": "/api/v2/functions/queries/who/execute",
    }
    text = APPLICATION
    for name, value in names.items():
        text = text.replace(name, json.dumps(value))
    (folder / "index.html").write_text(text)


def test_the_public_client_of_npm_signs_a_user_in_who_is_the_caller_of_functions(
    browser: BrowserContext, site: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    origin, folder = site
    seed = tmp_path_factory.mktemp("seed") / "seed.yaml"
    seed.write_text("tokens: {token-of-alice: {login: alice}, token-of-bob: {login: <b>bob</b>}}")
    settings = {"allowed_origins": [origin], "redirect_uris": [f"{origin}/index.html"]}
    with Emulator.from_seed(seed, port=0, home="thread", **settings) as emulator:
        emulator.function(make(WHO))
        write_application(folder, emulator)
        page = browser.new_page()
        page.goto(f"{origin}/index.html")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("button")).to_have_text(["alice", "<b>bob</b>", "Cancel"])
        screenshot(page, "sign-in")
        page.get_by_role("button", name="<b>bob</b>").click()
        expect(page.locator("output")).to_have_text('{"value":"<b>bob</b>"}')
        assert [job.user_id for job in emulator.lifecycle.jobs()] == ["<b>bob</b>"]
        first = page.evaluate("auth()")
        renewed = page.evaluate("auth.refresh().then(({ access_token }) => access_token)")
        assert renewed != first
        # It is opened again: the refresh token in its storage is enough.
        page.goto(f"{origin}/index.html")
        page.evaluate("call()")
        expect(page.locator("output")).to_have_text('{"value":"<b>bob</b>"}')
        page.evaluate("auth.signOut()")
        assert page.evaluate("Object.values(localStorage).join().includes('refresh_token')") is False
        page.close()
        assert len(emulator.events.query("kind == 'signed_in'")) == 1
        emulator.reset()


def test_sign_in_as_needs_no_person(serve_functions: Serve, browser: BrowserContext, site: tuple[str, Path]) -> None:
    origin, folder = site
    settings = {"allowed_origins": [origin], "redirect_uris": [f"{origin}/index.html"], "sign_in_as": "ada"}
    with serve_functions(**settings) as emulator:
        emulator.function(make(WHO))
        write_application(folder, emulator)
        page = browser.new_page()
        page.goto(f"{origin}/index.html")
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("output")).to_have_text('{"value":"ada"}')
        page.close()


def test_the_sign_in_page_cannot_be_framed_and_a_form_of_another_page_is_refused(
    serve: Serve, browser: BrowserContext, tmp_path: Path
) -> None:
    with web_site(tmp_path) as origin, serve(redirect_uris=[f"{origin}/callback"]) as emulator:
        address = f"{emulator.url}{AUTHORIZE}"
        options = {**examples.SIGN_IN, "client_id": emulator.client_id, "redirect_uri": f"{origin}/callback"}
        (tmp_path / "index.html").write_text(
            f'<iframe src="{html.escape(f"{address}?{urlencode(options)}")}"></iframe>'
            f'<form method="post" action="{address}"><button name="login" value="cmemu">Win a prize</button></form>'
        )
        page = browser.new_page()
        with page.expect_console_message(lambda message: "frame" in message.text.lower()):
            page.goto(origin)
        assert "Sign in" not in page.frames[1].content()
        page.get_by_role("button").click()
        page.wait_for_url(address)
        assert "forbidden_origin" in page.content()
        page.close()
