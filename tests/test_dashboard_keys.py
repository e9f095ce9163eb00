"""The dashboard in JupyterLab and in Notebook 7: keys that are typed in it are for it, and command mode gets none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from dashboard_page import DOUBLE, function_button, open_dashboard
from lab_browser import cmemu_lab, notebook_7, screenshot
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dashboard_page import Dashboard
    from playwright.sync_api import Locator

FUNCTIONS = """
import datetime
from dataclasses import dataclass

@dataclass
class Event:
    a_bool: bool
    a_date: datetime.date
    a_datetime: datetime.datetime
    an_int: int
    a_str: str
    a_list: list[int]

@emu.function
def every_kind(context, event: Event) -> int:
    print("it ran")
    return 1
"""
QUERY = {
    "a_bool": True,
    "a_date": "2026-01-02",
    "a_datetime": "2026-01-02T03:04:05Z",
    "an_int": 1,
    "a_str": "",
    "a_list": [],
}
# What command mode would do with them: change the cell's type, delete, cut, copy, paste, insert, merge, undo, collapse,
# move on, run, select all, interrupt and restart the kernel.
LETTERS = ("r", "m", "y", "d", "d", "x", "b", "a", "c", "v", "z", "o", "j", "k", "i", "i", "0", "0")
CHORDS = ("Shift+M", "Shift+Z", "Shift+A", "Shift+L", "Control+z", "Control+a", "Control+Backspace", "Control+Shift+M")
ARROWS = ("ArrowDown", "ArrowUp", "ArrowRight", "ArrowLeft", "Shift+ArrowDown", "Control+Shift+ArrowUp", "Escape")
RUNS = ("Enter", "Shift+Enter", "Control+Enter", "Alt+Enter")
FILTERS = ("SELECT select-one", "INPUT search")
KINDS = {"BUTTON button", "BUTTON submit", "INPUT checkbox", "INPUT text", "INPUT date", "INPUT datetime-local"}
KINDS |= {"TEXTAREA textarea", "SUMMARY", "PRE", *FILTERS}
NOTEBOOK = """() => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    const said = (cell) => [cell.id, cell.cell_type, cell.source, cell.outputs?.length];
    const cells = notebook.model.toJSON().cells.map(said);
    return {
        cells,
        active: notebook.activeCellIndex,
        selected: notebook.widgets.filter((cell) => notebook.isSelected(cell)).length,
        mode: notebook.mode,
        lineNumbers: document.querySelectorAll('.jp-Notebook .cm-lineNumbers').length,
        dialogs: document.querySelectorAll('.jp-Dialog').length,
        kernel: window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.id,
    };
}"""
VISIBLE_KINDS = """(all) => [...all.entries()].filter(([, each]) => each.checkVisibility())
    .map(([position, each]) => [position, [[each.tagName, each.type].join(' ').trim(), each.className]])"""
pytestmark = [pytest.mark.browser, pytest.mark.long_lived]


@pytest.fixture(scope="module", params=["JupyterLab", "Notebook 7"])
def dashboard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    front_end = notebook_7 if request.param == "Notebook 7" else cmemu_lab
    with open_dashboard("7.4", tmp_path_factory.mktemp("keys"), [FUNCTIONS, DOUBLE], front_end) as opened:
        job_id = opened.submit("every_kind", QUERY)
        opened.tab("Jobs")
        expect(opened.outcome(job_id)).to_have_text("ok")
        yield opened


def open_each(dashboard: Dashboard, name: str) -> dict[str, tuple[str, Locator]]:
    """Open what Escape closes in a tab, or in the flow, and return one of each kind of control there."""
    dashboard.info()
    if name == "Emulator":
        return one_of_each_kind(dashboard.root.get_by_role("region", name=name))
    panel = dashboard.tab(name)
    if name == "Functions" and panel.get_by_role("region", name="Try it").is_hidden():
        function_button(panel, "every_kind").click()
        panel.get_by_role("button", name="add element").click()
    if name == "Jobs" and panel.get_by_role("region", name="The open job").is_hidden():
        panel.locator("tbody tr").first.get_by_role("button").click()
        expect(panel.get_by_role("region", name="The open job")).to_be_visible()
    return one_of_each_kind(panel)


def state(dashboard: Dashboard) -> Any:
    return dashboard.page.evaluate(NOTEBOOK)


def type_keys(dashboard: Dashboard, *keys: Sequence[str]) -> None:
    for each in keys:
        for key in each:
            dashboard.page.keyboard.press(key)


def one_of_each_kind(panel: Locator) -> dict[str, tuple[str, Locator]]:
    """Return one of each kind of control; those that filter come last, because they remove rows."""
    controls = panel.locator("button, input, select, textarea, summary, [tabindex]")
    found: dict[str, tuple[str, Locator]] = {}
    for position, (kind, style) in controls.evaluate_all(VISIBLE_KINDS):
        found.setdefault(f"{kind} {style}", (kind, controls.nth(position)))
    return dict(sorted(found.items(), key=lambda item: item[1][0] in FILTERS))


def test_letters_chords_and_arrows_in_every_kind_of_control_leave_the_notebook_as_it_is(dashboard: Dashboard) -> None:
    dashboard.tab("Jobs")
    before = state(dashboard)
    kinds: set[str] = set()
    for name in ("Emulator", "Events", "Runtimes", "Functions", "Jobs"):
        typed: set[str] = set()
        while left := {each: found for each, found in open_each(dashboard, name).items() if each not in typed}:
            each, (kind, control) = next(iter(left.items()))
            typed.add(each)
            kinds.add(kind)
            control.focus()
            type_keys(dashboard, LETTERS, CHORDS, ARROWS)
            assert state(dashboard) | {"active": before["active"]} == before, (name, kind)
            if kind in FILTERS:
                control.fill("") if kind == "INPUT search" else control.select_option("")
    assert kinds >= KINDS
    dashboard.root.get_by_role("tab", name="Jobs").focus()
    type_keys(dashboard, LETTERS, CHORDS, ARROWS)
    assert state(dashboard)["cells"] == before["cells"]


def test_enter_presses_a_button_and_runs_no_cell(dashboard: Dashboard) -> None:
    before = state(dashboard)
    show = dashboard.info().get_by_role("button", name="Show", exact=True)
    show.focus()
    dashboard.page.keyboard.press("Enter")
    expect(dashboard.root.locator(".cmemu-fact-token")).to_have_text(dashboard.token)
    dashboard.page.keyboard.press("Space")
    expect(dashboard.root.locator(".cmemu-fact-token")).not_to_have_text(dashboard.token)
    for control in (dashboard.root.get_by_role("tab", name="Jobs"), dashboard.tab("Jobs").get_by_label("Outcome")):
        control.focus()
        type_keys(dashboard, RUNS)
    assert state(dashboard) | {"active": before["active"]} == before


def test_a_letter_in_a_filter_chooses_and_the_cell_keeps_its_type_and_output(dashboard: Dashboard) -> None:
    before = state(dashboard)
    outcome = dashboard.tab("Jobs").get_by_label("Outcome")
    outcome.focus()
    dashboard.page.keyboard.press("r")
    expect(outcome).to_have_value("running")
    outcome.select_option("")
    assert state(dashboard)["cells"] == before["cells"]
    assert before["cells"][-1][1] == "code"
    assert before["cells"][-1][3] > 0


def test_a_click_beside_the_controls_and_then_keys_leave_the_cell(dashboard: Dashboard) -> None:
    before = state(dashboard)
    panel = dashboard.tab("Jobs")
    # Escape, which is one of the keys, closes what is open.
    beside = (dashboard.info().locator("dt").first, panel.locator("td").first, panel.locator("th").first)
    for place in beside:
        place.click()
        type_keys(dashboard, LETTERS, CHORDS, ARROWS, RUNS)
        assert state(dashboard)["cells"] == before["cells"]


def test_what_is_the_pages_still_works(dashboard: Dashboard) -> None:
    page, panel = dashboard.page, dashboard.tab("Jobs")
    panel.get_by_label("Outcome").focus()
    page.keyboard.press("Tab")
    expect(panel.get_by_label("Function")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(panel.get_by_label("Outcome")).to_be_focused()
    dashboard.lab("notebook:insert-cell-below")
    page.wait_for_function("() => window.jupyterapp.shell.currentWidget.context.model.dirty")
    panel.get_by_label("Outcome").focus()
    page.keyboard.press("Control+s")
    page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    head = panel.locator("th").first
    head.dblclick()
    page.keyboard.press("Control+c")
    assert page.evaluate("() => navigator.clipboard.readText()").strip() in head.inner_text()


def test_a_job_arrives_and_a_function_is_tried_by_its_form(dashboard: Dashboard) -> None:
    expect(dashboard.page.locator("details").filter(has_text="Summary of the dashboard")).to_be_hidden()
    panel = dashboard.tab("Functions")
    function_button(panel, "double").click()
    form = panel.get_by_role("region", name="Try it")
    form.get_by_label("Query", exact=True).fill('{"x": 21}')
    form.get_by_role("button", name="Run", exact=True).click()
    expect(panel.get_by_label("Result", exact=True)).to_have_text("42")
    dashboard.tab("Jobs")
    expect(dashboard.outcome(dashboard.submit("double", {"x": 8}))).to_have_text("ok")
    screenshot(dashboard.page, "dashboard-after-keys")


def test_the_flow_the_search_an_open_job_and_every_tab_work(dashboard: Dashboard) -> None:
    good, bad = dashboard.submit("double", {"x": 493}), dashboard.submit("double", {"y": 1})
    jobs = dashboard.tab("Jobs")
    expect(dashboard.outcome(bad)).to_have_text("error")
    expect(dashboard.outcome(good)).to_have_text("ok")
    search = jobs.get_by_role("searchbox")
    search.fill("fn:double x=493")
    expect(dashboard.row(bad)).to_have_count(0)
    expect(dashboard.row(good)).to_be_visible()
    search.fill("")
    errors = dashboard.root.get_by_role("button", name=re.compile(r"^\d+ function errors?$"))
    errors.click()
    expect(dashboard.row(good)).to_have_count(0)
    dashboard.outcome(bad).click()
    expect(jobs.get_by_role("region", name="The open job")).to_contain_text("KeyError")
    dashboard.page.keyboard.press("Escape")
    errors.click()
    expect(dashboard.row(good)).to_be_visible()
    expect(dashboard.tab("Timeline").get_by_role("application")).to_have_attribute(
        "aria-label", re.compile("1 function")
    )
    expect(dashboard.tab("Runtimes").locator("tr", has_text="notebook").first).to_contain_text("connected")
    expect(dashboard.tab("Events").locator("tr", has_text="double").first).to_contain_text("queued")
    dashboard.tab("Jobs")


def test_the_tabs_the_search_and_an_open_job_do_not_wait_for_a_running_cell(dashboard: Dashboard) -> None:
    end = dashboard.folder / "the cell ends"
    dashboard.run_cell(f"import time\nwhile not pathlib.Path({str(end)!r}).exists(): time.sleep(0.1)")
    expect(dashboard.page.get_by_text("[*]:")).to_be_visible()
    try:
        job_id = dashboard.submit("double", {"x": 50505})
        expect(dashboard.tab("Events").get_by_text(job_id[-6:]).first).to_be_visible()
        expect(function_button(dashboard.tab("Functions"), "double")).to_be_visible()
        jobs = dashboard.tab("Jobs")
        jobs.get_by_role("searchbox").fill("fn:double x=50505")
        expect(jobs.locator("tbody tr")).to_have_count(1)
        dashboard.row(job_id).get_by_role("button").click()
        card = jobs.get_by_role("region", name="The open job")
        expect(card.get_by_label("Result", exact=True)).to_have_text("101010")
        card.get_by_role("button", name="Run again").click()
        expect(jobs.locator("tbody tr")).to_have_count(2)
        expect(dashboard.page.get_by_text("[*]:")).to_be_visible()
    finally:
        end.touch()
