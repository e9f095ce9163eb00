"""`%%compute_module`: a cell whose text is a program with an official SDK, launched as a real module."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from IPython.core.error import UsageError

from cmemu_nb.storage.owner_only import write_in

if TYPE_CHECKING:
    from cmemu_nb.emulator import Emulator
    from cmemu_nb.executors.modules.modules import LaunchedModule
    from cmemu_nb.notebook.commands import Arguments

NODE_PACKAGE = "@palantir/compute-module"
_ES_MODULE = re.compile(r"^[ \t]*(?:import\b(?!\s*\()|export\b)", re.MULTILINE)


def launch_cell(emulator: Emulator, given: Arguments, text: str) -> LaunchedModule:
    """Write a cell's text into a file of its own and launch that, in place of what the cell launched before."""
    emulator.modules.stop(given.module)
    folder = emulator.files.folder(f"module-{re.sub(r'[^A-Za-z0-9._-]', '_', given.module)}")
    write = _write_node if given.language == "node" else _write_python
    command = write(folder, text)
    tasks = given.max_concurrent_tasks
    return emulator.launch(command, given.module, replicas=given.replicas, max_concurrent_tasks=tasks)


def _write_python(folder: Path, text: str) -> list[str]:
    path = write_in(folder, "app.py", text.encode())
    return ["python", str(path)]


def _write_node(folder: Path, text: str) -> list[str]:
    modules = _node_modules()
    link = folder / "node_modules"
    link.unlink(missing_ok=True)  # of an earlier run of the cell, maybe in another directory
    link.symlink_to(modules)
    path = write_in(folder, "app.mjs" if _ES_MODULE.search(text) else "app.cjs", text.encode())
    return ["node", str(path)]


def _node_modules() -> Path:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "node_modules" / NODE_PACKAGE).is_dir():
            return folder / "node_modules"
    raise UsageError(
        f"%%compute_module: {NODE_PACKAGE} is not installed in {os.fspath(here)} or above. "
        f"Type: !npm install {NODE_PACKAGE}"
    )
