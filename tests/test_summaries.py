"""The summary under a dashboard says how things ended, in whatever executes the notebook: the real programs are run."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import nbformat
import pytest
import requests
from environments import program
from lab_browser import CHROMIUM, lab_environ, screenshot, write_notebook
from playwright.sync_api import expect, sync_playwright
from shells import plain_shell

from cmemu_nb.dashboard.summary import Summaries
from cmemu_nb.lifecycle.events import EventLog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.once

START = "%load_ext cmemu_nb\n%cmemu start --port 0 --tls-port 0"
HALF = "@emu.function\ndef half(context, event):\n    assert event['x'] % 2 == 0, 'odd'\n    return event['x'] // 2"
CALLS = "emu.map('half', [{'x': x} for x in range(10)], progress=False)"
CELLS = (START, "emu.dashboard()", HALF, CALLS, "%cmemu stop")
HEADING = re.compile(r"Summary of the dashboard, written [^<]*?: ([^<]*)</summary>")
EXECUTORS = {
    "nbconvert to html": ("nbconvert", "--execute", "--to", "html", "--output", "done", "notebook.ipynb"),
    "nbconvert to a notebook": ("nbconvert", "--execute", "--to", "notebook", "--output", "done", "notebook.ipynb"),
    "papermill": ("papermill", "notebook.ipynb", "done.ipynb"),
}


@pytest.mark.parametrize("name", EXECUTORS)
def test_a_notebook_that_a_program_executes_says_how_it_ended(name: str, tmp_path: Path) -> None:
    write_notebook(tmp_path / "notebook.ipynb", CELLS)
    command = [sys.executable, "-m", *EXECUTORS[name]]
    done = subprocess.run(
        command, cwd=tmp_path, env=lab_environ(tmp_path), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.glob("done.*")
    if written.suffix == ".ipynb":
        outputs = [output for cell in nbformat.read(written, 4).cells for output in cell.outputs]
        shown = "".join(output["data"].get("text/html", "") for output in outputs if "data" in output)
    else:
        shown = written.read_text("utf-8")
    assert HEADING.findall(shown) == ["5 ok, 5 function errors"]


@contextlib.contextmanager
def voila(folder: Path) -> Iterator[str]:
    """Run Voila on a notebook, and give its URL when it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "voila", "notebook.ipynb", "--no-browser", f"--port={port}"]
    with (folder / "voila.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=lab_environ(folder), stdout=log, stderr=log)
        try:
            end = time.monotonic() + 60
            while True:
                with contextlib.suppress(requests.ConnectionError):
                    requests.get(f"http://127.0.0.1:{port}/static/voila.js", timeout=20).close()
                    break
                assert time.monotonic() < end, (folder / "voila.log").read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.browser
@pytest.mark.long_lived
def test_voila_shows_the_dashboard_live_and_no_summary_that_is_out_of_date(tmp_path: Path) -> None:
    write_notebook(tmp_path / "notebook.ipynb", CELLS[:-1])
    with voila(tmp_path) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=CHROMIUM)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url, wait_until="domcontentloaded", timeout=60_000)
        expect(page.get_by_role("button", name="5 function errors", exact=True)).to_be_visible(timeout=60_000)
        expect(page.get_by_role("button", name="5 ok", exact=True)).to_be_visible()
        expect(page.get_by_text("Summary of the dashboard")).to_have_count(0)
        screenshot(page, "dashboard-voila")
        browser.close()


# Which summaries, and when


def test_the_summaries_of_cells_are_rewritten_after_each_cell_in_which_something_happened(tmp_path: Path) -> None:
    log, written = EventLog(), []
    with plain_shell(tmp_path) as shell:
        summaries = Summaries(log)
        shell.user_ns.update(log=log, show=lambda name: summaries.add(lambda: written.append(name)))

        def run(code: str, cell: str | None = None) -> list[str]:
            written.clear()
            assert shell.run_cell(code, cell_id=cell).success
            return list(written)

        assert run("log.emit('job_queued', 1); show('first')", "cell 1") == []
        assert run("1 + 1") == []
        assert run("log.emit('poll_empty', 1)") == []
        assert run("log.emit('job_queued', 1)") == ["first"]
        run("show('again')", "cell 1")
        run("show('other')", "cell 2")
        assert run("log.emit('job_queued', 1)") == ["again", "other"]
        # Some front ends do not say which cell they run.
        run("show('nameless')")
        assert run("log.emit('job_queued', 1)") == ["again", "other", "nameless"]


def test_a_summary_that_is_left_is_no_longer_rewritten(tmp_path: Path) -> None:
    log, written = EventLog(), []

    def rewrite() -> None:
        written.append(log.newest)

    with plain_shell(tmp_path) as shell:
        before = list(shell.events.callbacks["post_run_cell"])
        summaries = Summaries(log)
        shell.user_ns.update(log=log, add=lambda: summaries.add(rewrite), remove=lambda: summaries.remove(rewrite))
        for code in ("add()", "log.emit('job_queued', 1)", "remove()", "log.emit('job_queued', 1)"):
            assert shell.run_cell(code).success
        assert written == [1]
        assert shell.events.callbacks["post_run_cell"] == before
