"""The tabs of functions, runtimes and events, as their users see them on the page outside notebooks."""

from __future__ import annotations

import re
import sys
from dataclasses import field, make_dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from cells import make
from lab_browser import screenshot
from playwright.sync_api import expect
from ui_page import ui_pages

from cmemu_nb.lifecycle.datasets import TransactionType
from cmemu_nb.lifecycle.scaling import Scale

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Locator
    from ui_page import UiPages

pytestmark = [pytest.mark.browser, pytest.mark.long_lived]

ADD = '''
def add(context, event: Sum) -> int:
    """Add two numbers."""
    if event.x < 0:
        raise ValueError(f"{event.x} is negative")
    return event.x + event.y
'''
Order = make_dataclass(
    "Order",
    [
        ("item", str),
        ("price", Decimal, Decimal("1.10")),
        ("amount", int, 2**60),
        ("note", str | None, None),
        ("tags", list[str], field(default_factory=list)),
    ],
)
ORDER = """
def order(context, event: Order) -> str:
    return f"{event.item} {event.price} {event.amount} {event.note} {event.tags}"
"""
# Rows that wrap are higher than others; what does not fit would widen the dashboard.
UNEVEN = """(root) => [...root.querySelectorAll('tbody tr:not(.cmemu-runtime-details)')]
    .filter((row) => row.checkVisibility() && row.offsetHeight > 30).map((row) => row.textContent)
    .concat(root.scrollWidth > root.clientWidth ? ['the dashboard'] : [])"""


@pytest.fixture(scope="module")
def pages() -> Iterator[UiPages]:
    with ui_pages() as opened:
        opened.emulator.function(make(ADD))
        yield opened
        opened.emulator.change(lambda _: opened.emulator.functions.pause("notebook"))  # it polls until then


def run(panel: Locator, **fields: Any) -> Locator:
    """Run the open function by its form, and return the card of its job."""
    for name, value in fields.items():
        panel.get_by_label(name, exact=True).fill(str(value))
    panel.get_by_role("button", name="Run", exact=True).click()
    return panel.get_by_role("region", name="The result")


def test_a_function_s_card_has_its_signature_and_history_and_opens_its_form(pages: UiPages) -> None:
    for tab in ("Jobs", "Timeline"):
        expect(pages.page.tab(tab)).to_contain_text("There are no jobs yet. A cell submits one with ")
        expect(pages.page.tab(tab)).to_contain_text(", and the Functions tab with a form.")
    panel = pages.page.tab("Functions")
    card = panel.get_by_role("listitem").filter(has=pages.page.page.get_by_role("button", name="add", exact=True))
    expect(card).to_contain_text("x: integer, y: integer = 2 → integer")
    expect(card).to_contain_text("Add two numbers.")
    expect(card).to_contain_text("no finished jobs yet")
    card.get_by_role("button", name="add", exact=True).click()
    result = run(panel, x=5)
    expect(result.get_by_label("Result", exact=True)).to_have_text("7")
    expect(card).to_contain_text("1 ok")
    expect(card).to_contain_text(re.compile(r"p50 \S+ .s · p95"))
    run(panel, x=-1)
    expect(card).to_contain_text("1 error")
    expect(card.locator("svg title")).to_contain_text("the last 2 jobs")
    screenshot(pages.page.page, "ui-function")
    card.get_by_role("button", name="ValueError: -1 is negative").click()
    expect(pages.page.root.get_by_role("tabpanel", name="Jobs", exact=True)).to_contain_text("-1 is negative")
    pages.page.tab("Functions")
    card.get_by_role("button", name="add", exact=True).click()
    expect(panel.get_by_role("region", name="Try it")).to_be_hidden()


def test_a_form_begins_with_the_defaults_of_its_function(pages: UiPages) -> None:
    pages.emulator.function(make(ORDER, Order=Order))
    panel = pages.page.tab("Functions")
    panel.get_by_role("button", name="order", exact=True).click()
    expect(panel.get_by_label("price", exact=True)).to_have_value("1.10")
    expect(panel.get_by_label("amount", exact=True)).to_have_value("1152921504606846976")
    expect(panel.get_by_label("give a value for note", exact=True)).not_to_be_checked()
    expect(panel.get_by_label("tags", exact=True)).to_have_count(0)
    expect(panel.get_by_label("give tags", exact=True)).to_be_checked()
    result = run(panel, item="tea")
    expect(result.get_by_label("Result", exact=True)).to_contain_text("tea 1.10 1152921504606846976 None []")
    panel.get_by_role("button", name="order", exact=True).click()
    pages.emulator.functions.remove("order")


def test_many_functions_are_filtered_in_the_browser(pages: UiPages) -> None:
    names = [f"many_{number}" for number in range(12)]
    schemas = [(name, b'{"functionName": "%s", "inputs": [], "output": {}}' % name.encode()) for name in names]
    pages.open_runtime("of-many")
    pages.emulator.change(lambda state: state.post_schemas("of-many", schemas))
    panel = pages.page.tab("Functions")
    cards = panel.locator(".cmemu-function")
    expect(cards.filter(visible=True)).to_have_count(13)
    expect(cards.filter(has_text="many_7")).to_contain_text("on of-many")
    panel.get_by_label("Filter functions", exact=True).fill("MANY_1")
    expect(cards.filter(visible=True)).to_have_count(3)
    expect(panel).to_contain_text("3 of 13")
    panel.get_by_label("Filter functions", exact=True).fill("")
    pages.emulator.change(lambda state: state.delete_session("of-many"))
    expect(cards).to_have_count(1)


def test_a_program_is_restarted_after_a_confirmation_and_its_line_has_the_new_process(
    pages: UiPages, tmp_path: Path
) -> None:
    (tmp_path / "idle.py").write_text("import time\ntime.sleep(1000)\n")
    module = pages.emulator.launch([sys.executable, "idle.py"], "idle", cwd=str(tmp_path))
    panel = pages.page.tab("Runtimes")
    line = panel.locator("tr.cmemu-replica")
    expect(line).to_contain_text(str(module.replicas[0].pid))
    panel.get_by_role("button", name="idle", exact=True).click()
    expect(panel).to_contain_text("python idle.py")
    before = module.replicas[0].pid
    panel.get_by_role("button", name="Restart…").click()
    confirm = panel.get_by_role("alertdialog", name="Confirm")
    expect(confirm).to_contain_text("no job is running, queued jobs stay queued")
    confirm.get_by_role("button", name="Keep").press("Escape")
    expect(confirm).to_be_hidden()
    expect(panel.get_by_role("button", name="Restart…")).to_be_focused()
    panel.get_by_role("button", name="Restart…").click()
    confirm.get_by_role("button", name="Restart", exact=True).click()
    expect(pages.page.root.get_by_text("python idle.py was restarted.")).to_be_visible()
    expect(line).not_to_contain_text(str(before))
    panel.get_by_role("button", name="Stop…").click()
    confirm.get_by_role("button", name="Stop", exact=True).click()
    expect(panel.get_by_role("row").filter(has_text="idle").first).to_contain_text("stopped")
    expect(panel.get_by_role("button", name="Stop…")).to_be_hidden()
    for width in (1280, 800, 400):
        pages.page.page.set_viewport_size({"width": width, "height": 900})
        screenshot(pages.page.page, f"ui-runtimes-{width}")
        assert pages.page.root.evaluate(UNEVEN) == [], width
    pages.page.page.set_viewport_size({"width": 1280, "height": 900})


def test_a_module_that_is_scaled_to_no_replica_still_shows_how_many_it_may_have(pages: UiPages) -> None:
    pages.open_runtime("scaled")
    row = pages.page.tab("Runtimes").get_by_role("row").filter(has_text="scaled")
    expect(row).to_be_visible()
    pages.emulator.change(lambda state: state.set_scale("scaled", Scale(0, 0, 4), "a test"))
    expect(row.get_by_role("cell", name="0 of 0..4", exact=True)).to_be_visible()
    pages.emulator.change(lambda state: state.delete_session("scaled"))


def test_one_click_says_that_a_module_has_crashed_and_a_second_one_why(pages: UiPages, tmp_path: Path) -> None:
    waits = "import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.05)\n"
    (tmp_path / "crash.py").write_text(f"{waits}raise SystemExit('DB_URL is not set')\n")
    pages.page.tab("Jobs")
    tab = pages.page.root.get_by_role("tab", name="Runtimes", exact=True)
    pages.emulator.launch([sys.executable, "crash.py"], "crash", cwd=str(tmp_path), restart=False)
    (tmp_path / "go").touch()
    expect(tab).to_have_attribute("aria-description", "crash: exited(1)")
    expect(tab).to_have_attribute("data-tone", "red")
    tab.click()
    panel = pages.page.root.get_by_role("tabpanel", name="Runtimes", exact=True)
    expect(panel.get_by_role("row").filter(has_text="crash").first).to_contain_text("exited(1)")
    panel.get_by_role("button", name="crash", exact=True).click()
    expect(panel).to_contain_text("'DB_URL is not set'")
    pages.emulator.change(lambda state: state.delete_session("crash"))
    expect(tab).to_have_attribute("aria-description", "")


def test_the_events_of_a_job_unfold_and_a_paused_list_stays_as_it_is(pages: UiPages) -> None:
    job_id = pages.emulator.submit("add", {"x": 1}).id
    panel = pages.page.tab("Events")
    line = panel.get_by_role("row").filter(has_text=job_id[-6:])
    expect(line).to_contain_text(re.compile(r"add.*queued \S+ .s → running \S+ .s → ok"))
    line.get_by_role("button", name="add", exact=True).click()
    unfolded = panel.locator("tbody", has_text=job_id[-6:]).locator("tr.cmemu-event-inner")
    expect(unfolded).to_contain_text(["job_queued", "job_started", "job_succeeded"])
    panel.get_by_role("button", name="Pause").click()
    expect(panel.get_by_role("button", name="Resume")).to_be_visible()
    expect(panel).to_contain_text("0 new")
    pages.emulator.change(lambda state: state.note("seed_applied", detail="noted during the pause"))
    expect(panel).to_contain_text("1 new")
    panel.get_by_label("Kind").select_option("job_queued")
    expect(line).to_have_count(1)
    expect(panel).to_contain_text("0 new")
    panel.get_by_label("Kind").select_option("")
    expect(panel).to_contain_text("1 new")
    expect(panel.get_by_text("noted during the pause")).to_have_count(0)
    panel.get_by_role("button", name="Resume").click()
    expect(panel.get_by_text("noted during the pause")).to_be_visible()
    for width in (1280, 800, 400):
        pages.page.page.set_viewport_size({"width": width, "height": 900})
        screenshot(pages.page.page, f"ui-events-{width}")
        assert pages.page.root.evaluate(UNEVEN) == [], width
    pages.page.page.set_viewport_size({"width": 1280, "height": 900})
    line.get_by_title("Open this job").click()
    expect(pages.page.root.get_by_role("tabpanel", name="Jobs", exact=True)).to_contain_text(job_id)


def test_a_dataset_is_listed_and_opened(pages: UiPages) -> None:
    emulator, root, hostile = pages.emulator, pages.page.root, "<img src=x onerror=alert(1)> \u202e"
    tab = root.get_by_role("tab", name="Data", exact=True)
    expect(tab).to_be_hidden()
    emulator.datasets["orders"] = [{"id": number, hostile: hostile} for number in range(30)]
    emulator.datasets["orders"].append([{"id": 30, hostile: None}])
    rid = emulator.datasets["orders"].rid
    emulator.change(lambda state: state.open_transaction(rid, TransactionType.UPDATE))
    emulator.change(lambda state: state.create_branch(rid, "mine"))
    panel = pages.page.tab("Data")
    line = panel.locator(".cmemu-data tbody tr")
    expect(line).to_have_text([re.compile(r"orders31.*UPDATE")])
    expect(line.locator("td.cmemu-amber")).to_have_text("UPDATE")
    line.get_by_role("button").focus()
    pages.page.page.keyboard.press("Enter")
    card = panel.get_by_role("region", name="The open dataset or stream")
    expect(card).to_contain_text("A transaction of type UPDATE is open since")
    rows = card.locator(".cmemu-preview tbody tr")
    expect(rows).to_have_count(20)
    expect(rows.first).to_have_text(re.compile(r"^30null$"))
    expect(rows.nth(1)).to_contain_text("29<img src=x onerror=alert(1)> [U+202E]")
    expect(card).to_contain_text("The last 20 rows of 31, the newest first.")
    expect(card.get_by_role("table", name="Transactions").locator("tbody tr")).to_have_text(
        [re.compile("openUPDATE"), re.compile("committedAPPEND"), re.compile("committedSNAPSHOT")]
    )
    card.get_by_text("Schema: 2 columns").click()
    expect(card.get_by_text("STRING").last).to_be_visible()
    card.get_by_role("button", name="Copy RID").click()
    expect(root.get_by_text(re.compile("The RID (was copied|is )"))).to_be_visible()
    for width in (1280, 800, 400):
        pages.page.page.set_viewport_size({"width": width, "height": 900})
        screenshot(pages.page.page, f"ui-data-{width}")
        assert pages.page.root.evaluate(UNEVEN.replace("tbody tr", ".cmemu-lines tbody tr")) == [], width
    pages.page.page.set_viewport_size({"width": 1280, "height": 900})
    card.get_by_label("Branch", exact=True).select_option("mine")
    expect(card).to_contain_text("Nothing is committed on this branch.")
    card.get_by_label("Branch", exact=True).select_option("master")
    card.get_by_role("button", name="Abort…").click()
    confirm = card.get_by_role("alertdialog", name="Confirm")
    confirm.get_by_role("button", name="Keep").press("Escape")
    expect(card.get_by_role("button", name="Abort…")).to_be_focused()
    card.get_by_role("button", name="Abort…").click()
    confirm.get_by_role("button", name="Abort", exact=True).click()
    expect(root.get_by_text("The transaction was aborted, and its files are discarded.")).to_be_visible()
    expect(card.get_by_role("button", name="Abort…")).to_be_hidden()
    expect(line.locator("td.cmemu-amber")).to_have_count(0)
    card.get_by_label("Branch", exact=True).focus()
    pages.page.page.keyboard.press("Escape")
    expect(card).to_be_hidden()
    expect(line.get_by_role("button")).to_be_focused()
    del emulator.datasets["orders"]
    expect(panel).to_contain_text("There are no datasets and no streams.")
    pages.page.tab("Events")
    expect(tab).to_be_hidden()


def test_what_a_program_publishes_to_a_stream_is_shown_at_once(pages: UiPages) -> None:
    emulator, hostile = pages.emulator, "<img src=x onerror=alert(1)> \u202e"
    emulator.streams.create("events", {"sensor": "STRING", "celsius": "DOUBLE"}, partitions=2)
    panel = pages.page.tab("Data")
    line = panel.locator(".cmemu-data tbody tr")
    expect(line).to_have_text([re.compile(r"events0.*never")])
    line.get_by_role("button").click()
    card = panel.get_by_role("region", name="The open dataset or stream")
    rows = card.locator(".cmemu-preview tbody tr")
    expect(card).to_contain_text("There are no records.")
    path = f"/stream-proxy/api/streams/{emulator.streams['events'].rid}/branches/master/jsonRecord"
    assert pages.api.contour("POST", path, json={"sensor": hostile, "celsius": 20.5}).status_code == 200
    expect(rows).to_have_text([re.compile(r"^0: 0<img src=x onerror=alert\(1\)> \[U\+202E\]20\.5$")])
    expect(card).to_contain_text("The last 1 record of 1")
    emulator.streams["events"].reset()
    expect(rows).to_have_count(0)
    emulator.streams["events"].delete()
    expect(card).to_contain_text("This was deleted.")
