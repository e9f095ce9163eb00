"""What a test may leave behind: nothing.

Threads, open files, sockets, child processes, tasks, the files of live emulators and an exception that is still being
handled are compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import socket
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cmemu_nb.storage import live_file
from cmemu_nb.storage.private_files import PREFIX

if TYPE_CHECKING:
    from cmemu_nb import Emulator

# Both are of Linux; elsewhere there are threads and tasks to look at.
OPEN_FILES = Path("/proc/self/fd")
CHILDREN = Path("/proc/self/task")
# One for all clients, which lives as long as the process.
OF_DASK = "Dask-Callback-Thread"
LOCK = re.compile(rf"/{PREFIX}\w+/lock")
LEAVE_SECONDS = 10.0
COLLECT_SECONDS = 0.1
LOOK_SECONDS = 0.001


class Leaks:
    """What this process held in the beginning; of an `emulator` that outlives the test also the tasks."""

    def __init__(self, emulator: Emulator | None) -> None:
        self._emulator = emulator
        self._before = self._held()

    def left(self) -> list[str]:
        """Return what has come since and does not go away within ten seconds."""
        start = time.monotonic()
        while left := self._held() - self._before:
            passed = time.monotonic() - start
            if passed > LEAVE_SECONDS:
                break
            if passed > COLLECT_SECONDS:
                gc.collect()  # what waits for the collector is not left behind
            time.sleep(LOOK_SECONDS)
        return sorted(map(_named, left.elements()))

    def _held(self) -> Counter[str]:
        threads = [each for each in threading.enumerate() if not each.name.startswith(OF_DASK)]
        held = Counter(f"thread {thread.name} ({thread.ident})" for thread in threads)
        held.update(_children())
        held.update(_open_files().values())
        held.update(f"live file {path}" for path in live_file.folder().glob(f"cmemu-{os.getpid()}*"))
        if (handled := sys.exc_info()[1]) is not None:
            held[f"exception {handled!r} that is being handled"] += 1
        if self._emulator is not None:
            held.update(self._emulator.change(partial(_tasks, self._emulator)))
        return held


def _tasks(emulator: Emulator, _: object) -> list[str]:
    emulator.client.close()  # it keeps its idle connections for a while
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    named = [f"task {task.get_name()} of {task.get_coro()!r}" for task in tasks]
    # The guard looks after connections, and ends some seconds after the last of them.
    return [name for name in named if " Guard._inspect_all " not in name]


def _children() -> list[str]:
    found = []
    for thread in CHILDREN.glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has just ended
            found += [f"process {number}" for number in thread.read_text().split()]
    return found


def _open_files() -> dict[str, str]:
    """Return what each open file number leads to."""
    found = {}
    for number in OPEN_FILES.iterdir() if OPEN_FILES.is_dir() else ():
        with contextlib.suppress(OSError):  # what listed them was one itself
            found[number.name] = str(number.readlink())
    # An emulator that was stopped keeps its private directory, and pytest an emulator whose call has raised.
    return {number: target for number, target in found.items() if not LOCK.search(target)}


def _named(held: str) -> str:
    """Add to a socket's number where it leads, and to a process's what it runs."""
    with contextlib.suppress(OSError, StopIteration):
        if held.startswith("process "):
            return f"{held}: {Path('/proc', held.split()[1], 'cmdline').read_text()}"
        if held.startswith("socket:"):
            number = next(number for number, target in _open_files().items() if target == held)
            with socket.socket(fileno=os.dup(int(number))) as copy:
                return f"{held} from {copy.getsockname()} to {copy.getpeername()}"
    return held
