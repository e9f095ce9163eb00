"""A marimo notebook, opened in headless Chromium: the emulator, its card and its dashboard work there."""

from __future__ import annotations

import contextlib
import socket
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest
from client import free_port
from environments import program
from lab_browser import CHROMIUM, STARTUP_SECONDS, screenshot, server_of_notebooks
from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Locator, Page

CELLS = (
    "from cmemu_nb import Emulator\nemu = Emulator(port=0, tls_port=0).start()\nemu",
    '@emu.function\ndef double(context, event):\n    return 2 * event["x"]',
    "emu.dashboard()",
    'emu.call(double, {"x": 21})',
)


@contextlib.contextmanager
def marimo(folder: Path, cells: tuple[str, ...]) -> Iterator[str]:
    """Run `marimo edit` on a notebook with these cells, and give its URL."""
    text = "".join(f"@app.cell\ndef _():\n{textwrap.indent(each, '    ')}\n    return\n\n\n" for each in cells)
    (folder / "notebook.py").write_text(f"import marimo\n\napp = marimo.App()\n\n\n{text}")
    port = free_port()
    options = ["--headless", "--no-token", "--skip-update-check", "--port", str(port)]
    command = [sys.executable, "-m", "marimo", "-y", "edit", "notebook.py", *options]
    with server_of_notebooks(command, folder, folder, folder / "marimo.log"):
        wait_until_it_listens(port)
        yield f"http://127.0.0.1:{port}"


def wait_until_it_listens(port: int) -> None:
    end = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise AssertionError(f"marimo did not listen in {STARTUP_SECONDS:g} s")


@contextlib.contextmanager
def opened(url: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=CHROMIUM)
        page = browser.new_page(viewport={"width": 1280, "height": 1800})
        page.set_default_timeout(STARTUP_SECONDS * 1000)
        expect.set_options(timeout=STARTUP_SECONDS * 1000)
        try:
            page.goto(url)
            page.get_by_text("emu.dashboard()", exact=True).wait_for()
            page.keyboard.press("Control+Shift+KeyR")  # all cells
            yield page
        except BaseException:
            screenshot(page, "failed")
            raise
        finally:
            browser.close()


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_the_dashboard_works_in_marimo(tmp_path: Path) -> None:
    """It is live, its buttons and forms work, and running its cell again gives a new one."""
    wrong: list[str] = []
    with marimo(tmp_path, CELLS) as url, opened(url) as page:
        page.on("pageerror", lambda error: wrong.append(str(error)))
        expect(page.get_by_text("marimo: there are no magics")).to_be_visible()
        root = page.locator(".cmemu-dashboard")
        expect(root.get_by_role("button", name="1 ok", exact=True)).to_be_visible()
        try_double(root, "20", "40")
        expect(root.get_by_role("button", name="2 ok", exact=True)).to_be_visible()
        screenshot(page, "marimo")
        page.get_by_text("emu.dashboard()", exact=True).click()
        page.keyboard.press("Control+Enter")
        # The old dashboard shows Functions, and stays until the cell has run: only the new one shows Jobs.
        expect(root.get_by_role("tab", name="Jobs")).to_have_attribute("aria-selected", "true")
        expect(root.get_by_role("button", name="2 ok", exact=True)).to_be_visible()
        try_double(root, "21", "42")
        expect(root).to_have_count(1)
    assert wrong == []


def try_double(root: Locator, x: str, result: str) -> None:
    root.get_by_role("tab", name="Functions").click()
    panel = root.get_by_role("tabpanel", name="Functions", exact=True)
    panel.get_by_role("button", name="double", exact=True).click()
    form = root.get_by_role("region", name="Try it")
    form.get_by_role("textbox").last.fill(f'{{"x": {x}}}')
    form.get_by_role("button", name="Run", exact=True).click()
    expect(root.get_by_role("region", name="The result").get_by_label("Result", exact=True)).to_have_text(result)
