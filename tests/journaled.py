"""An emulator with a journal in a process of its own, which can be killed at any moment."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = """
import json, sys, traceback
from cmemu_nb import Emulator

emu = Emulator(port=0, home="thread", **json.loads(sys.argv[1])).start()
names = {"emu": emu}
print(json.dumps([emu.url, emu.platform_url, emu.token]), flush=True)
for line in sys.stdin:
    code = json.loads(line)
    try:
        exec(code, names)
        answer = names.pop("answer", None)
    except Exception:
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer), flush=True)
emu.stop()
"""


class Process:
    """The emulator's process; `run()` runs code in it, where it is `emu`, and returns what the code calls `answer`."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self.url, self.platform_url, self.token = json.loads(self._read())

    def _read(self) -> str:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line, "the process has ended"
        return line

    def run(self, code: str) -> Any:
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(code) + "\n")
        self.popen.stdin.flush()
        answer = json.loads(self._read())
        assert not (isinstance(answer, dict) and "error" in answer), answer["error"]
        return answer

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.popen.kill()
        self.popen.wait()

    def stop(self) -> None:
        """Have it stop its emulator and end."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        assert self.popen.wait(30) == 0


@contextlib.contextmanager
def process(journal: Path, **settings: Any) -> Iterator[Process]:
    """Run an emulator with this journal; it is killed at the end."""
    given = {"journal": str(journal), **settings}
    command = [sys.executable, "-c", PROGRAM, json.dumps(given)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as popen:
        try:
            yield Process(popen)
        finally:
            popen.kill()
