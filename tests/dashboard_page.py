"""A dashboard in JupyterLab in Chromium, as several test files use it, with clients and executors outside."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nbformat
from environments import ROOT, kernel_python
from lab_browser import (
    WAS_RELOADED,
    chromium,
    cmemu_lab,
    errors_in,
    failures_are_seen,
    install_kernel,
    open_instead,
    opened,
    run_all_cells,
    write_notebook,
)
from playwright.sync_api import ViewportSize, expect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from playwright.sync_api import Error, Locator, Page

    FrontEnd = Callable[[Path, Path, str], AbstractContextManager[str]]

CONTOUR = "/contour-backend-multiplexer/api/module-group-multiplexer"
APP = "ri.foundry.main.deployed-app.notebook"
START = ("%load_ext cmemu_nb", "%cmemu start --port 0")
TELL = "import json, pathlib\npathlib.Path('where.json').write_text(json.dumps([emu.url, emu.token]))"
SHOW = "dashboard = emu.dashboard()\ndashboard"
TUTORIAL = ROOT / "notebooks" / "04-dashboard.ipynb"
DOUBLE = """
@emu.function
def double(context, event):
    return 2 * event["x"]
"""
# In Lab with its file browser the dashboard has 300 px less, and shows the list beside the open job.
WIDE: ViewportSize = {"width": 1440, "height": 900}
IN_THE_KERNEL = """async (code) => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    // A kernel aborts what is sent to it in the moment after a cell has failed or was interrupted.
    for (;;) {
        const reply = await kernel.requestExecute({ code: 'pass', user_expressions: { value: code } }).done;
        if (reply.content.status !== 'aborted') return reply.content.user_expressions.value;
    }
}"""


NEW_CELL = """async (code) => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = notebook.widgets.length - 1;
    await window.jupyterapp.commands.execute('notebook:insert-cell-below');
    notebook.activeCell.model.sharedModel.setSource(code);
    window.jupyterapp.commands.execute('notebook:run-cell');
}"""


@dataclass
class Dashboard:
    """An open notebook with a dashboard, and the emulator's address for clients outside."""

    page: Page
    root: Locator
    folder: Path
    url: str
    token: str

    def submit(self, name: str, query: Any = None) -> str:
        """Submit a job from outside, and return its id."""
        body = {"deployedAppRid": APP, "queryType": name, "query": query or {}}
        answer: str = self.send("POST", f"{CONTOUR}/deployed-apps/jobs", body)["id"]
        return answer

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request from outside."""
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode(), method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"null")

    def tab(self, name: str) -> Locator:
        """Open a tab and return its panel."""
        self.root.get_by_role("tab", name=name, exact=True).click()
        return self.root.get_by_role("tabpanel", name=name, exact=True)

    def count(self, words: str) -> Locator:
        """Return the button of a count in the flow, such as '3 ok' or '1 function error'."""
        return self.root.get_by_role("button", name=words, exact=True)

    def info(self) -> Locator:
        """Open the panel with the addresses and the token, and return it."""
        opener = self.root.get_by_role("button", name="Addresses and token")
        if opener.get_attribute("aria-expanded") == "false":
            opener.click()
        return self.root.get_by_role("region", name="Addresses and token")

    def row(self, job_id: str) -> Locator:
        """Return a job's row."""
        jobs = self.root.get_by_role("tabpanel", name="Jobs", exact=True, include_hidden=True)
        return jobs.locator("tr", has=self.page.get_by_text(f"…{job_id[-6:]}"))

    def outcome(self, job_id: str) -> Locator:
        """Return the word in a job's row that says how it ended, or that it is queued or running."""
        return self.row(job_id).locator("td").first

    def run(self, code: str) -> str:
        """Evaluate an expression in the kernel, as a cell would, and return its value's repr."""
        found: Any = self.page.evaluate(IN_THE_KERNEL, code)
        assert found["status"] == "ok", found
        text: str = found["data"]["text/plain"]
        return text

    def run_cell(self, code: str) -> None:
        """Run code in a new cell at the end of the notebook, without waiting for its end."""
        self.page.evaluate(NEW_CELL, code)

    def lab(self, command: str, arguments: dict[str, Any] | None = None) -> None:
        """Run one of JupyterLab's commands."""
        self.page.evaluate(
            "([name, args]) => window.jupyterapp.commands.execute(name, args)", [command, arguments or {}]
        )


def function_button(panel: Locator, name: str) -> Locator:
    """Return the button that opens the card of a function."""
    return panel.get_by_role("button", name=name, exact=True)


@contextlib.contextmanager
def open_dashboard(
    version: str, folder: Path, cells: Sequence[str], front_end: FrontEnd = cmemu_lab
) -> Iterator[Dashboard]:
    """Open a notebook, in Lab if nothing else is said, with a kernel of some version; run it and give its dashboard."""
    _write(folder, "dash.ipynb", version, cells)
    with _in_chromium(front_end(folder / "home", folder, "dash.ipynb"), folder) as dashboard:
        yield dashboard


@contextlib.contextmanager
def open_lab(folder: Path) -> Iterator[Callable[[str, str, Sequence[str]], AbstractContextManager[Dashboard]]]:
    """Open one page of Lab for several dashboards, one after the other.

    Gives what opens a notebook of some name with a kernel of some version, runs it and gives its dashboard.
    """
    write_notebook(folder / "first.ipynb", ["pass"])
    lab = cmemu_lab(folder / "home", folder, "first.ipynb")
    with lab as url, chromium() as context, opened(context, url) as page:

        @contextlib.contextmanager
        def open_notebook(name: str, version: str, cells: Sequence[str]) -> Iterator[Dashboard]:
            _write(folder, name, version, cells)
            with failures_are_seen(page):
                open_instead(page, name)
                with _run(page, folder) as dashboard:
                    yield dashboard

        yield open_notebook


@contextlib.contextmanager
def open_tutorial(folder: Path) -> Iterator[Dashboard]:
    """Open the tutorial of the dashboard in Lab, run it and give its dashboard."""
    notebook = nbformat.read(TUTORIAL, 4)
    notebook.cells.append(nbformat.v4.new_code_cell(TELL))
    nbformat.write(notebook, folder / "dash.ipynb")
    with _in_chromium(cmemu_lab(folder / "home", folder, "dash.ipynb"), folder) as dashboard:
        yield dashboard


def _write(folder: Path, name: str, version: str, cells: Sequence[str]) -> None:
    """Write a notebook with a dashboard and these cells before it, for a kernel of some version."""
    install_kernel(folder / "home", f"kernel-{version}", kernel_python(version))
    write_notebook(folder / name, (*START, *cells, TELL, SHOW), f"kernel-{version}")


@contextlib.contextmanager
def _in_chromium(serving: AbstractContextManager[str], folder: Path) -> Iterator[Dashboard]:
    with serving as url, chromium() as context, opened(context, url) as page, _run(page, folder) as dashboard:
        yield dashboard


@contextlib.contextmanager
def _run(page: Page, folder: Path) -> Iterator[Dashboard]:
    """Run the notebook that a page shows; an error that the page raises fails the test at its end."""
    wrong: list[str] = []
    page.set_viewport_size(WIDE)

    def note(error: Error) -> None:
        wrong.append(str(error))

    page.on("pageerror", note)
    assert errors_in(run_all_cells(page)) == []
    if page.evaluate(WAS_RELOADED):
        wrong.clear()  # those of Lab, which reload and restart have cut off from its kernel
    address, token = json.loads((folder / "where.json").read_text())
    root = page.locator(".cmemu-dashboard").first
    root.wait_for()
    expect(root.locator(".cmemu-fact-url")).to_have_text(address)
    page.set_default_timeout(20_000)
    yield Dashboard(page, root, folder, address, token)
    page.evaluate("0")  # what the page has raised is heard of only in a call
    page.remove_listener("pageerror", note)
    assert wrong == [], wrong
