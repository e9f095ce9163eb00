"""Runs one program and ends it with whoever launched it: `python nanny.py DESCRIPTOR COMMAND...`. POSIX only.

It is a program of its own, without imports of the package. Its standard input is a pipe of which the launcher
holds the other end: when that closes, because the launcher closed it or died, however suddenly, the program's
whole process group is ended. Its exit code is the program's. The program's process id is written to the descriptor.

Should the guard itself be killed, Linux ends the program; the launcher ends what the program has started.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_SECONDS = 3.0
NOT_FOUND = 127
PR_SET_PDEATHSIG = 1


def main(descriptor: int, command: list[str]) -> int:
    """Run the command until it ends or the launcher is gone."""
    ended_read, ended_write = os.pipe()
    # Written to when a child ends, which wakes the select below.
    os.set_blocking(ended_write, False)
    signal.set_wakeup_fd(ended_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        program = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_parent() if sys.platform == "linux" else None,  # noqa: PLW1509 - there are no threads
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return NOT_FOUND
    os.write(descriptor, str(program.pid).encode())
    while program.poll() is None:
        ready, _, _ = select.select([0, ended_read], [], [])
        if 0 in ready and os.read(0, 1) == b"":
            _end(program)
        if ended_read in ready:
            os.read(ended_read, 4096)
    _signal(program, signal.SIGKILL)  # whatever it left running
    return program.returncode


def _end_with_parent() -> Callable[[], None]:
    """Return what has Linux kill the process that calls it when its parent, this process, ends."""
    parent, libc = os.getpid(), ctypes.CDLL(None)

    def end_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)

    return end_with_parent


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
    code = main(int(sys.argv[1]), sys.argv[2:])
    # As shells say it: a program that was killed by signal N ends with 128 + N.
    sys.exit(code if code >= 0 else 128 - code)
