"""Sync execute from outside while a cell of the emulator's kernel is idle, waits, or computes."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.clients import Figures, KeepAlive, measure
from kernels.driver import running_cell, wait_until
from kernels.notebooks import APP, Notebook, open_notebook

COUNT = 300
CELLS = {
    "a cell sleeps": "import time; time.sleep(600)",
    "a cell asks for input": "input('?')",
    "a cell waits for requests": "emu.call('never')",
    "a cell awaits": "import asyncio\nwhile True: await asyncio.sleep(0.1)",
    "a cell computes": "while True: sum(range(1000))",
    "a C call keeps the GIL": "import re\nwhile True: re.match(r'(a?){18}a{18}', 'a' * 18)",
}


def main() -> None:
    """Measure and print, for every ipykernel and both homes."""
    for version, home in (("7.4", "kernel"), ("7.4", "thread"), ("7.3", "kernel"), ("6.30", "kernel")):
        with tempfile.TemporaryDirectory() as folder, open_notebook(version, home, Path(folder)) as notebook:
            print(f"ipykernel {version}, {home} home")
            client = KeepAlive(notebook.url, Authorization=f"Bearer {notebook.token}")
            idle = measure(partial(client.execute, APP), COUNT)
            print(f"    {'idle':<27} {idle}")
            for name, code in CELLS.items():
                figures = while_running(notebook, client, code)
                print(f"    {name:<27} {figures}   ratio {figures.p50 / idle.p50:.2f}", flush=True)


def while_running(notebook: Notebook, client: KeepAlive, code: str) -> Figures:
    """Measure while a cell runs, then end the cell."""
    with running_cell(notebook.kernel, code) as cell:
        figures = measure(partial(client.execute, APP), 20 if "re.match" in code else COUNT, warm_up=10)
    notebook.kernel.interrupt()
    wait_until(lambda: cell.status is not None, "the end of the cell")
    return figures


if __name__ == "__main__":
    main()
