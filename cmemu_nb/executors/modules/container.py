"""Run a container until it ends, and end it with this process: `python container.py NAME ENGINE run ...`. POSIX only.

`docker run` is a client: if it is killed, its container runs on. It passes SIGTERM on to the container's program, which
ignores it if it has no handler, because it is the container's first process; so the container is then killed.

It runs as a process of its own, so this file imports nothing of the package.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from typing import NoReturn

TERMINATION_SECONDS = 1.0


class _Terminated(Exception):
    pass


def main(name: str, command: list[str]) -> int:
    """Run the command, which runs a container of this name; return its exit code as `subprocess` has it."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        client = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603
    except _Terminated:
        return -signal.SIGTERM
    try:
        return client.wait()
    except _Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(TERMINATION_SECONDS)
        for verb in (["kill"], ["rm", "--force"]):
            _run_apart([command[0], *verb, name])
        return client.wait()


def _run_apart(command: list[str]) -> None:
    """Run a command in a session of its own, because this process's group may be killed before it has ended."""
    null = subprocess.DEVNULL
    subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True).wait()  # noqa: S603


def _terminate(*_: object) -> NoReturn:
    raise _Terminated


if __name__ == "__main__":
    code = main(sys.argv[1], sys.argv[2:])
    sys.exit(code if code >= 0 else 128 - code)
