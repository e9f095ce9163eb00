"""The dashboard as a page of its own, `/ui`, in Chromium, as several test files use it: no JupyterLab, no kernel.

A test file has one browser for all its tests, and one emulator:

    @pytest.fixture(scope="module")
    def pages() -> Iterator[UiPages]:
        with ui_pages() as opened:
            yield opened

    def test_a_job_is_shown(pages: UiPages) -> None:
        job_id = pages.submit("double", {"x": 1})
        expect(pages.page.row(job_id)).to_contain_text("queued")

The module is marked `pytest.mark.long_lived`, because its fixture lives as long as it does.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from client import Api, Runtime
from conftest import TOKEN, serving
from lab_browser import EXPECTED_MS, chromium, failures_are_seen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, Locator, Page

    from cmemu_nb import Emulator

# By now nothing is known of Chromium that would be an error here and not in the page.
HARMLESS = re.compile(r"Failed to load resource")


@dataclass
class UiPage:
    """One open page with the dashboard."""

    page: Page
    wrong: list[str] = field(default_factory=list)

    @property
    def root(self) -> Locator:
        """The dashboard."""
        return self.page.locator(".cmemu-dashboard")

    def tab(self, name: str) -> Locator:
        """Open a tab and return its panel."""
        self.root.get_by_role("tab", name=name, exact=True).click()
        return self.root.get_by_role("tabpanel", name=name, exact=True)

    def count(self, words: str) -> Locator:
        """Return the button of a count in the flow, such as '3 ok' or '1 function error'."""
        return self.root.get_by_role("button", name=words, exact=True)

    def row(self, job_id: str) -> Locator:
        """Return a job's row in the list of jobs."""
        jobs = self.root.get_by_role("tabpanel", name="Jobs", exact=True, include_hidden=True)
        return jobs.locator("tr", has=self.page.get_by_text(f"…{job_id[-6:]}"))


@dataclass
class UiPages:
    """An emulator and a browser with one page of it, `page`; `open()` opens more."""

    emulator: Emulator
    context: BrowserContext
    page: UiPage

    @property
    def api(self) -> Api:
        """The emulator's routes."""
        return Api(self.emulator.url, self.emulator.token)

    def open_runtime(self, runtime_id: str = "my-runtime", rid: str | None = None) -> Runtime:
        """Open or reset a runtime's session, as a module would."""
        return self.api.open(runtime_id, rid)

    def submit(self, query_type: str, query: Any = None, **fields: Any) -> str:
        """Submit a job from outside, and return its id."""
        return self.api.submit(query_type, query, **fields)

    def new_tab(self, **options: Any) -> Page:
        """Return a new, empty page of the browser, which remembers nothing of the others."""
        assert self.context.browser is not None
        page = self.context.browser.new_page(**options)
        page.set_default_timeout(EXPECTED_MS)
        return page

    @contextlib.contextmanager
    def open(self, **options: Any) -> Iterator[UiPage]:
        """Open a further page, with options of Playwright's `new_page`, such as `color_scheme` and `viewport`."""
        page = self.new_tab(**options)
        try:
            with _shown(page, self.emulator) as shown:
                yield shown
        finally:
            page.close()


@contextlib.contextmanager
def ui_pages(**settings: Any) -> Iterator[UiPages]:
    """Run an emulator on a thread of its own, and open its page in Chromium."""
    with serving(**settings) as emulator, chromium() as context:
        page = context.new_page()
        page.set_default_timeout(EXPECTED_MS)
        with _shown(page, emulator) as shown:
            yield UiPages(emulator, context, shown)
        context.close()  # ends the page's connection, before the emulator is asked what it still holds


@contextlib.contextmanager
def _shown(page: Page, emulator: Emulator) -> Iterator[UiPage]:
    """Open the page; an error that it raises, or that its policy reports, fails the test at its end."""
    shown = UiPage(page)
    page.on("pageerror", lambda error: shown.wrong.append(str(error)))
    page.on("console", lambda said: _note(shown, said.type, said.text))
    with failures_are_seen(page):
        page.goto(f"{emulator.ui_url}#token={TOKEN}")
        shown.root.wait_for()
        yield shown
        page.evaluate("0")  # what the page has raised is heard of only in a call
    assert shown.wrong == [], shown.wrong


def _note(shown: UiPage, kind: str, text: str) -> None:
    if kind == "error" and not HARMLESS.match(text):
        shown.wrong.append(text)
