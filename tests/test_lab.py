"""`cmemu lab`: what it asks of JupyterLab, and what its users see in Chromium."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from environments import ROOT
from lab_browser import (
    CMEMU,
    chromium,
    cmemu_lab,
    errors_in,
    failures_are_seen,
    lab_environ,
    open_instead,
    opened,
    render_all_cells,
    run_all_cells,
    screenshot,
    wider_than_the_page,
    write_notebook,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

pytestmark = pytest.mark.once

FIRST_STEPS = (
    "%load_ext cmemu_nb",
    "%cmemu start --port 0",
    "import requests\nassert requests.get(f'{emu.url}/_emulate/health', timeout=10).json()['status'] == 'ok'",
    "runtime = emu.open_runtime('from-lab')\nassert emu.runtime('from-lab').token == runtime.token",
    "%cmemu stop",
)
NOTEBOOKS = ["first steps.ipynb", *sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))]


def jupyters_settings(home: Path, environ: dict[str, str], *arguments: str) -> dict[str, Any]:
    """Ask JupyterLab itself what it understood."""
    command = [CMEMU, "lab", *arguments, "--show-config-json"]
    output = subprocess.check_output(command, env=lab_environ(home) | environ, cwd=home, stderr=subprocess.DEVNULL)
    settings: dict[str, Any] = json.loads(output)["ServerApp"]
    return settings


def test_without_a_browser_none_is_opened_and_the_printed_url_is_the_notebooks(tmp_path: Path) -> None:
    write_notebook(tmp_path / "my notebook.ipynb", FIRST_STEPS)
    settings = jupyters_settings(tmp_path, {}, "my notebook.ipynb", "--port", "8899")
    assert settings["open_browser"] is False
    assert settings.get("allow_root", False) is (os.geteuid() == 0)
    assert settings["default_url"] == "/lab/tree/my%20notebook.ipynb"
    assert settings["port"] == 8899


def test_with_a_browser_it_is_opened_and_a_folder_of_the_users_is_respected(tmp_path: Path) -> None:
    write_notebook(tmp_path / "my.ipynb", FIRST_STEPS)
    settings = jupyters_settings(tmp_path, {"BROWSER": "true"}, "my.ipynb", f"--ServerApp.root_dir={tmp_path.parent}")
    assert settings.get("open_browser", True) is True
    assert settings["root_dir"] == str(tmp_path.parent)
    assert settings["default_url"] == "/lab"
    assert settings["file_to_run"] == str(tmp_path / "my.ipynb")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Return a page of Lab with the first of the notebooks."""
    home = tmp_path_factory.mktemp("home")
    render_all_cells(home)
    folder = shutil.copytree(ROOT / "notebooks", home / "notebooks")
    write_notebook(folder / NOTEBOOKS[0], FIRST_STEPS)
    with cmemu_lab(home, folder, NOTEBOOKS[0]) as url, chromium() as context:
        assert url.partition("?")[0].endswith(quote(NOTEBOOKS[0]))
        with opened(context, url) as page:
            yield page


@pytest.mark.browser
@pytest.mark.long_lived
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_of_a_notebook_runs_in_jupyterlab_and_is_seen_whole(lab: Page, name: str) -> None:
    with failures_are_seen(lab):
        if name != NOTEBOOKS[0]:
            open_instead(lab, name)
        cells = run_all_cells(lab)
        screenshot(lab, name.removesuffix(".ipynb"))
        assert cells
        assert errors_in(cells) == []
        assert wider_than_the_page(lab) == []
