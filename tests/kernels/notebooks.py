"""Notebooks with an emulator in them, and an executor outside."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from environments import kernel_python
from kernels.driver import Kernel, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = "ri.foundry.main.deployed-app.test"
CONTOUR = "/contour-backend-multiplexer/api/module-group-multiplexer"
WHERE = [("7.4", "kernel"), ("7.4", "thread"), ("6.30", "kernel")]
if os.environ.get("CMEMU_LONG"):
    WHERE.append(("7.3", "kernel"))
# For what is the emulator's own: no version of ipykernel, or no home either, has a part in it.
IN_BOTH_HOMES = pytest.mark.parametrize("notebook", WHERE[:2], ids="-".join, indirect=True)
IN_ONE_KERNEL = pytest.mark.parametrize("notebook", WHERE[:1], ids="-".join, indirect=True)
START = "%load_ext cmemu_nb\n%cmemu start --port {port}{home}"


@dataclass
class Notebook:
    """A kernel with an emulator in it, and an executor outside that serves the app."""

    kernel: Kernel
    home: str
    url: str
    token: str

    def execute(self, query_type: str = "echo", query: Any = 1, *, seconds: float = 20.0) -> Any:
        """Run a function from outside the kernel, through the sync contour route, and return its value."""
        body = json.dumps({"deployedAppRid": APP, "queryType": query_type, "query": query}).encode()
        request = urllib.request.Request(f"{self.url}{CONTOUR}/compute-modules/jobs/execute", data=body, method="POST")
        request.add_header("Authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return json.loads(answer.read())

    def wait_for_job(self, status: str, runtime_id: str) -> None:
        """Wait until a runtime has a job of a status, seen from outside while a cell may be running."""
        path = f"/_emulate/foundry/compute-modules/runtimes/{runtime_id}/jobs?status={status}"
        wait_until(lambda: self.get(path)["jobs"], f"a job {status} on {runtime_id}", interval=0.05)

    def get(self, path: str) -> Any:
        """Send a GET request from outside the kernel, with the bearer token."""
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def start_again(self, port: int = 0) -> str:
        """Run the start cell."""
        home = " --thread" if self.home == "thread" else ""
        return self.kernel.run(START.format(port=port, home=home))

    def events(self, *kinds: str) -> list[str]:
        """Return the details of the logged events of these kinds."""
        code = f"import json; print(json.dumps([e.detail for e in emu.lifecycle.events.recent() if e.kind in {kinds}]))"
        found: list[str] = json.loads(self.kernel.run(code))
        return found


@contextlib.contextmanager
def open_notebook(version: str, home: str, folder: Path, *, before: str = "pass") -> Iterator[Notebook]:
    """Start a kernel, the emulator in it by its start cell, and an executor outside; first of all run `before`."""
    kernel = Kernel(kernel_python(version), folder)
    try:
        kernel.run(before)
        notebook = Notebook(kernel, home, "", "")
        notebook.start_again()
        code = f"rt = emu.open_runtime('outside', deployed_app_rid={APP!r})\nimport json\n"
        state = "dict(url=emu.url, token=emu.token, base=rt.get_job_uri[:-4], module=rt.token, home=emu.home.kind)"
        found = json.loads(kernel.run(f"{code}print(json.dumps({state}))").splitlines()[-1])
        assert found["home"] == home
        notebook.url, notebook.token = found["url"], found["token"]
        with start_executor(found["base"], found["module"]):
            assert notebook.execute() == 1
            yield notebook
    finally:
        kernel.close()


@contextlib.contextmanager
def start_executor(base: str, token: str) -> Iterator[None]:
    """Run an executor in a process of its own."""
    script = str(Path(__file__).parent / "executor.py")
    with subprocess.Popen([sys.executable, script, base, token]) as process:
        try:
            yield
        finally:
            process.kill()
