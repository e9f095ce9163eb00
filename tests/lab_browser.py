"""JupyterLab as its users see it: `cmemu lab` in a home of its own, opened in headless Chromium."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin

import nbformat
from client import free_port
from environments import CACHE, clean_environ, program
from playwright.sync_api import TimeoutError as NotInTime
from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from playwright.sync_api import BrowserContext, Page

CHROMIUM = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CMEMU = str(Path(sys.executable).parent / "cmemu")
END_SECONDS = 4.0
STARTUP_SECONDS = 60.0
CELLS_SECONDS = 90.0
FIRST_CELL_SECONDS = 30.0
EXPECTED_MS = 30_000
POLL_MS = 100.0  # without it a condition is evaluated in each frame that a page draws
NO_POPUPS = '{"fetchNews": "false", "checkForUpdates": false, "doNotDisturbMode": true}'
KERNEL_IS_IDLE = """() => {
    const opened = window.jupyterapp?.shell.currentWidget;
    return opened?.context?.isReady && opened.sessionContext?.session?.kernel?.status === 'idle';
}"""
RUN_ALL_CELLS = """async () => {
    await window.jupyterapp.restored;
    window.allCellsHaveRun = false;
    window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.allCellsHaveRun = true; });
}"""
A_CELL_HAS_RUN = """() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells.some(
    (cell) => cell.execution_count)"""
# What is wider than its place: a line of code, an output, or something in it that scrolls sideways by itself.
# A preview in one line of the dashboard may end in "…": its tooltip is the whole text.
WIDER = """() => [...document.querySelectorAll('.jp-Cell')].flatMap((cell, number) =>
    [...cell.querySelectorAll('.cm-scroller, .jp-OutputArea-output, .jp-OutputArea-output *')]
        .filter((part) => part.clientWidth > 1 && part.scrollWidth > part.clientWidth + 1)
        .filter((part) => part.matches('.jp-OutputArea-output') || getComputedStyle(part).overflowX !== 'visible')
        .filter((part) => !(part.title && getComputedStyle(part).textOverflow === 'ellipsis'))
        .map((part) => `cell ${number}: ${part.scrollWidth} pixels in ${part.clientWidth}: ${part.className}`))"""
RESTART_KERNEL = "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
WAS_RELOADED = "performance.getEntriesByType('navigation')[0].type === 'reload'"
END_SESSIONS = "window.jupyterapp.serviceManager.sessions.shutdownAll()"
OPEN_INSTEAD = """async (path) => {
    window.jupyterapp.shell.currentWidget.dispose();
    await window.jupyterapp.serviceManager.sessions.shutdownAll();
    await window.jupyterapp.serviceManager.kernelspecs.refreshSpecs();
    await window.jupyterapp.commands.execute('docmanager:open', { path });
}"""
CELLS = "() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells"


def write_notebook(path: Path, sources: Sequence[str], kernel_name: str = "python3") -> None:
    """Write a notebook with these code cells."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    # Without a kernel's name Lab asks for one.
    kernel = {"name": kernel_name, "display_name": kernel_name, "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def install_kernel(home: Path, name: str, python: Path) -> None:
    """Let the Lab of a home run kernels of another interpreter."""
    folder = home / ".local" / "share" / "jupyter" / "kernels" / name
    folder.mkdir(parents=True, exist_ok=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": name, "language": "python"}))


def render_all_cells(home: Path) -> None:
    """Let the Lab of a home render also the cells that are scrolled out of sight."""
    folder = home / "settings" / "@jupyterlab" / "notebook-extension"
    folder.mkdir(parents=True)
    (folder / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')


@contextlib.contextmanager
def cmemu_lab(home: Path, folder: Path, *arguments: str) -> Iterator[str]:
    """Run `cmemu lab` in a folder, with `home` as its only memory; gives the URL that it prints, with its token."""
    with _jupyter(home, folder, [CMEMU, "lab", *arguments, "--LabApp.expose_app_in_browser=True"]) as url:
        yield url


@contextlib.contextmanager
def notebook_7(home: Path, folder: Path, notebook: str) -> Iterator[str]:
    """Run Jupyter Notebook 7 in a folder, with `home` as its only memory; gives the URL of a notebook in it."""
    options = ["--no-browser", "--allow-root", "--JupyterNotebookApp.expose_app_in_browser=True"]
    with _jupyter(home, folder, [sys.executable, "-m", "notebook", *options]) as url:
        yield url.replace("/tree?", f"/notebooks/{notebook}?")


@contextlib.contextmanager
def _jupyter(home: Path, folder: Path, command: list[str]) -> Iterator[str]:
    (home / "settings" / "@jupyterlab" / "apputils-extension").mkdir(parents=True)
    (home / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings").write_text(NO_POPUPS)
    log = home / "jupyter.log"
    with server_of_notebooks([*command, f"--port={free_port()}"], home, folder, log) as server:
        yield _printed_url(server, log)


@contextlib.contextmanager
def server_of_notebooks(command: list[str], home: Path, folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that serves the notebooks of a folder; what it writes goes to the log."""
    with (
        log.open("w") as output,
        subprocess.Popen(command, cwd=folder, env=lab_environ(home), stdout=output, stderr=output) as server,
    ):
        try:
            yield server
        finally:
            server.terminate()
            # One of AnyIO's threads that was left busy with a file, after a kernel's restart, lets it never end.
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(END_SECONDS)
            server.kill()


def lab_environ(home: Path) -> dict[str, str]:
    """Return an environment without this user's settings of Jupyter, and without a display."""
    foreign = ("JUPYTER", "IPYTHON", "XDG_", "DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    kept = {name: value for name, value in clean_environ().items() if not name.startswith(foreign)}
    settings = {"JUPYTERLAB_SETTINGS_DIR": home / "settings", "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces"}
    return kept | {"HOME": str(home), **{name: str(path) for name, path in settings.items()}}


def _printed_url(server: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < end and server.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+/(?:lab|tree)\S*[?]token=\w+", log.read_text())
        if found:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"Jupyter printed no URL in {STARTUP_SECONDS} s:\n{log.read_text()}")


@contextlib.contextmanager
def chromium() -> Iterator[BrowserContext]:
    """Run Chromium, which may use the clipboard; its pages have the time of a slow machine for what is expected."""
    expect.set_options(timeout=EXPECTED_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=CHROMIUM)
        try:
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            context.grant_permissions(["clipboard-read", "clipboard-write"])
            yield context
        finally:
            browser.close()


@contextlib.contextmanager
def opened(context: BrowserContext, url: str) -> Iterator[Page]:
    """Open a notebook's URL in a page of its own, and give the page when its kernel is idle."""
    page = context.new_page()
    page.set_default_timeout(STARTUP_SECONDS * 1000)
    with failures_are_seen(page):
        # Lab keeps connections open: the network is never idle.
        page.goto(url, wait_until="domcontentloaded")
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        wait_for_kernel(page)
        yield page


def open_instead(page: Page, path: str) -> None:
    """Open another notebook in a page of Lab, and end the one that it shows, with its kernel.

    Loading a page of Lab takes several times the processor's time of most notebooks.
    """
    page.set_default_timeout(STARTUP_SECONDS * 1000)
    if page.evaluate(WAS_RELOADED):
        # Lab may open once more what the page showed before, at any later moment, and bring it to the front.
        page.evaluate(END_SESSIONS)
        page.goto(urljoin(page.url, f"/lab/tree/{quote(path)}?reset"), wait_until="domcontentloaded")
    else:
        page.evaluate(OPEN_INSTEAD, path)
    wait_for_kernel(page)


def wait_for_kernel(page: Page) -> None:
    """Wait until the kernel of the notebook that a page shows is idle."""
    try:
        page.wait_for_function(KERNEL_IS_IDLE, polling=POLL_MS)
    except NotInTime:
        _reload(page)  # seen once in thousands: Lab on a busy machine misses its kernel


@contextlib.contextmanager
def failures_are_seen(page: Page) -> Iterator[None]:
    """Take a picture of the page when what is done with it fails."""
    try:
        yield
    except BaseException:
        screenshot(page, "failed")
        raise


def _reload(page: Page) -> None:
    """Do what a person does with a page that hears nothing of its kernel."""
    page.reload(wait_until="domcontentloaded")
    page.wait_for_function(KERNEL_IS_IDLE, polling=POLL_MS)


def run_all_cells(page: Page) -> list[dict[str, Any]]:
    """Run every cell of the notebook and return its cells, with their outputs, when all have finished."""
    page.set_default_timeout(CELLS_SECONDS * 1000)
    page.evaluate(RUN_ALL_CELLS)
    try:
        page.wait_for_function(A_CELL_HAS_RUN, polling=POLL_MS, timeout=FIRST_CELL_SECONDS * 1000)
    except NotInTime:
        # Either what Lab has sent to the kernel was lost, or the machine is slow. A new kernel has run none of it.
        _reload(page)
        page.evaluate(RESTART_KERNEL)
        page.wait_for_function(KERNEL_IS_IDLE, polling=POLL_MS)
        page.evaluate(RUN_ALL_CELLS)
    page.wait_for_function("window.allCellsHaveRun", polling=POLL_MS)
    cells: list[dict[str, Any]] = page.evaluate(CELLS)
    return cells


def wider_than_the_page(page: Page) -> list[str]:
    """Return the code and the outputs of a notebook whose right end is not seen; all cells must be rendered."""
    found: list[str] = page.evaluate(WIDER)
    return found


def errors_in(cells: list[dict[str, Any]]) -> list[str]:
    """Return what went wrong: the cells that raised or were told that they are wrong, and those that did not run."""
    wrong = []
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            outputs = cell["outputs"]
            wrong += [f"cell {number}: {''.join(each['traceback'])}" for each in outputs if "traceback" in each]
            wrong += [f"cell {number}: {each['text']}" for each in outputs if "UsageError" in each.get("text", "")]
            if "".join(cell["source"]).strip() and cell["execution_count"] is None:
                wrong.append(f"cell {number} did not run")
    return wrong


def screenshot(page: Page, name: str) -> Path:
    """Take a picture into `.cache/screenshots/`."""
    path = CACHE / "screenshots" / f"{name}.png"
    page.screenshot(path=path)
    return path
