"""`cmemu lab`: JupyterLab with the first tutorial."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

TUTORIAL = Path(__file__).resolve().parents[2] / "notebooks" / "01-runtime-lifecycle.ipynb"
ROOT_OR_URL = ("root_dir", "notebook_dir", "notebook-dir", "default_url")


def start_lab(arguments: Sequence[str]) -> int:
    """Run JupyterLab until it is stopped, and return an exit code.

    The first argument is the notebook to open, unless it is an option; the default is the first tutorial. All
    other arguments are passed to `jupyter lab`.
    """
    try:
        from jupyterlab.labapp import LabApp  # noqa: PLC0415 - of the extra `lab`, which may not be installed
    except ModuleNotFoundError as error:
        _complain(f"JupyterLab can't be started: {error}. Install it with: pip install 'cmemu_nb[lab]'")
        return 2
    LabApp.launch_instance([*_with_notebook(arguments), *_for_this_machine()])
    return 0


def _with_notebook(arguments: Sequence[str]) -> list[str]:
    """Add the tutorial if no notebook is given, and let the URL that Jupyter prints lead to the notebook."""
    if not arguments or arguments[0].startswith("-"):
        if not TUTORIAL.is_file():
            _complain(
                f"The tutorials are in the repository, not in the installed package. JupyterLab opens {Path.cwd()}."
            )
            return [*arguments]
        arguments = [str(TUTORIAL), *arguments]
    notebook, options = Path(arguments[0]), " ".join(arguments[1:])
    if not notebook.is_file() or any(name in options for name in ROOT_OR_URL):
        return [*arguments]
    return [*arguments, f"--LabApp.default_url=/lab/tree/{quote(notebook.name)}"]


def _for_this_machine() -> list[str]:
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return [*(["--allow-root"] if as_root else []), *([] if _has_browser() else ["--no-browser"])]


def _has_browser() -> bool:
    # Without a display, webbrowser finds text browsers, which can't run JupyterLab.
    if sys.platform == "linux" and not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
