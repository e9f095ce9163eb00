"""`/ui`: the dashboard in any browser, from the emulator itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from client import RID, error_code, eventually
from conftest import TOKEN
from playwright.sync_api import expect
from ui_page import UiPages, ui_pages
from updates import open_updates

from cmemu_nb.server.routes.ui import FILES

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.browser, pytest.mark.once, pytest.mark.long_lived]


@pytest.fixture(scope="module")
def pages() -> Iterator[UiPages]:
    with ui_pages() as opened:
        yield opened


def test_a_page_shows_what_happens_while_it_happens(pages: UiPages) -> None:
    runtime = pages.open_runtime(rid=RID)
    job_id = pages.submit("double", {"x": 1})
    row = pages.page.row(job_id)
    expect(row).to_contain_text("queued")
    assert runtime.take_id() == job_id
    expect(row).to_contain_text("running")
    expect(pages.page.page).to_have_title("1 running · cmemu")
    runtime.post_result(job_id, b"2")
    expect(row).to_contain_text("ok")
    expect(pages.page.page).to_have_title("cmemu")


def test_the_page_s_files_have_no_data_and_a_strict_policy(pages: UiPages) -> None:
    policy = pages.api.send("GET", "/ui").headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "default-src 'none'" in policy
    for path in FILES:
        answer = pages.api.send("GET", path)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
        assert TOKEN not in answer.text


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"do": "explode", "window": "w"},
        {"do": "stay"},
        {"do": "look", "window": "w"},
        {"do": "look", "window": "w", "number": 1, "changes": {"tab": 5}},
        {"do": "look", "window": "w", "number": 1, "changes": {"unknown": 5}},
    ],
)
def test_messages_that_no_page_would_send_are_refused(pages: UiPages, message: dict[str, Any]) -> None:
    with open_updates(pages.api) as page_id:
        sent = {"page": page_id, "messages": [message]}
        assert error_code(pages.api.contour("POST", "/ui/messages", json=sent)) == "invalid_request"
    eventually(lambda: pages.api.contour("POST", "/ui/messages", json=sent).status_code == 404, "the page is closed")


def test_the_token_leaves_the_address_and_is_remembered_by_the_tab(pages: UiPages) -> None:
    page = pages.page.page
    assert page.url == pages.emulator.ui_url
    page.reload()
    pages.page.root.wait_for()
    assert TOKEN not in page.content()
