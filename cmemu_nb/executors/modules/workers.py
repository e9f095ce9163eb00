"""The worker processes of a launched program: the Python SDK forks them, and loses the job of one that dies [foundry].

They are read from /proc, so nothing is known of them where there is none. A program that Python executes anew in each
worker, as it does for the start methods `spawn` and `forkserver`, has none here.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MAX_KNOWN = 10_000


class Workers:
    """The workers that a program had when each of its unfinished jobs started."""

    def __init__(self) -> None:
        self._is_worker: dict[int, bool] = {}
        self._at_start: dict[str, list[int]] = {}

    def note(self, pid: int, job_id: str, held: dict[str, None]) -> None:
        """Note which workers the program with this process id has, for a job that starts, and forget ended jobs."""
        if len(self._is_worker) > MAX_KNOWN:
            self._is_worker.clear()
        children = _children(pid)
        for child in children:
            if child not in self._is_worker:
                self._is_worker[child] = _command(child) == _command(pid)
        self._at_start = {each: at_start for each, at_start in self._at_start.items() if each in held}
        self._at_start[job_id] = [child for child in children if self._is_worker[child]]

    def lost(self, pid: int, job_id: str) -> list[int]:
        """Return the workers that have ended since a job started."""
        at_start = self._at_start.get(job_id, [])
        return [child for child in at_start if _command(child) != _command(pid)]


def _children(pid: int) -> list[int]:
    """Return the processes that any thread of a process has started."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - this is done for every job
            with contextlib.suppress(OSError):
                found.extend(map(int, Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split()))
    return found


def _command(pid: int) -> bytes:
    """Return the command line of a process, b"" for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
