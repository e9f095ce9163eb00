"""Programs that the benchmarks measure, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
KEEP_ALL = {"keep_jobs": 10**9, "keep_bytes": 10**15}


@dataclass
class Server:
    """A server in a process of its own, and what its clients need: `apps` and `module_tokens` are of r0, r1, ..."""

    url: str
    token: str
    apps: list[str]
    module_tokens: list[str]
    process: subprocess.Popen[str] | None = None

    def ask(self, command: str) -> float:
        """Have the process do something, and return the number that it answers."""
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def cpu(self) -> float:
        """Return how many seconds of processor time the process has used."""
        return self.ask("cpu")


@contextlib.contextmanager
def serve(program: str, *arguments: str) -> Iterator[Server]:
    """Run one of the programs beside this file."""
    command = [sys.executable, str(HERE / f"{program}.py"), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Server(**json.loads(process.stdout.readline()), process=process)
        finally:
            process.kill()


def serve_emulator(**settings: Any) -> contextlib.AbstractContextManager[Server]:
    """Run an emulator with these settings and the runtimes r0 to r7."""
    return serve("emulator", json.dumps(settings))


@contextlib.contextmanager
def executor_of(server: Server) -> Iterator[None]:
    """Run an executor of r0."""
    clients = {**vars(server), "process": None}
    with subprocess.Popen([sys.executable, str(HERE / "executor.py"), json.dumps(clients)]) as process:
        try:
            yield
        finally:
            process.kill()
