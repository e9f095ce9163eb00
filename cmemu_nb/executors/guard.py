"""Runs one program and ends it with whoever launched it: `python guard.py COMMAND...`. POSIX only.

It is a program of its own, without imports of the package. Its standard input is a pipe of which the launcher
holds the other end: when that closes, because the launcher closed it or died, however suddenly, the program's
whole process group is ended. Its exit code is the program's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys

PATIENCE_SECONDS = 3.0
NOT_FOUND = 127


def main(command: list[str]) -> int:
    """Run the command until it ends or the launcher is gone."""
    ended_read, ended_write = os.pipe()
    # Written to when a child ends, which wakes the select below.
    os.set_blocking(ended_write, False)
    signal.set_wakeup_fd(ended_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return NOT_FOUND
    while program.poll() is None:
        ready, _, _ = select.select([0, ended_read], [], [])
        if 0 in ready and os.read(0, 1) == b"":
            _end(program)
        if ended_read in ready:
            os.read(ended_read, 4096)
    _signal(program, signal.SIGKILL)  # whatever it left running
    return program.returncode


def _end(program: subprocess.Popen[bytes]) -> None:
    _signal(program, signal.SIGTERM)
    try:
        program.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        _signal(program, signal.SIGKILL)
        program.wait()


def _signal(program: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(program.pid, number)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # As shells say it: a program that was killed by signal N ends with 128 + N.
    sys.exit(code if code >= 0 else 128 - code)
