"""What tells other processes of this machine that an emulator runs, and how to reach it: a small file for each.

It is `cmemu-<pid>.json` in Jupyter's runtime directory, for a second emulator of the process `cmemu-<pid>-2.json`, and
so on. It holds the bearer token, so it is for its owner only (0600). Its process holds a lock on it: one without a lock
was left by a process that was killed, and the next emulator that starts removes it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from cmemu_nb.errors import NotPrivate
from cmemu_nb.eventloop.forks import close_in_children
from cmemu_nb.storage.owner_only import check_shared_folder, is_ours, made_anew, without_following
from cmemu_nb.storage.private_files import is_locked_now
from cmemu_nb.version import __version__

if TYPE_CHECKING:
    from cmemu_nb.lifecycle.lifecycle import Lifecycle

PATTERN = "cmemu-*.json"


class LiveEmulator(msgspec.Struct, frozen=True):
    """What a file says: `id` is what the emulator's health route answers, `started_at` is Unix nanoseconds."""

    url: str
    platform_url: str
    token: str
    pid: int
    started_at: int
    id: str
    hostname: str
    cwd: str
    version: str

    def __repr__(self) -> str:
        return f"<LiveEmulator at {self.url}, process {self.pid}>"


class LiveFile:
    """The file of one emulator that runs; `close()` removes it, in the process that has written it.

    `lock` is the open file, locked for as long as the process lives.
    """

    def __init__(self, path: Path, identity: str, lock: IO[bytes]) -> None:
        self.path = path
        self._identity = identity
        self._lock = lock
        self._pid = os.getpid()

    def close(self) -> None:
        """Remove the file, if it is still this emulator's."""
        if os.getpid() != self._pid:
            return  # a forked child has inherited the object, not the emulator
        remove(self.path, self._identity)
        self._lock.close()


def folder() -> Path:
    """Return Jupyter's runtime directory."""
    from jupyter_core.paths import jupyter_runtime_dir  # noqa: PLC0415 - takes a while to import

    return Path(jupyter_runtime_dir())


def write(lifecycle: Lifecycle, **known: Any) -> LiveFile | None:
    """Write the file of an emulator that serves; one that can't be written is an event, and None.

    `known` are the fields of a `LiveEmulator` that this process can't find out by itself.
    """
    try:
        found = LiveEmulator(
            pid=os.getpid(), hostname=socket.gethostname(), cwd=_directory(), version=__version__, **known
        )
        where = folder()
        remove_left_files(where)
        return _write(where, found)
    except (OSError, ValueError, RuntimeError, NotPrivate) as error:
        lifecycle.note("live_file_failed", detail=f"{type(error).__name__}: {error}")
        return None


def _directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was deleted
        return ""


def _write(directory: Path, found: LiveEmulator) -> LiveFile:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_shared_folder(directory)
    path = _reserve(directory)
    part = path.with_name(f".{path.name}")
    try:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        file = open(part, "xb", opener=made_anew)  # noqa: SIM115 - kept open
        is_locked_now(file)
        file.write(msgspec.json.encode({**msgspec.structs.asdict(found), "token": str(found.token)}))
        file.flush()
        if sys.platform == "win32":  # where an open file can't be renamed, and a locked one can't be read
            file.close()
        part.replace(path)
    except BaseException:
        for each in (part, path):
            with contextlib.suppress(OSError):
                each.unlink()
        raise
    close_in_children([file])
    return LiveFile(path, found.id, file)


def _reserve(directory: Path) -> Path:
    """Make the first file that is not there yet, empty: another process or thread never gets the same one."""
    for number in itertools.count(1):
        path = directory / f"cmemu-{os.getpid()}{'' if number == 1 else f'-{number}'}.json"
        with contextlib.suppress(FileExistsError):
            open(path, "xb", opener=made_anew).close()
            return path
    raise AssertionError


def read(path: Path) -> LiveEmulator | None:
    """Read a file; None when there is none, when it is being written, another user's, or no such file."""
    try:
        with open(path, "rb", opener=without_following) as file:
            return _decoded(file.read()) if is_ours(os.fstat(file.fileno())) else None
    except OSError:
        return None


def remove(path: Path, identity: str) -> None:
    """Remove a file, if it is still of the emulator with this identity."""
    found = read(path)
    if found is not None and found.id == identity:
        with contextlib.suppress(OSError):
            path.unlink()


def remove_left_files(directory: Path) -> None:
    """Remove the files of this user's processes on this machine that were killed."""
    if sys.platform != "win32":
        for path in (*directory.glob(PATTERN), *directory.glob(f".{PATTERN}")):
            with contextlib.suppress(OSError):
                _remove_if_left(path)


def _remove_if_left(path: Path) -> None:
    with open(path, "rb", opener=without_following) as file:
        found = _decoded(file.read())
        if found is not None and found.hostname != socket.gethostname():
            return  # of another machine with the same home directory nothing can be said
        # One that can't be read is being written, for as long as its process lives.
        left = is_locked_now(file) if found is not None else _ended(path)
        if left and is_ours(os.fstat(file.fileno())):
            path.unlink()


def _ended(path: Path) -> bool:
    """Return whether the process that a file's name has, has ended."""
    number = re.fullmatch(r"\.?cmemu-(\d+)(?:-\d+)?\.json", path.name)
    if number is None:
        return False
    try:
        os.kill(int(number[1]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _decoded(content: bytes) -> LiveEmulator | None:
    try:
        return msgspec.json.decode(content, type=LiveEmulator)
    except (msgspec.MsgspecError, ValueError):
        return None
