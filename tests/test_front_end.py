"""Which front end is recognised, by real environment variables of real processes, and what people are told of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from environments import clean_environ
from nbclient import NotebookClient
from test_notebooks import ThisPython, text_of

from cmemu_nb.display import front_end
from cmemu_nb.display.front_end import FrontEnd
from cmemu_nb.notebook import topics

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

SIGNS = ("VSCODE", "BINDER", "JUPYTERHUB", "COLAB")
NAME = "from cmemu_nb.display.front_end import front_end; print(front_end().name)"
START = "%load_ext cmemu_nb\n%cmemu start --port 0"
IN_VS_CODE = "__vsc_ipynb_file__ = '/home/jo/a.ipynb'\n"
IN_COLAB = "import google.colab.output\n"
HUB = {"JUPYTERHUB_SERVICE_PREFIX": "/user/jo/"}
BINDER = {"BINDER_LAUNCH_HOST": "https://mybinder.org/", **HUB}
FRONT_ENDS = [each for each in vars(front_end).values() if isinstance(each, FrontEnd)]
COLABS_MODULE = """
from types import SimpleNamespace
called = []
_widgets = SimpleNamespace(_installed_url=None)
def enable_custom_widget_manager():
    called.append(True)
"""


def environ_with(home: Path, signs: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in clean_environ().items() if not name.startswith(SIGNS)}
    return kept | {"HOME": str(home), "IPYTHONDIR": str(home / "ipython")} | signs


def with_colab(home: Path) -> dict[str, str]:
    """Write a module where Colab has its own, and return what lets programs find it."""
    package = home / "modules" / "google" / "colab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "output.py").write_text(COLABS_MODULE)
    return {"PYTHONPATH": str(home / "modules")}


def in_ipython(home: Path, signs: dict[str, str], code: str) -> str:
    command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "-c", code]
    done = subprocess.run(
        command, env=environ_with(home, signs), capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout


def in_a_kernel(home: Path, signs: dict[str, str], *cells: str) -> list[Any]:
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    NotebookClient(notebook, timeout=60, kernel_manager_class=ThisPython).execute(env=environ_with(home, signs))
    return [output for cell in notebook.cells for output in cell.outputs]


@pytest.mark.parametrize(
    ("signs", "before", "name"),
    [
        ({}, "", "IPython"),
        ({"VSCODE_PID": "1"}, "", "IPython"),
        ({}, IN_VS_CODE, "VS Code"),
        (HUB, IN_VS_CODE, "VS Code"),
        (HUB, "", "JupyterHub"),
        (BINDER, "", "Binder"),
        ({"BINDER_REPO_URL": "https://example.org/repository"}, "", "Binder"),
        ({}, IN_COLAB, "Colab"),
    ],
)
def test_a_front_end_is_known_by_its_signs(tmp_path: Path, signs: dict[str, str], before: str, name: str) -> None:
    assert in_ipython(tmp_path, signs | with_colab(tmp_path), before + NAME).strip() == name


def test_without_ipython_it_is_a_program(tmp_path: Path) -> None:
    said = subprocess.check_output(
        [sys.executable, "-c", NAME], env=environ_with(tmp_path, {"VSCODE_PID": "1"}), text=True
    )
    assert said.strip() == "Python"


@pytest.mark.parametrize(("signs", "name"), [({}, "Jupyter"), ({"VSCODE_PID": "1"}, "VS Code")])
def test_a_kernel_is_of_jupyter_or_of_vs_code(tmp_path: Path, signs: dict[str, str], name: str) -> None:
    started = text_of(in_a_kernel(tmp_path, signs, NAME, START, "%cmemu stop"))
    assert started.startswith(f"{name}\n")
    assert ("seen in" in started) is (name == "VS Code")
    assert ("VS Code: with a remote kernel emu.url is on the kernel's machine" in started) is (name == "VS Code")


def test_the_start_cell_tells_the_limits_and_the_hub_s_address(tmp_path: Path) -> None:
    ask = "import json; print(json.dumps([emu.url, emu.proxy_url]))"
    said = in_ipython(tmp_path, BINDER, f"{START}\n{ask}\n%cmemu stop")
    url, proxy_url = json.loads(next(line for line in said.splitlines() if line.startswith("[")))
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
    assert proxy_url == f"/user/jo/proxy/{url.rpartition(':')[2]}"
    assert re.search(rf"URL +{re.escape(url)}\n +behind the hub +{proxy_url} ", said)
    assert re.search(r"seen in +Binder: this machine and its files are deleted after some minutes", said)


def test_the_dashboard_turns_on_colab_s_custom_widgets(tmp_path: Path) -> None:
    cells = (IN_COLAB + START, "emu.dashboard()", "print(len(google.colab.output.called))", "%cmemu stop")
    outputs = in_a_kernel(tmp_path, with_colab(tmp_path), *cells)
    assert "Colab: emu.url is inside Colab's machine" in text_of(outputs)
    assert "1" in [output.get("text", "").strip() for output in outputs]


def test_the_document_has_each_front_end_and_says_what_was_run() -> None:
    rows = dict(
        re.findall(
            r"^\| ([^|]+) \| [^|]+ \| (tested|not tested)[^|]*\|",
            topics.read("front_ends"),
            re.MULTILINE,
        )
    )
    names = {"JupyterLab 4", "Notebook 7"} | {
        each.name for each in FRONT_ENDS if each.name not in ("Jupyter", "Python")
    }
    assert set(rows) == names
    assert {name for name, state in rows.items() if state == "tested"} == {
        "JupyterLab 4",
        "Notebook 7",
        "IPython",
        "JupyterHub",
        "Binder",
        "marimo",
    }
