"""`/ui`: the dashboard in any browser, from the emulator itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from client import RID, error_code, eventually, free_port
from conftest import TOKEN
from playwright.sync_api import expect
from ui_page import UiPages, ui_pages
from updates import open_updates, updates
from web_pages import web_site

from cmemu_nb.server.openapi import examples
from cmemu_nb.server.routes.ui import FILES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.browser, pytest.mark.once, pytest.mark.long_lived]


EVIL = "<img src=x onerror=alert(1)><b>ü"


@pytest.fixture(scope="module")
def opened() -> Iterator[UiPages]:
    # Not ports that the system gives to connections: the emulator must get them again when it is started again.
    with ui_pages(port=free_port(), tls_port=free_port()) as opened:
        yield opened


@pytest.fixture
def pages(opened: UiPages) -> Iterator[UiPages]:
    yield opened
    opened.emulator.reset()


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


def test_hostile_names_are_text_on_every_tab(pages: UiPages) -> None:
    runtime = pages.open_runtime(EVIL)
    runtime.post_schemas([{"functionName": EVIL}])
    job_id = pages.api.contour("POST", f"{runtime.path}/jobs", json={"queryType": EVIL, "query": EVIL}).json()["jobId"]
    expect(pages.page.row(job_id)).to_contain_text(EVIL)
    named = pages.emulator.streams.create(EVIL, {EVIL: "STRING"}, branch=EVIL)
    named.publish({EVIL: EVIL})
    for name in ("Functions", "Runtimes", "Data", "Events", "Jobs"):
        expect(pages.page.tab(name)).to_contain_text(EVIL)
        assert pages.page.root.locator("img, script, b").count() == 0
    named.delete()


def test_two_pages_agree_and_each_has_its_own_tab(pages: UiPages) -> None:
    runtime = pages.open_runtime(rid=RID)
    with pages.open(color_scheme="dark") as other:
        expect(other.tab("Runtimes")).to_contain_text("my-runtime")
        expect(pages.page.tab("Jobs")).to_be_visible()
        job_id = pages.submit("double", {"x": 1})
        expect(pages.page.row(job_id)).to_contain_text("queued")
        other.tab("Jobs")
        expect(other.row(job_id)).to_contain_text("queued")
        runtime.take()
        for page in (pages.page, other):
            expect(page.row(job_id)).to_contain_text("running")


def test_a_page_that_does_not_read_gets_the_latest_state_at_once_and_holds_no_other_up(pages: UiPages) -> None:
    runtime = pages.open_runtime(rid=RID)
    reader = pages.emulator._pages.updates(None)  # noqa: SLF001 - one whose client takes nothing from its connection
    home = pages.emulator.home

    async def read() -> dict[str, Any]:
        update: dict[str, Any] = json.loads(await anext(reader))
        return update

    first = home.run(read())
    stay = {"page": first["page"], "messages": [{"do": "stay", "window": "w"}]}
    assert pages.api.contour("POST", "/ui/messages", json=stay).status_code == 204
    for number in range(8):
        job_id = pages.submit("double", {"x": number})
        expect(pages.page.row(job_id)).to_contain_text("queued")  # the other page has had an update for each
    updates = [home.run(read())]
    while updates[-1]["parts"].get("jobs", {}).get("every") != 8:
        updates.append(home.run(read()))
    home.run(reader.aclose())
    assert len(updates) <= 3
    assert runtime.take_id()


def test_the_answer_of_a_button_comes_with_the_updates(pages: UiPages) -> None:
    pages.open_runtime("other")
    with updates(pages.api) as following:
        message = {"do": "reset", "window": "w", "id": "q1", "runtime": "other"}
        sent = {"page": next(following)["page"], "messages": [message]}
        assert pages.api.contour("POST", "/ui/messages", json=sent).status_code == 204
        answers = next(each["answers"] for each in following if each["answers"])
    assert [(each["answer"], each["window"]) for each in answers] == [("q1", "w")]
    assert "error" not in answers[0]


@pytest.mark.parametrize("path", [*sorted(FILES), "/ui/updates?most=1"])
def test_other_hosts_and_pages_of_other_sites_are_refused(pages: UiPages, path: str) -> None:
    for headers, code in (
        ({"Host": "evil.example"}, "forbidden_host"),
        ({"Origin": "http://evil.example"}, "forbidden_origin"),
    ):
        assert error_code(pages.api.contour("GET", path, headers=headers)) == code


def test_data_and_buttons_need_the_token(pages: UiPages) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answers = [pages.api.send("GET", "/ui/updates", headers=headers)]
        answers.append(pages.api.send("POST", "/ui/messages", headers=headers, json=examples.PAGE_MESSAGES))
        assert [each.status_code for each in answers] == [401, 401]


def test_without_a_token_the_page_asks_for_it_and_says_when_it_is_wrong(pages: UiPages) -> None:
    page = pages.new_tab()
    page.goto(pages.emulator.ui_url)
    field, alert = page.get_by_label("Bearer token"), page.get_by_role("alert")
    expect(field).to_be_focused()
    assert page.get_by_role("tablist").count() == 0
    for given, said in (("wrong", "does not accept this token"), ("tökén", "only ASCII")):
        field.fill(given)
        page.get_by_role("button", name="Open").click()
        expect(alert).to_contain_text(said)
    field.fill(TOKEN)
    field.press("Enter")
    expect(page.get_by_role("tablist")).to_be_visible()
    expect(field).to_be_hidden()
    page.goto(f"{pages.emulator.ui_url}#token=another")
    expect(alert).to_contain_text("does not accept this token")
    page.close()


def test_a_page_connects_again_when_the_emulator_runs_again(pages: UiPages) -> None:
    connection = pages.page.page.locator("#connection")
    pages.page.tab("Functions")
    pages.emulator.stop()
    expect(connection).to_contain_text("The connection to the emulator is lost.")
    expect(pages.page.page).to_have_title("not connected · cmemu")
    pages.emulator.start()
    expect(connection).to_be_hidden()
    pages.open_runtime("again").post_schemas([{"functionName": "after_the_restart"}])
    expect(pages.page.root.get_by_role("tabpanel", name="Functions")).to_contain_text("after_the_restart")
    pages.page.tab("Jobs")


def test_a_page_of_another_site_cannot_frame_it(pages: UiPages, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(f'<iframe src="{pages.emulator.ui_url}"></iframe>')
    page = pages.new_tab()
    with web_site(tmp_path) as here:
        page.goto(here)
        frame = page.frame_locator("iframe")
        frame.get_by_label("Bearer token").fill(TOKEN)  # a frame does not know the token of the other tabs
        frame.get_by_label("Bearer token").press("Enter")
        expect(frame.get_by_role("tablist")).to_be_visible()
        with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
            page.goto(here.replace("localhost", "another.localhost"))
        page.close()


def test_no_event_shows_the_token(pages: UiPages) -> None:
    assert not [event for event in pages.emulator.lifecycle.events.recent(all=True) if TOKEN in (event.detail or "")]
