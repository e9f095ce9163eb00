"""`cmemu ui` and `cmemu serve --ui`: the dashboard's page from a terminal, in real processes and a real browser."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from cli_processes import run, serving
from client import eventually
from lab_browser import chromium
from playwright.sync_api import expect

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

TOKEN = "a-token+of/mine"
NO_DISPLAY = {"DISPLAY": None, "WAYLAND_DISPLAY": None, "BROWSER": None}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory, for the processes of this test alone."""
    for name in NO_DISPLAY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path / "runtime"


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which this machine's browser writes the address that it was told to open."""
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o700)
    monkeypatch.setenv("BROWSER", str(browser))
    return opened


@pytest.mark.browser
def test_a_browser_opens_the_dashboard_without_other_users_seeing_the_token(folder: Path, opened: Path) -> None:
    with serving("--token", TOKEN) as server:
        done = run("ui")
        assert (done.stdout, done.stderr) == (f"{server.url}/ui#token=a-token%2Bof%2Fmine\n", "")
        where = eventually(lambda: opened.exists() and opened.read_text().strip(), "a browser was opened")
        (page,) = folder.glob("*.html")
        assert where == page.as_uri()
        assert stat.S_IMODE(page.stat().st_mode) == 0o600
        with chromium() as context:
            tab = context.new_page()
            tab.goto(where)
            expect(tab.get_by_role("tablist")).to_be_visible(timeout=30_000)
            assert tab.url == f"{server.url}/ui"
        server.end()
        assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("folder")
def test_serve_prints_the_dashboard_s_address_with_the_token_only_if_that_is_printed(opened: Path) -> None:
    with serving("--token", TOKEN, "--ui", "--print-token") as server:
        eventually(opened.exists, "a browser was opened")
        output, errors = server.end()
        assert output.splitlines()[-1] == f"The dashboard is at {server.url}/ui#token=a-token%2Bof%2Fmine"
        assert errors == ""
    with serving("--token", TOKEN, "--ui") as server:
        assert server.end() == (f"The dashboard is at {server.url}/ui\n", "")


@pytest.mark.usefixtures("folder")
def test_without_a_display_the_address_is_enough() -> None:
    with serving("--token", TOKEN) as server:
        done = run("ui")
        assert done.stdout.startswith(f"{server.url}/ui#token=")
        assert "no display" in done.stderr
        assert run("ui", "--no-browser").stderr == ""
        refused = run("ui", "--url", server.url, "--token", "wrong")
        assert (refused.returncode, refused.stdout) == (7, "")
        behind = run("ui", "--no-browser", JUPYTERHUB_SERVICE_PREFIX="/user/jo/")
        port = server.url.rpartition(":")[2]
        assert behind.stdout == f"/user/jo/proxy/{port}/ui#token=a-token%2Bof%2Fmine\n"
