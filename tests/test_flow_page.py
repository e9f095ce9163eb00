"""The flow at the top of the dashboard, the keys and the look of the whole dashboard, on its page in Chromium."""

from __future__ import annotations

import re
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from cells import make
from client import RID
from dashboard_page import function_button
from lab_browser import screenshot
from playwright.sync_api import expect
from readable import cut, pale, unnamed
from ui_page import UiPages, ui_pages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator
    from ui_page import UiPage

WIDTHS = (1280, 900, 800, 400)
TABS = ("Jobs", "Functions", "Runtimes", "Timeline", "Events")
FUNCTIONS = """
def wait(context, event):
    "Waits for the test."
    gate.wait()

def half(context, event) -> float:
    "Halves the number x."
    print("halving", event)
    return 1 / event["x"]
"""
PLACES = """(flow) => [...flow.querySelectorAll('button')]
    .map((each) => each.getBoundingClientRect())
    .map(({ x, y, width, height }) => [x, y, width, height].map(Math.round))"""
MOVING = """(root) => [...root.querySelectorAll('*')].map((each) => getComputedStyle(each))
    .filter((style) => style.animationName !== 'none' || style.transitionDuration !== '0s').length"""
HEAR_KEYS = """() => {
    window.heard = [];
    window.addEventListener('keydown', (event) => {
        window.heard.push(event.key);
        event.preventDefault();
    });
}"""
pytestmark = [pytest.mark.browser, pytest.mark.once, pytest.mark.long_lived]


@pytest.fixture(scope="module")
def gate() -> Iterator[threading.Event]:
    """What the function `wait` waits for."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(scope="module")
def opened(gate: threading.Event) -> Iterator[UiPages]:
    with ui_pages(max_concurrent_tasks=2) as opened:
        yield opened
        gate.set()


@pytest.fixture
def pages(opened: UiPages, gate: threading.Event) -> Iterator[UiPages]:
    for source in FUNCTIONS.split("\n\n"):
        opened.emulator.function(make(source, gate=gate))
    opened.page.page.set_viewport_size({"width": 1280, "height": 900})
    opened.page.root.get_by_role("button", name="application").click()  # show all jobs
    yield opened
    opened.emulator.reset()


@pytest.fixture
def flow(pages: UiPages) -> Locator:
    return pages.page.root.get_by_role("group", name="Lifecycle of the jobs")


def fill(pages: UiPages) -> dict[str, str]:
    """Let jobs end in each way, let two run and hold all slots, and three wait; return one id for each outcome."""
    emulator = pages.emulator
    jobs = {"ok": emulator.submit("half", {"x": 2}), "function error": emulator.submit("half", {"x": 0})}
    for job in jobs.values():
        job.raw()
    pages.open_runtime(rid=RID)
    failed = pages.submit("nobody", {})
    emulator.change(lambda lifecycle: lifecycle.fail(failed, "nobody wants it"))
    for _ in range(5):
        emulator.submit("wait")
    expect(pages.page.count("2 running in 2 slots, held by wait")).to_be_visible()
    return {**{outcome: job.id for outcome, job in jobs.items()}, "failed": failed}


def test_the_flow_says_where_the_jobs_are_and_each_count_shows_them(pages: UiPages, flow: Locator) -> None:
    jobs = fill(pages)
    page = pages.page
    for words, kind in (("1 ok", "ok"), ("1 function error", "function error"), ("1 failed", "failed")):
        page.count(words).click()
        expect(page.count(words)).to_have_attribute("aria-pressed", "true")
        for other, job_id in jobs.items():
            expect(page.row(job_id)).to_have_count(1 if other == kind else 0)
    page.tab("Events")
    page.count("3 queued").click()
    rows = page.root.get_by_role("tabpanel", name="Jobs").locator("tbody tr")
    expect(rows).to_have_count(3)
    page.count("3 queued").click()
    expect(page.count("3 queued")).to_have_attribute("aria-pressed", "false")
    expect(rows).to_have_count(8)
    full = page.count("2 running in 2 slots, held by wait")
    expect(full).to_have_attribute("data-full", "")
    expect(full).to_have_attribute("title", re.compile("All slots of notebook are taken: wait holds 2"))
    expect(flow).to_contain_text("held by wait")
    expect(flow.locator(".cmemu-flow-rate").first).to_have_text(re.compile(r"^[\d.]+/(min|s)$"))
    spark = "1 ok, 1 function error, 1 failed. The highest bar has"
    expect(flow.get_by_role("img")).to_have_accessible_name(re.compile(spark))
    for figure, tab in (("queue p50", "Timeline"), ("run p50", "Functions")):
        flow.get_by_role("button", name=re.compile(figure)).click()
        expect(page.root.get_by_role("tabpanel", name=tab)).to_be_visible()
    pages.emulator.cancel("wait")
    expect(page.count("0 running in 2 slots")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_flow_is_one_line_and_nothing_in_it_moves_when_numbers_grow(pages: UiPages, scheme: Any) -> None:
    pages.open_runtime(rid=RID)
    with pages.open(color_scheme=scheme) as shown:
        flow = shown.root.get_by_role("group", name="Lifecycle of the jobs")
        expect(shown.count("0 queued")).to_be_visible()
        places = {}
        for width in WIDTHS:
            shown.page.set_viewport_size({"width": width, "height": 700})
            places[width] = flow.evaluate(PLACES)
            tops = [y for _, y, _, height in places[width] if height]
            assert max(tops) - min(tops) < 20, "one line, with the round button in its middle"
            shown_ones = [place for place in places[width] if place[2]]
            assert all(one[0] + one[2] <= other[0] for one, other in pairwise(shown_ones)), (width, shown_ones)
        jobs = fill(pages)
        pages.emulator.change(lambda lifecycle: [lifecycle.submit("my-runtime", "f", b"{}") for _ in range(1_200)])
        expect(shown.count("1,203 queued")).to_be_visible()
        shown.row(jobs["failed"])
        for width in WIDTHS:
            shown.page.set_viewport_size({"width": width, "height": 700})
            screenshot(shown.page, f"flow-{scheme}-{width}")
            assert flow.evaluate(PLACES) == places[width], width
            assert cut(flow) == []
        if scheme == "light":
            assert [width for width in range(320, 1_280, 20) if too_wide(shown, flow, width)] == []


def too_wide(shown: UiPage, flow: Locator, width: int) -> bool:
    shown.page.set_viewport_size({"width": width, "height": 700})
    found: bool = flow.evaluate("(flow) => flow.scrollWidth > flow.clientWidth")
    return found


def test_the_addresses_are_behind_a_button_and_escape_closes_them(pages: UiPages) -> None:
    page = pages.page
    opener = page.root.get_by_role("button", name="Addresses and token")
    panel = page.root.get_by_role("region", name="Addresses and token")
    expect(panel).to_be_hidden()
    expect(opener).to_have_attribute("aria-expanded", "false")
    opener.press("Enter")
    expect(opener).to_have_attribute("aria-expanded", "true")
    expect(panel).to_contain_text(pages.emulator.url)
    expect(panel).to_contain_text(pages.emulator.platform_url)
    panel.get_by_role("button", name="Copy the URL").click()
    expect(page.root.get_by_text("URL was copied.")).to_be_visible()
    assert page.page.evaluate("() => navigator.clipboard.readText()") == pages.emulator.url
    panel.get_by_role("button", name="Show", exact=True).click()
    expect(panel).to_contain_text(pages.emulator.token)
    page.page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(opener).to_be_focused()
    assert pages.emulator.token not in page.page.content()


def test_a_screen_reader_hears_what_is_under_way_and_what_went_wrong(pages: UiPages) -> None:
    heard = pages.page.root.locator(".cmemu-heard")
    expect(heard).to_have_attribute("aria-live", "polite")
    expect(heard).to_have_text("No job is running")
    fill(pages)
    expect(heard).to_have_text("3 queued, 2 running, 1 function error, 1 failed")


def test_the_keys_of_the_whole_dashboard(pages: UiPages) -> None:
    page, root, keyboard = pages.page, pages.page.root, pages.page.page.keyboard
    jobs = fill(pages)
    page.tab("Jobs")
    keyboard.press("End")
    expect(root.get_by_role("tab", name="Events")).to_be_focused()
    expect(root.get_by_role("tabpanel", name="Events")).to_be_visible()
    keyboard.press("Home")
    keyboard.press("ArrowRight")
    expect(root.get_by_role("tab", name="Functions")).to_have_attribute("aria-selected", "true")
    keyboard.press("ArrowLeft")
    expect(root.get_by_role("tabpanel", name="Jobs")).to_be_visible()
    keyboard.press("?")
    expect(root.get_by_role("region", name="Addresses and token")).to_contain_text("Ctrl+Enter submit")
    keyboard.press("Escape")
    keyboard.press("/")
    search = root.get_by_role("tabpanel", name="Jobs").get_by_role("searchbox")
    expect(search).to_be_focused()
    expect(search).to_have_value("")
    page.row(jobs["ok"]).click()
    job = root.get_by_role("region", name="The open job")
    expect(job).to_be_visible()
    job.get_by_role("button", name="Copy id").focus()
    keyboard.press("Escape")
    expect(job).to_be_hidden()
    assert page.page.evaluate("() => document.activeElement.closest('.cmemu-dashboard') !== null")
    functions = page.tab("Functions")
    function_button(functions, "half").click()
    functions.get_by_role("textbox", name="Query", exact=True).fill('{"x": 4}')
    keyboard.press("Control+Enter")
    pages.emulator.cancel("wait")
    expect(functions.get_by_label("Result", exact=True)).to_have_text("0.25")
    keyboard.press("Escape")
    keyboard.press("Escape")
    expect(functions.get_by_role("region", name="Try it")).to_be_hidden()


def test_arrows_home_and_end_move_in_the_list_and_a_row_that_moves_keeps_the_focus(pages: UiPages) -> None:
    jobs = fill(pages)
    page, keyboard = pages.page, pages.page.page.keyboard
    openers = page.tab("Jobs").locator("tbody .cmemu-open")
    expect(openers).to_have_count(8)
    assert openers.evaluate_all("(all) => all.filter((each) => each.tabIndex === 0).length") == 1
    openers.first.focus()
    keyboard.press("End")
    expect(page.row(jobs["ok"]).locator(".cmemu-open")).to_be_focused()
    keyboard.press("ArrowUp")
    expect(page.row(jobs["function error"]).locator(".cmemu-open")).to_be_focused()
    keyboard.press("Home")
    expect(openers.first).to_be_focused()
    moving = page.page.evaluate_handle("() => document.activeElement")
    pages.emulator.cancel("wait")
    expect(page.count("6 failed")).to_be_visible()
    expect(page.root.get_by_role("tabpanel", name="Jobs").locator("tbody").first).not_to_contain_text("running")
    assert moving.evaluate("(row) => row === document.activeElement")
    keyboard.press("Enter")
    expect(page.root.get_by_role("region", name="The open job")).to_contain_text("cancelled")
    keyboard.press("Escape")


def test_keys_end_in_the_dashboard_but_those_of_the_page_and_the_browser_do_not(pages: UiPages) -> None:
    page = pages.page.page
    page.evaluate(HEAR_KEYS)
    pages.page.root.get_by_role("tab", name="Jobs").focus()
    for key in ("d", "d", "x", "r", "m", "Enter", "Shift+Enter", "ArrowDown", "Delete", "Control+Enter", "F9"):
        page.keyboard.press(key)
    page.keyboard.press("Control+p")
    assert page.evaluate("() => heard.filter((key) => !['Shift', 'Control'].includes(key))") == ["F9", "p"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_pale_or_unnamed_on_any_tab_and_width(pages: UiPages, scheme: Any) -> None:
    jobs = fill(pages)
    with pages.open(color_scheme=scheme, reduced_motion="reduce") as shown:
        for name in TABS:
            panel = shown.tab(name)
            show_more(shown, name, jobs)
            for width in WIDTHS:
                shown.page.set_viewport_size({"width": width, "height": 1000})
                screenshot(shown.page, f"page-{scheme}-{width}-{name.lower()}")
                assert cut(shown.root) == [], (name, width)
                assert pale(shown.root) == [], (name, width)
                assert unnamed(shown.root) == [], (name, width)
            assert shown.root.evaluate(MOVING) == 0, name
            expect(panel).to_be_visible()


def show_more(shown: UiPage, name: str, jobs: dict[str, str]) -> None:
    """Open what a tab can open."""
    panel = shown.root.get_by_role("tabpanel", name=name, exact=True)
    if name == "Jobs":
        shown.root.get_by_role("button", name="Addresses and token").click()
        shown.row(jobs["function error"]).click()
        expect(panel.get_by_role("region", name="The open job")).to_contain_text("ZeroDivisionError")
    elif name == "Functions":
        function_button(panel, "half").click()
        expect(panel.get_by_role("region", name="Try it")).to_be_visible()
    else:
        expect(panel).to_contain_text(re.compile(r"\w"))
