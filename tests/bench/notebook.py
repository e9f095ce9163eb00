"""Kernels that the benchmarks drive as a front end does, with an emulator in them or without."""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.dashboard_browser import Browser
from environments import kernel_python
from kernels.notebooks import APP, START

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parent.parent
CYCLED_APP = "ri.foundry.main.deployed-app.r0"

KERNEL = f"""
import json, sys
sys.path.insert(0, {str(TESTS)!r})
from bench.dashboard_meter import Meter
cycled = emu.open_runtime("r0", deployed_app_rid={CYCLED_APP!r})
outside = emu.open_runtime("outside", deployed_app_rid={APP!r})
meter = Meter(emu)
print(json.dumps([emu.url, emu.token, emu.home.kind, [cycled.token, outside.token], outside.get_job_uri[:-4]]))
"""


@dataclass
class Notebook:
    """A kernel, and what the clients of its emulator need: the runtimes `r0` and `outside` with an app each."""

    browser: Browser
    url: str = ""
    token: str = ""
    apps: list[str] = field(default_factory=lambda: [CYCLED_APP, APP])
    module_tokens: list[str] = field(default_factory=list)
    outside: str = ""


@contextlib.contextmanager
def open_notebook(version: str, home: str) -> Iterator[Notebook]:
    """Start a kernel of an ipykernel, with an emulator in it and a `meter`, or without if `home` is empty."""
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(kernel_python(version), Path(folder))
        try:
            notebook = Notebook(browser)
            if home:
                browser.run(START.format(port=0, home=" --thread" if home == "thread" else ""))
                notebook.url, notebook.token, kind, notebook.module_tokens, notebook.outside = json.loads(
                    browser.run(KERNEL).splitlines()[-1]
                )
                assert kind == home
            yield notebook
        finally:
            browser.close()
