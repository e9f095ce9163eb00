"""The command line as real processes, for the tests of its commands."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from client import eventually

from cmemu_nb.cli import main

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator
    from pathlib import Path

CMEMU = [sys.executable, "-m", "cmemu_nb"]


class Serving:
    """A `cmemu serve` or `cmemu run` that has said where it is."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process, self.output, self.errors = process, process.stdout, process.stderr
        self.first_line = self.output.readline()
        self.url = self.first_line.split()[-1]

    def end(self, number: signal.Signals | None = None) -> tuple[str, str]:
        """Send SIGTERM or another signal; returns the rest of the output and what was written to stderr."""
        if number is None:
            self.process.terminate()
        else:
            self.process.send_signal(number)
        self.process.wait(20)
        # Not communicate(): it overlooks what readline() has read ahead.
        return self.output.read(), self.errors.read()


@contextlib.contextmanager
def serving(*options: str, command: str = "serve", runtime_folder: Path | None = None) -> Iterator[Serving]:
    environment = os.environ if runtime_folder is None else {**os.environ, "JUPYTER_RUNTIME_DIR": str(runtime_folder)}
    words = [*CMEMU, command, "--port", "0", *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield Serving(process)
        finally:
            process.kill()


@contextlib.contextmanager
def unread_pipe() -> Iterator[int]:
    """Give a file that is full, and that nobody reads: whoever writes to it waits."""
    unread, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(full, bytes(4096))
    os.set_blocking(full, True)
    try:
        yield full
    finally:
        os.close(unread)
        os.close(full)


def run(*arguments: str, text: str | None = None, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `text` is its stdin, a variable of the environment that is None is not set."""
    given = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    stdin = subprocess.DEVNULL if text is None else None
    return subprocess.run(
        [*CMEMU, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        input=text,
        stdin=stdin,
        env=given,
    )


def run_here(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, for what its answers say: it is as real, and starts twenty times as fast."""
    output, errors = io.StringIO(), io.StringIO()

    def run_it() -> int:
        try:
            return main(arguments)
        except SystemExit as end:
            return int(end.code or 0)

    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), ThreadPoolExecutor(1) as thread:
        code = thread.submit(run_it).result()  # asyncio.run() would take the loop of this thread away
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


class OnTerminal:
    """A command, or another program, on a terminal of 100 columns; `seen` is what it has written there."""

    def __init__(self, *arguments: str, program: list[str] = CMEMU, **environment: str) -> None:
        self._terminal, theirs = pty.openpty()
        self.seen = ""
        given = {**os.environ, "COLUMNS": "100", "LINES": "20", **environment}
        self.process = subprocess.Popen(
            [*program, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=given, start_new_session=True
        )
        os.close(theirs)
        os.set_blocking(self._terminal, False)

    def write(self, text: str) -> None:
        """Type a text."""
        os.write(self._terminal, text.encode())

    def until(self, text: str) -> str:
        """Read until a text is there, and return all that was written."""
        eventually(lambda: self._read() and text in self.seen, f"{text!r} on the terminal")
        return self.seen

    def _read(self) -> bool:
        with contextlib.suppress(BlockingIOError, OSError):  # the other end is closed when the program has ended
            while piece := os.read(self._terminal, 65_536):
                self.seen += piece.decode()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)
