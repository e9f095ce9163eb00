"""A nanny runs one program and ends it when its launcher ends: `python nanny.py DESCRIPTOR COMMAND...`. POSIX only.

It runs as a process of its own, so this file imports nothing of the package. Its standard input is a pipe, and the
launcher holds the other end. When that end closes, because the launcher closed it or died for any reason, the nanny
ends the program's whole process group. Its exit code is the program's. It writes the program's process id to the
descriptor.

If the nanny itself is killed, Linux ends the program, and the launcher ends the processes that the program started.
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

TERMINATION_SECONDS = 3.0
NOT_FOUND = 127
PR_SET_PDEATHSIG = 1


def main(descriptor: int, command: list[str]) -> int:
    """Run the command until it ends or the launcher ends; return its exit code as `subprocess` has it."""
    ended_read, ended_write = os.pipe()
    # Python writes to it when a child ends, which wakes the select below.
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
    signal_group(program.pid, signal.SIGKILL)  # ends the processes that the program left running
    return program.returncode


def _end_with_parent() -> Callable[[], None]:
    """Return a function that makes Linux kill the process that calls it when its parent, this process, ends."""
    parent, libc = os.getpid(), ctypes.CDLL(None)

    def end_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent has ended already
            os._exit(1)

    return end_with_parent


def _end(program: subprocess.Popen[bytes]) -> None:
    signal_group(program.pid, signal.SIGTERM)
    try:
        program.wait(TERMINATION_SECONDS)
    except subprocess.TimeoutExpired:
        signal_group(program.pid, signal.SIGKILL)
        program.wait()


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process group, if it still exists."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def exit_code(code: int) -> int:
    """Return the exit code of a process as shells report it: 128 + N if signal N killed it."""
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(exit_code(main(int(sys.argv[1]), sys.argv[2:])))
