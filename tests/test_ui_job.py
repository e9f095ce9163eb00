"""The open job of the dashboard, on its page: what failed and why, and everything that can be done with a job."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from dataclasses import make_dataclass
from typing import TYPE_CHECKING, Any

import pytest
from cells import make
from environments import program
from playwright.sync_api import ViewportSize, expect
from ui_page import UiPage, UiPages, ui_pages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator

pytestmark = [pytest.mark.browser, pytest.mark.once, pytest.mark.long_lived]

WIDE: ViewportSize = {"width": 900, "height": 700}
NARROW: ViewportSize = {"width": 880, "height": 700}
gate = threading.Event()


Pair = make_dataclass("Pair", [("x", int), ("y", int), ("names", list[str]), ("more", int, 5)])
ADD = """
def add(context, event: Pair) -> int:
    return event.x + event.y + event.more
"""
READ = """

def read(context, event):
    return json.loads(event["text"])
"""
HANG = """
def hang(context, event):
    print("one step")
    gate.wait()
"""


@pytest.fixture(scope="module")
def pages() -> Iterator[UiPages]:
    with ui_pages() as opened:
        opened.page.page.set_viewport_size(WIDE)
        opened.page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        for source in (ADD, READ, HANG):
            opened.emulator.function(make(source, Pair=Pair, gate=gate, json=json))
        yield opened
        gate.set()
        opened.emulator.reset()


@pytest.fixture
def page(pages: UiPages) -> Iterator[UiPage]:
    gate.clear()
    yield pages.page
    gate.set()
    pages.page.page.set_viewport_size(WIDE)
    if (card := opened_card(pages.page)).is_visible():
        card.get_by_role("button", name=re.compile("Close|Back")).click()
        expect(card).to_be_hidden()


def submit(pages: UiPages, name: str, query: Any) -> str:
    return pages.emulator.submit(name, query).id


def opened_card(page: UiPage) -> Locator:
    return page.root.get_by_role("region", name="The open job")


def open_job(page: UiPage, job_id: str) -> Locator:
    page.row(job_id).get_by_role("button").first.click()
    card = opened_card(page)
    expect(card.get_by_text(job_id, exact=True)).to_be_visible()
    return card


def query_of(number: int) -> dict[str, Any]:
    return {"x": number, "y": 2, "names": ["a", "b"]}


def test_one_click_says_what_failed_and_why(pages: UiPages, page: UiPage) -> None:
    card = open_job(page, submit(pages, "read", {"text": "{broken"}))
    error = card.get_by_role("region", name="Error")
    expect(error).to_contain_text("json.decoder.JSONDecodeError Expecting property name enclosed in double quotes")
    expect(error.get_by_label("Where it was raised")).to_have_text('File "<cell>", line 4, in read')
    expect(error.get_by_label("Traceback")).to_be_hidden()
    error.get_by_text("Traceback", exact=True).click()
    expect(error.get_by_label("Traceback")).to_contain_text("raw_decode")
    times = card.get_by_label("Timeline")
    expect(times).to_contain_text(re.compile("queued.*running.*succeeded"))
    expect(times.get_by_text("queued", exact=True)).to_have_attribute("title", re.compile(r"^\d{4}-\d\d-\d\d .* UTC$"))


def test_it_is_beside_the_list_from_900_pixels_and_below_replaces_it(pages: UiPages, page: UiPage) -> None:
    ids = [submit(pages, "add", query_of(number)) for number in range(30)]
    expect(page.row(ids[-1])).to_contain_text("ok")
    scroller = page.root.locator(".cmemu-scroll").first
    page.row(ids[3]).scroll_into_view_if_needed()
    card = open_job(page, ids[3])
    at = scroller.evaluate("(element) => element.scrollTop")
    assert at > 0
    expect(page.row(ids[3])).to_be_visible()
    boxes = [each.bounding_box() for each in (page.row(ids[3]), card)]
    assert boxes[0]
    assert boxes[1]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    card.evaluate("(element) => element.scrollTo(0, 50)")
    assert scroller.evaluate("(element) => element.scrollTop") == at
    page.page.set_viewport_size({"width": 1280, "height": 800})
    bottom = scroller.evaluate("(element) => element.getBoundingClientRect().bottom")
    assert 740 < bottom < 800  # the list is as high as the window, and what is below it is seen, too
    assert page.page.evaluate("document.documentElement.scrollHeight") <= 800
    page.page.set_viewport_size(NARROW)
    expect(page.row(ids[3])).to_be_hidden()
    card.get_by_role("button", name="Back").click()
    expect(card).to_be_hidden()
    expect(page.row(ids[3])).to_be_visible()
    expect(page.row(ids[3]).get_by_role("button").first).to_be_focused()
    open_job(page, ids[4])
    page.root.get_by_role("button", name=re.compile(r" ok$")).click()  # shows the list, which the job has replaced
    expect(card).to_be_hidden()
    expect(page.row(ids[-1])).to_be_visible()
    page.root.get_by_role("button", name=re.compile(r" ok$")).click()


def test_keys_and_buttons_go_to_the_next_and_the_previous_job(pages: UiPages, page: UiPage) -> None:
    first, second, third = (submit(pages, "add", query_of(number)) for number in (41, 42, 43))
    for each in (first, second, third):
        expect(page.row(each)).to_contain_text("ok")
    card = open_job(page, second)
    for keys, shown in (("j", first), ("k", second), ("Alt+ArrowUp", third), ("Alt+ArrowDown", second)):
        card.press(keys)
        expect(card.get_by_text(shown, exact=True)).to_be_visible()
    card.get_by_role("button", name="Previous job").click()
    expect(card.get_by_text(third, exact=True)).to_be_visible()
    card.get_by_role("button", name="Next job").click()
    expect(card.get_by_text(second, exact=True)).to_be_visible()
    expect(page.row(second)).to_have_attribute("data-open", "")
    page.page.keyboard.press("Escape")
    expect(card).to_be_hidden()
    expect(page.row(second).get_by_role("button").first).to_be_focused()


def test_a_query_is_edited_in_its_form_and_run_and_the_new_job_opens(pages: UiPages, page: UiPage) -> None:
    old = submit(pages, "add", {"x": 9007199254740993, "y": 2, "names": ["a", "b"], "more": 1})
    card = open_job(page, old)
    expect(card.get_by_label("Result", exact=True)).to_have_text("9007199254740996")
    card.get_by_role("button", name="Edit and run").click()
    form = card.get_by_role("region", name="Edit and run")
    expect(form.get_by_label("x", exact=True)).to_have_value("9007199254740993")
    expect(form.get_by_label("element 1", exact=True)).to_have_value("b")
    expect(form.get_by_label("more", exact=True)).to_have_value("1")
    form.get_by_label("y", exact=True).fill("many")
    form.get_by_role("button", name="Run").click()
    expect(form).to_contain_text("y: expected an integer of any size")
    form.get_by_label("y", exact=True).fill("4")
    form.get_by_label("y", exact=True).press("Control+Enter")
    expect(card.get_by_label("Result", exact=True)).to_have_text("9007199254740998")
    expect(card.get_by_text(old, exact=True)).to_have_count(0)
    expect(form).to_be_hidden()


def test_a_query_that_the_fields_cannot_show_exactly_is_edited_as_json(pages: UiPages, page: UiPage) -> None:
    card = open_job(page, submit(pages, "add", {"x": 1, "y": 2, "names": ["a"], "other": [1.50]}))
    card.get_by_role("button", name="Edit and run").click()
    form = card.get_by_role("region", name="Edit and run")
    query = form.get_by_label("Query", exact=True)
    expect(query).to_have_value(re.compile(r'"other": \['))
    query.fill('{"x": 1, "y": "two", "names": []}')
    form.get_by_role("button", name="Run").click()
    expect(form.get_by_role("alert")).to_contain_text("'y': expected integer, given a string ('two')")
    query.press("Escape")
    expect(form).to_be_hidden()
    expect(card.get_by_role("button", name="Edit and run")).to_be_focused()


def test_logs_are_live_and_a_job_is_failed_with_a_reason_or_cancelled(pages: UiPages, page: UiPage) -> None:
    card = open_job(page, submit(pages, "hang", {}))
    expect(card.get_by_label("Logs")).to_have_text("one step\n")
    card.get_by_role("button", name="Fail…").click()
    expect(card.get_by_label("Reason")).to_be_focused()
    card.get_by_label("Reason").press("Escape")
    expect(card.get_by_label("Reason")).to_be_hidden()
    card.get_by_role("button", name="Fail…").click()
    card.get_by_label("Reason").fill("I <b>said</b> so")
    card.get_by_label("Reason").press("Enter")
    expect(card.get_by_role("region", name="Error")).to_contain_text("failed I <b>said</b> so")
    expect(card.get_by_role("button", name="Cancel")).to_be_hidden()
    card.get_by_role("button", name="Run again").click()
    card.get_by_role("button", name="Cancel").click()
    expect(card.get_by_role("region", name="Error")).to_contain_text("cancelled in the dashboard")


def test_the_copied_curl_command_works_in_a_shell_and_only_the_clipboard_has_the_token(
    pages: UiPages, page: UiPage
) -> None:
    card = open_job(page, submit(pages, "add", {"x": 20, "y": 2, "names": ['it\'s "quoted" $HOME `id` ü']}))
    expect(card.get_by_label("Result", exact=True)).to_have_text("27")
    card.get_by_role("button", name="Copy curl").click()
    expect(page.root.get_by_text("The command was copied, with the token in it")).to_be_visible()
    command = page.page.evaluate("() => navigator.clipboard.readText()")
    assert pages.emulator.token in command
    assert pages.emulator.token not in page.page.content()
    shell = {"PATH": f"{program('curl').parent}:/usr/bin:/bin"}
    assert subprocess.check_output(["bash", "-c", command], env=shell, timeout=60) == b"27"


def test_a_removed_job_says_so(pages: UiPages, page: UiPage) -> None:
    runtime = pages.open_runtime("short-lived")
    job_id = runtime.submit("f", {})
    card = open_job(page, job_id)
    runtime.send("DELETE", runtime.path)
    expect(card).to_contain_text("This job was removed: it was evicted, or its runtime was reset or deleted.")
    expect(card.get_by_role("button", name="Run again")).to_be_hidden()


def test_two_jobs_of_one_function_are_compared(pages: UiPages, page: UiPage) -> None:
    first = submit(pages, "add", query_of(1))
    submit(pages, "add", {"x": "one", "y": 2, "names": ["a", "b"]})
    third = submit(pages, "add", query_of(7))
    card = open_job(page, third)
    card.get_by_role("button", name="Compare").click()
    compared = card.get_by_role("region", name="Compare")
    expect(compared.get_by_role("row", name="outcome function error ok")).to_be_visible()
    compared.get_by_label("Compare with").select_option(first)
    expect(compared.get_by_role("row", name="outcome ok ok")).to_be_visible()
    expect(compared.get_by_role("table", name="Query").locator("[data-differs]")).to_have_text(['- "x": 1,+ "x": 7,'])
    expect(compared.get_by_role("table", name="Result or error").locator("[data-differs]")).to_have_text("- 8+ 14")
    compared.get_by_role("button", name="Done").click()
    expect(card.get_by_label("Result", exact=True)).to_have_text("14")
