"""The live file: a small file for each running emulator, by which other processes on this machine find and reach it.

It is `cmemu-<pid>.json` in Jupyter's runtime directory; for a second emulator of the same process it is
`cmemu-<pid>-2.json`, and so on. It contains the bearer token, so only its owner can read it (0600). Its process holds a
lock on it: a file without a lock was left by a process that was killed, and the next emulator that starts removes it.
Beside it may be a file `.html`, by which a browser opened the dashboard; it ends with it.
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
from cmemu_nb.storage.owner_only import check_shared_folder, is_ours, made_anew, replacing, without_following
from cmemu_nb.storage.private_files import is_locked_now
from cmemu_nb.version import __version__

if TYPE_CHECKING:
    from cmemu_nb.lifecycle.lifecycle import Lifecycle

PATTERN = "cmemu-*.json"
PAGE = ".html"


class LiveEmulator(msgspec.Struct, frozen=True):
    """The content of a live file. `id` is the id that the health route answers; `started_at` is in Unix nanoseconds."""

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
    """The file of one running emulator. `close()` removes it, in the process that wrote it.

    `lock` is the open file, which is locked for as long as the process lives.
    """

    def __init__(self, path: Path, identity: str, lock: IO[bytes]) -> None:
        self.path = path
        self._identity = identity
        self._lock = lock
        self._pid = os.getpid()

    def close(self) -> None:
        """Remove the file if it is still the file of this emulator."""
        if os.getpid() != self._pid:
            return  # a forked child inherits the object, but not the emulator
        remove(self.path, self._identity)
        self._lock.close()


def folder() -> Path:
    """Return Jupyter's runtime directory."""
    from jupyter_core.paths import jupyter_runtime_dir  # noqa: PLC0415 - takes a while to import

    return Path(jupyter_runtime_dir())


def write(lifecycle: Lifecycle, **known: Any) -> LiveFile | None:
    """Write the file of a running emulator. If it can't be written, add an event and return None.

    `known` are the fields of a `LiveEmulator` that only the emulator knows.
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
    except OSError:  # the directory was deleted
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
        if sys.platform == "win32":  # there, an open file can't be renamed, and a locked file can't be read
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
    """Create an empty file under the first free name, so that another process or thread never gets the same one."""
    for number in itertools.count(1):
        path = directory / f"cmemu-{os.getpid()}{'' if number == 1 else f'-{number}'}.json"
        with contextlib.suppress(FileExistsError):
            open(path, "xb", opener=made_anew).close()
            return path
    raise AssertionError


def read(path: Path) -> LiveEmulator | None:
    """Return the content of a file; None if it is missing, incomplete, another user's, or not a live file."""
    try:
        with open(path, "rb", opener=without_following) as file:
            return _decoded(file.read()) if is_ours(os.fstat(file.fileno())) else None
    except OSError:
        return None


def remove(path: Path, identity: str) -> None:
    """Remove a file if it is still the file of the emulator with this identity."""
    found = read(path)
    if found is not None and found.id == identity:
        with contextlib.suppress(OSError):
            _unlink(path)


def write_page(token: str, content: bytes) -> Path | None:
    """Write an HTML page beside the file of the emulator with this bearer token, and return the path of the page.

    Only its owner can read it. Returns None if no emulator here has the token; raises `NotPrivate` if it can't be
    written.
    """
    for path in folder().glob(PATTERN):
        found = read(path)
        if found is not None and found.token == token:
            page = path.with_suffix(PAGE)
            with replacing(page, NotPrivate, overwrite=True) as file:
                file.write(content)
            return page
    return None


def _unlink(path: Path) -> None:
    path.with_suffix(PAGE).unlink(missing_ok=True)
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
            return  # another machine shares the home directory, and its processes can't be checked here
        # A file that can't be decoded is being written, if its process is alive.
        left = is_locked_now(file) if found is not None else _ended(path)
        if left and is_ours(os.fstat(file.fileno())):
            _unlink(path)


def _ended(path: Path) -> bool:
    """Return whether the process whose id is in a file's name has ended."""
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
