"""Web applications in Chromium: pages of other origins call functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import pytest
from cells import make
from lab_browser import chromium
from web_pages import web_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from playwright.sync_api import BrowserContext

    from cmemu_nb import Emulator

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
