"""What is left of a dashboard when its kernel is gone, in the open notebook and a saved one."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import nbformat
import pytest
from dashboard_page import DOUBLE, open_lab
from lab_browser import screenshot
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from dashboard_page import Dashboard
    from playwright.sync_api import Locator

    Lab = Callable[..., AbstractContextManager[Dashboard]]

RESTART = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
VIEW = """() => {
    const notebook = window.jupyterapp.shell.currentWidget;
    notebook.content.activeCellIndex = notebook.content.widgets.length - 1;
    window.jupyterapp.commands.execute('notebook:create-output-view');
    window.notebookBefore = notebook.id;
}"""
CLOSE_VIEW = """() => {
    const widgets = [...window.jupyterapp.shell.widgets('main')];
    widgets.find((each) => each.node.querySelector('.jp-LinkedOutputView')).dispose();
    window.jupyterapp.shell.activateById(window.notebookBefore);
}"""
NOTEBOOK_IS_ACTIVE = "() => window.jupyterapp.shell.currentWidget?.id === window.notebookBefore"
pytestmark = [pytest.mark.browser, pytest.mark.long_lived]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with open_lab(tmp_path_factory.mktemp("lab")) as open_notebook:
        yield open_notebook


@contextlib.contextmanager
def output_in_a_view_of_its_own(dashboard: Dashboard) -> Iterator[Locator]:
    """Choose "Create New View for Output" for the last cell, and give the new view."""
    dashboard.page.evaluate(VIEW)
    view = dashboard.page.locator(".jp-LinkedOutputView")
    expect(view.locator(".cmemu-dashboard")).to_be_visible()
    yield view
    dashboard.page.evaluate(CLOSE_VIEW)
    dashboard.page.wait_for_function(NOTEBOOK_IS_ACTIVE)


@pytest.mark.parametrize("version", ["7.4", "7.3", "6.30"] if os.environ.get("CMEMU_LONG") else ["7.4"])
def test_when_the_kernel_is_gone_the_summary_is_still_read(lab: Lab, version: str) -> None:
    with lab(f"saved-{version}.ipynb", version, [DOUBLE]) as dashboard:
        job_id = dashboard.submit("double", {"x": 3})
        dashboard.tab("Jobs")
        expect(dashboard.outcome(job_id)).to_have_text("ok")
        summary = dashboard.page.locator("details").filter(has_text="Summary of the dashboard")
        expect(summary).to_be_attached()
        expect(summary).to_be_hidden()
        with output_in_a_view_of_its_own(dashboard) as view:
            expect(view.locator("tr", has_text=f"…{job_id[-6:]}")).to_be_visible()
            expect(view.get_by_text("Summary of the dashboard")).to_be_hidden()
        dashboard.run_cell("dashboard.close()")
        expect(summary).to_be_visible()
        expect(summary).to_contain_text("1 ok")
        expect(summary).not_to_have_attribute("open", "")
        dashboard.lab("docmanager:save")
        dashboard.page.evaluate(RESTART)
        saved = nbformat.read(dashboard.folder / f"saved-{version}.ipynb", as_version=4)
        assert dashboard.token not in str(saved)
        dashboard.page.reload(wait_until="domcontentloaded")
        summary.get_by_text("Summary of the dashboard").click()
        expect(summary.get_by_role("cell", name=f"…{job_id[-6:]}")).to_be_visible()
        expect(summary.get_by_role("cell", name="double").first).to_be_visible()
        summary.scroll_into_view_if_needed()
        screenshot(dashboard.page, f"dashboard-reopened-{version}")


def test_a_dashboard_whose_kernel_was_restarted_says_what_to_do(lab: Lab) -> None:
    with lab("restarted.ipynb", "7.4", []) as dashboard:
        dashboard.page.evaluate(RESTART)
        notice = dashboard.root.get_by_text("If it was restarted, run this cell again.")
        expect(notice).to_be_visible(timeout=20_000)
        expect(dashboard.page.get_by_text("Summary of the dashboard")).to_be_visible()
        screenshot(dashboard.page, "dashboard-restarted")
        for control in (
            dashboard.root.get_by_role("tab", name="Events"),
            dashboard.info().get_by_role("button", name="Show"),
        ):
            control.click()
            expect(
                dashboard.root.get_by_text("The kernel was restarted or has ended: run this cell again.")
            ).to_be_visible()
