"""The list of jobs and its search line, as their users see them on the page outside notebooks."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from lab_browser import screenshot
from playwright.sync_api import expect
from ui_page import ui_pages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator
    from ui_page import UiPage, UiPages

    from cmemu_nb.lifecycle.lifecycle import Lifecycle

pytestmark = [pytest.mark.browser, pytest.mark.long_lived]

HOSTILE = '<script>window.hacked=1</script>"><img src=x onerror=window.hacked=2>\u202egnp\x00' + "A" * 300
# What is not in one line of 28 pixels, or widens the dashboard.
UNEVEN = """(root) => [...root.querySelectorAll('.cmemu-lines tr')]
    .filter((row) => row.checkVisibility() && Math.round(row.getBoundingClientRect().height) !== 28)
    .map((row) => row.getBoundingClientRect().height + ' ' + row.textContent)
    .concat(root.scrollWidth > root.clientWidth ? ['the dashboard'] : [])"""
# What is wider than its place: the bar of a job that runs, or a filter.
TOO_WIDE = """(root) => [...root.querySelectorAll('.cmemu-times > i:last-child, .cmemu-list-pane .cmemu-filters > *')]
    .filter((each) => each.checkVisibility()).filter((each) => {
        const [inner, outer] = [each, each.parentElement].map((box) => box.getBoundingClientRect());
        return inner.right > outer.right + 1 || outer.height > 32;
    }).map((each) => each.outerHTML)"""
WHOLE = ["Outcome", "Function", "Runtime", "Query", "Result or error", "Time", "Queued", "Job"]
NARROWER = {
    1280: WHOLE,
    900: [name for name in WHOLE if name not in ("Runtime", "Job")],
    400: ["Outcome", "Function", "Result or error"],
}


@pytest.fixture(scope="module")
def ids() -> dict[str, str]:
    """Return the ids of the jobs by name, once there are any."""
    return {}


@pytest.fixture(scope="module")
def pages(ids: dict[str, str]) -> Iterator[UiPages]:
    with ui_pages() as opened:
        opened.emulator.change(lambda lifecycle: ids.update(jobs_of_each_kind(lifecycle)))
        yield opened


def jobs_of_each_kind(lifecycle: Lifecycle) -> dict[str, str]:
    """Submit a job that ends in each way, one that runs and one that is queued, with hostile texts in one."""
    lifecycle.open_session("r")
    lifecycle.open_session(f"a\nb{HOSTILE[:90]}")
    ids = {}

    def taken(name: str, function: str, query: str, runtime: str = "r") -> str:
        ids[name] = lifecycle.submit(runtime, function, query.encode()).job_id
        lifecycle.take(runtime)
        return ids[name]

    lifecycle.finish("r", taken("ok", "add", '{\n  "x": 493,\n  "y": 1\n}'), b"494")
    lifecycle.finish("r", taken("error", "add", '{"x": 7}'), b'{"exception": "ValueError: 7 is no good"}')
    lifecycle.fail(taken("failed", "divide", '{"x": 493}'), "the replica has ended\nand so has this")
    hostile = taken("hostile", HOSTILE, json.dumps(HOSTILE), f"a\nb{HOSTILE[:90]}")
    lifecycle.finish(f"a\nb{HOSTILE[:90]}", hostile, HOSTILE.encode() * 1_000)
    taken("running", "hang", "{}")
    ids["queued"] = lifecycle.submit("r", "hang", b'{"later": true}').job_id
    return ids


def cells(page: UiPage, job_id: str) -> Locator:
    return page.row(job_id).locator("td")


def shown(panel: Locator) -> Locator:
    return panel.locator(".cmemu-lines tbody tr")


def test_each_job_is_one_line_with_one_word_previews_times_and_age_and_active_ones_are_first(
    pages: UiPages, ids: dict[str, str]
) -> None:
    page = pages.page
    panel = page.tab("Jobs")
    expect(shown(panel)).to_have_count(6)
    first = [shown(panel).nth(position).locator("td").first for position in range(3)]
    for cell, word in zip(first, ("running", "queued", "ok"), strict=True):
        expect(cell).to_have_text(word)
    seen = {name: cells(page, job_id).all_inner_texts() for name, job_id in ids.items()}
    outcomes = {"hostile": "ok", **{name: name for name in ids if name != "hostile"}}
    assert {name: texts[0] for name, texts in seen.items()} == outcomes
    assert seen["ok"][1:5] == ["add", "r", '{ "x": 493, "y": 1 }', "494"]
    assert seen["error"][4] == "ValueError: 7 is no good"
    assert seen["failed"][4] == "the replica has ended"
    assert re.fullmatch(r"[\d.]+ (ns|µs|ms|s)", seen["ok"][5].strip())
    expect(cells(page, ids["ok"]).nth(5)).to_have_attribute("title", re.compile(r"^queued for .*, ran for .*"))
    expect(cells(page, ids["ok"]).nth(6)).to_have_attribute("title", re.compile(r"^queued at \d{4}-.* UTC$"))
    age = cells(page, ids["running"]).nth(6)
    expect(age).not_to_have_text(seen["running"][6])  # no message of the kernel is about it
    expect(age).to_have_text(re.compile(r"^(\d+ (s|min) ago|just now)$"))
    assert page.root.evaluate(TOO_WIDE) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_list_has_fewer_columns_and_its_rows_stay_one_line_high(
    pages: UiPages, ids: dict[str, str], scheme: str
) -> None:
    with pages.open(color_scheme=scheme, viewport={"width": 1280, "height": 800}) as page:
        page.tab("Jobs")
        expect(cells(page, ids["hostile"]).nth(1)).to_contain_text("<script>")
        expect(cells(page, ids["hostile"]).nth(4)).to_contain_text("[U+202E]gnp␀AAA")
        for width, columns in NARROWER.items():
            page.page.set_viewport_size({"width": width, "height": 800})
            expect(page.root.locator(".cmemu-lines th:visible")).to_have_text(columns)
            screenshot(page.page, f"ui-jobs-{scheme}-{width}")
            assert page.root.evaluate(UNEVEN) == [], width
            assert page.root.evaluate(TOO_WIDE) == [], width
            expect(page.root.get_by_label("Function", exact=True)).to_be_visible(visible=width > 560)
        assert page.page.evaluate("window.hacked") is None


def test_the_search_line_finds_jobs_and_says_what_it_does_not_understand(pages: UiPages, ids: dict[str, str]) -> None:
    page = pages.page
    panel = page.tab("Jobs")
    search = panel.get_by_label("Search", exact=True)
    for text, names in {
        "fn:add outcome:error": {"error"},
        "x=493": {"ok", "failed"},
        "x=493 -fn:divide": {"ok"},
        '"no good"': {"error"},
        f"id:{ids['running'][-6:]}": {"running"},
    }.items():
        search.fill(text)
        expect(panel).to_contain_text(f"{len(names)} of {len(names)} found, 6 in all")
        expect(shown(panel)).to_have_count(len(names))
        for name in names:
            expect(page.row(ids[name])).to_be_visible()
    search.fill("user:ada fn:add")
    expect(panel).to_contain_text("There is no key “user:”. Keys are fn:, outcome:, status:, runtime: and id:;")
    expect(shown(panel)).to_have_count(2)
    search.fill("fn:ad")
    expect(panel).to_contain_text("No job matches. fn: takes a whole name; fn:*ad* finds a part of it.")
    panel.get_by_role("button", name="Clear", exact=True).click()
    expect(search).to_have_value("")
    expect(shown(panel)).to_have_count(6)
    panel.get_by_label("Outcome", exact=True).select_option("running")
    expect(shown(panel)).to_have_count(1)
    panel.get_by_role("button", name="Clear", exact=True).click()
    expect(shown(panel)).to_have_count(6)


def test_the_arrow_keys_move_from_row_to_row_and_enter_opens_a_job(pages: UiPages, ids: dict[str, str]) -> None:
    page = pages.page
    panel = page.tab("Jobs")
    page.row(ids["running"]).get_by_role("button").focus()
    page.page.keyboard.press("ArrowDown")
    expect(page.row(ids["queued"]).get_by_role("button")).to_be_focused()
    page.page.keyboard.press("Enter")
    expect(panel.get_by_role("region", name="The open job").get_by_text(ids["queued"]).first).to_be_visible()
    page.page.keyboard.press("Escape")
    expect(panel.get_by_role("region", name="The open job")).to_be_hidden()
