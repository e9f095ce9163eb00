"""The front end that shows the notebook, recognised by the signs that it documents, and its limitations."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from cmemu_nb.eventloop.shell import in_marimo
from cmemu_nb.ipython import current_shell
from cmemu_nb.wire.jupyterhub import service_prefix


class FrontEnd(NamedTuple):
    """A front end, with its limitations in one sentence, if any; `{emu}` stands for the emulator's variable."""

    name: str
    limits: str = ""


COLAB = FrontEnd(
    "Colab",
    "{emu}.url is inside Colab's machine: cells and their programs can reach it, your browser can't. The "
    "dashboard needs google.colab.output.enable_custom_widget_manager(), which anywidget calls by itself.",
)
VS_CODE = FrontEnd(
    "VS Code",
    "with a remote kernel {emu}.url is on the kernel's machine, so forward its port. The dashboard needs the setting "
    "jupyter.widgetScriptSources, for which VS Code asks; 'cmemu ui' in a terminal opens it in a browser.",
)
BINDER = FrontEnd(
    "Binder",
    "this machine and its files are deleted after some minutes without use. To keep your session, type "
    "{emu}.export('run.json') and download the file.",
)
JUPYTERHUB = FrontEnd(
    "JupyterHub",
    "{emu}.url is inside this server's machine; a request from another machine needs the hub's login and a token of "
    "{emu}.",
)
JUPYTER = FrontEnd("Jupyter")
IPYTHON = FrontEnd(
    "IPython", "{emu}.dashboard() needs a notebook; 'cmemu ui' in another terminal opens the dashboard in a browser."
)
MARIMO = FrontEnd(
    "marimo",
    "there are no magics, so start the emulator with {emu} = Emulator().start(). Type {emu}.stop() before you run that "
    "cell again, which makes another emulator.",
)
PYTHON = FrontEnd("Python")


def front_end() -> FrontEnd:
    """Return the front end of this process; a kernel can't distinguish JupyterLab from Notebook."""
    shell = current_shell()
    signs = (
        (in_marimo(), MARIMO),
        ("__vsc_ipynb_file__" in getattr(shell, "user_ns", ()), VS_CODE),
        ("google.colab" in sys.modules, COLAB),
        (os.environ.keys() & {"BINDER_LAUNCH_HOST", "BINDER_REPO_URL"}, BINDER),
        (service_prefix() is not None, JUPYTERHUB),
        (shell is None, PYTHON),
        (getattr(shell, "kernel", None) is None, IPYTHON),
        (os.environ.keys() & {"VSCODE_PID", "VSCODE_CWD"}, VS_CODE),
    )
    return next((found for sign, found in signs if sign), JUPYTER)
