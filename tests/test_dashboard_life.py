"""How a dashboard looks in each theme and width, and how it lives: two of them, busy kernels, faults, closed ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from client import RUNTIMES
from dashboard_page import DOUBLE, WIDE, function_button, open_dashboard
from kernels.driver import wait_until
from lab_browser import screenshot
from playwright.sync_api import expect
from readable import cut, pale, unnamed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dashboard_page import Dashboard

TABS = ("Jobs", "Functions", "Runtimes", "Timeline", "Events")
pytestmark = [pytest.mark.browser, pytest.mark.long_lived]


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    with open_dashboard("7.4", tmp_path_factory.mktemp("lab"), [DOUBLE]) as opened:
        yield opened


def watched(dashboard: Dashboard) -> bool:
    return dashboard.run("emu.board.watched") == "True"


@pytest.mark.parametrize(("theme", "width"), [("JupyterLab Light", 1280), ("JupyterLab Dark", 800)])
def test_nothing_is_cut_or_hard_to_read(dashboard: Dashboard, theme: str, width: int) -> None:
    for x in (1, 2, "no number", None):
        dashboard.submit("double", {"x": x})
    job_id = dashboard.submit("double", {"x": 3})
    dashboard.run("emu.open_runtime('a-lonely-runtime', 'ri.foundry.main.deployed-app.lonely', 'feature/x').id")
    dashboard.page.set_viewport_size({"width": width, "height": 1100})
    dashboard.lab("apputils:change-theme", {"theme": theme})
    try:
        for name in TABS:
            panel = dashboard.tab(name)
            panel.scroll_into_view_if_needed()
            if name == "Jobs":
                dashboard.row(job_id).get_by_role("button").click()
                expect(panel.get_by_label("Result", exact=True)).to_have_text("6")
            if name == "Functions":
                function_button(panel, "double").click()
            if name == "Timeline":
                expect(panel.locator(".cmemu-timeline-count")).to_have_text(re.compile(r"^\d+ jobs$"))
            screenshot(dashboard.page, f"dashboard-{theme.split()[1].lower()}-{width}-{name.lower()}")
            assert cut(dashboard.root) == [], name
            assert pale(dashboard.root) == [], name
            assert unnamed(dashboard.root) == [], name
    finally:
        function_button(dashboard.tab("Functions"), "double").click()
        card = dashboard.tab("Jobs").get_by_role("region", name="The open job")
        card.get_by_role("button", name=re.compile("Close|Back")).click()
        dashboard.page.set_viewport_size(WIDE)
        dashboard.lab("apputils:change-theme", {"theme": "JupyterLab Light"})


def test_two_dashboards_agree_and_a_closed_one_works_no_more(dashboard: Dashboard) -> None:
    dashboard.run_cell("other = emu.dashboard()\nother")
    second = dashboard.page.locator(".cmemu-dashboard").nth(1)
    expect(second.locator(".cmemu-fact-url")).to_have_text(dashboard.url)
    panel = dashboard.tab("Jobs")
    second.get_by_role("tab", name="Runtimes").click()
    expect(second.get_by_role("tabpanel", name="Runtimes").get_by_text("connected")).to_be_visible()
    job_id = dashboard.submit("double", {"x": 21})
    expect(dashboard.outcome(job_id)).to_have_text("ok")
    second.get_by_role("tab", name="Jobs").click()
    newest = second.get_by_role("tabpanel", name="Jobs").locator("tbody tr").first
    expect(newest).to_contain_text(job_id[-6:])
    assert newest.inner_text() == panel.locator("tbody tr").first.inner_text()
    expect(second.locator(".cmemu-flow-ends")).to_have_text(
        dashboard.root.locator(".cmemu-flow-ends").text_content() or ""
    )
    dashboard.run_cell("other.close()\nother")
    expect(dashboard.page.locator(".cmemu-dashboard")).to_have_count(1)
    expect(dashboard.page.get_by_text("This dashboard is closed. emu.dashboard() opens another.")).to_be_visible()
    job_id = dashboard.submit("double", {"x": 22})
    expect(dashboard.outcome(job_id)).to_have_text("ok")
    assert watched(dashboard)


def test_two_views_of_one_dashboard_show_the_same_even_after_wishes_at_the_same_time(dashboard: Dashboard) -> None:
    dashboard.run_cell("dashboard")
    second = dashboard.page.locator(".cmemu-dashboard").nth(1)
    expect(second.locator(".cmemu-fact-url")).to_have_text(dashboard.url)
    dashboard.run_cell("import time\nwhile not pathlib.Path('both').exists(): time.sleep(0.1)")
    expect(dashboard.page.get_by_text("[*]:")).to_be_visible()
    dashboard.root.get_by_role("tab", name="Functions").click()
    second.get_by_role("tab", name="Events").click()
    dashboard.folder.joinpath("both").touch()
    for view in (dashboard.root, second):
        expect(view.get_by_role("tab", name="Events")).to_have_attribute("aria-selected", "true")
        expect(view.get_by_role("tabpanel", name="Events")).to_be_visible()
    dashboard.page.evaluate(
        """() => {
            const notebook = window.jupyterapp.shell.currentWidget.content;
            const found = notebook.widgets.filter((cell) => cell.model.sharedModel.getSource() === 'dashboard');
            found[0].outputArea.model.clear();
        }"""
    )
    expect(dashboard.page.locator(".cmemu-dashboard")).to_have_count(1)
    assert watched(dashboard)


def test_a_filter_works_while_the_pointer_is_on_the_table_and_newer_jobs_wait_for_a_moment_only(
    dashboard: Dashboard,
) -> None:
    job_id = dashboard.submit("double", {"x": 70})
    panel = dashboard.tab("Jobs")
    dashboard.row(job_id).hover()
    newer = dashboard.submit("double", {"x": 71})
    expect(panel.get_by_text("1 newer waits while the pointer moves over the table.")).to_be_visible()
    expect(dashboard.row(newer)).to_have_count(1)
    dashboard.row(job_id).hover()
    newer = dashboard.submit("double", {"x": 72})
    panel.get_by_label("Search").focus()
    dashboard.page.keyboard.type(newer)
    expect(dashboard.row(newer)).to_have_count(1)
    expect(panel.locator("tbody tr")).to_have_count(1)
    panel.get_by_role("button", name="Clear").click()
    expect(dashboard.row(job_id)).to_have_count(1)


def test_half_a_letter_in_a_search_stops_nothing(dashboard: Dashboard) -> None:
    panel = dashboard.tab("Jobs")
    panel.get_by_label("Search").evaluate(
        "(field) => { field.value = 'a\\ud83d'; field.dispatchEvent(new Event('input')); }"
    )
    expect(panel.get_by_text("No job matches.")).to_be_visible()
    panel.get_by_role("button", name="Clear").click()
    expect(panel.get_by_text("No job matches.")).to_be_hidden()


def test_a_job_that_went_with_a_reset_says_so_and_the_next_has_its_own_heading(dashboard: Dashboard) -> None:
    dashboard.run("emu.open_runtime('g') and None")
    old = dashboard.run("emu.runtime('g').enqueue('foo').id").strip("'")
    dashboard.tab("Jobs")
    card = dashboard.root.get_by_role("region", name="The open job")
    dashboard.row(old).get_by_role("button").click()
    expect(card.locator("h4")).to_have_text("foo ●queued")
    dashboard.run("emu.runtime('g').reset() and None")
    expect(card).to_contain_text("This job was removed")
    card.hover()  # no new row comes under the pointer
    new = dashboard.run("emu.runtime('g').enqueue('foo').id").strip("'")
    dashboard.row(new).get_by_role("button").click()
    expect(card.locator("h4")).to_have_text("foo ●queued")
    card.get_by_role("button", name="Close").click()


def test_a_cell_that_waits_says_what_the_dashboard_says_and_nothing_more_when_it_has_ended(
    dashboard: Dashboard,
) -> None:
    job_id = dashboard.run("emu.open_runtime('nobody').enqueue('foo').id").strip("'")
    panel = dashboard.tab("Jobs")
    dashboard.row(job_id).get_by_role("button").click()
    card = panel.get_by_role("region", name="The open job")
    why = card.locator(".cmemu-waits")
    expect(why).to_contain_text(
        "'foo' is queued, and nothing has polled 'nobody' for jobs yet. emu.launch('python app.py'"
    )
    dashboard.run_cell(f"emu.job('{job_id}').result()")
    line = dashboard.page.locator(".jp-OutputArea-output").get_by_text("No result for")
    expect(line).to_have_text(re.compile(f"^No result for [2-9] s. {re.escape(why.inner_text())}$"))
    screenshot(dashboard.page, "cell-that-waits")
    dashboard.send("POST", f"{RUNTIMES}/nobody/jobs/{job_id}/fail", {"reason": "nobody wants it"})
    expect(dashboard.page.get_by_text("JobFailed: nobody wants it")).to_be_visible()
    expect(line).to_have_count(0)
    expect(why).to_be_hidden()
    card.get_by_role("button", name="Close").click()


def test_a_fault_in_the_dashboard_is_shown_and_the_dashboard_goes_on(dashboard: Dashboard) -> None:
    broken = (
        "exec('import cmemu_nb.dashboard.actions as actions; kept = dict(actions.ACTIONS); actions.ACTIONS.clear()')"
    )
    dashboard.run(broken)
    dashboard.info().get_by_role("button", name="Show", exact=True).click()
    alert = dashboard.root.get_by_role("alert").filter(has_text="The dashboard has a fault")
    expect(alert).to_contain_text("KeyError: 'token'")
    alert.get_by_text("Details").click()
    expect(alert).to_contain_text("Traceback")
    screenshot(dashboard.page, "dashboard-fault")
    alert.get_by_role("button", name="Dismiss").click()
    expect(alert).to_be_hidden()
    dashboard.root.get_by_role("button", name="Show", exact=True).click()
    expect(alert).to_contain_text("KeyError: 'token'")
    alert.get_by_role("button", name="Dismiss").click()
    dashboard.run("actions.ACTIONS.update(kept)")
    dashboard.root.get_by_role("button", name="Show", exact=True).click()
    expect(dashboard.root.locator(".cmemu-fact-token")).to_have_text(dashboard.token)
    dashboard.root.get_by_role("button", name="Hide", exact=True).click()
    job_id = dashboard.submit("double", {"x": 60})
    dashboard.tab("Jobs")
    expect(dashboard.outcome(job_id)).to_have_text("ok")


def test_a_stopped_emulator_says_how_to_start_and_a_started_one_is_shown_again(dashboard: Dashboard) -> None:
    dashboard.run("emu.stop()")
    how = "The emulator is not running. %cmemu start or emu.start() starts it again."
    expect(dashboard.root.get_by_text(how)).to_be_visible()
    dashboard.run("emu.start() and None")
    expect(dashboard.root.locator(".cmemu-fact-url")).to_have_text(re.compile(r"http://127\.0\.0\.1:\d+"))
    expect(dashboard.root.get_by_text("The emulator is not running.")).to_have_count(0)


def test_clearing_its_output_ends_its_work_and_showing_it_again_begins_anew(dashboard: Dashboard) -> None:
    assert watched(dashboard)
    dashboard.lab("notebook:clear-all-cell-outputs")
    expect(dashboard.page.locator(".cmemu-dashboard")).to_have_count(0)
    wait_until(lambda: not watched(dashboard), "the dashboard's rest")
    dashboard.run_cell("dashboard")
    dashboard.page.locator(".cmemu-dashboard").wait_for()
    wait_until(lambda: watched(dashboard), "the dashboard's work")
