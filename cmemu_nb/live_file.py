"""What tells other processes of this machine that an emulator runs, and how to reach it: a small file for each.

It is `cmemu-<pid>.json` in Jupyter's runtime directory, for a second emulator of the process `cmemu-<pid>-2.json`, and
so on. It holds the bearer token, so it is for its owner only (0600).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.saved import for_the_owner_only
from cmemu_nb.tokens import Token

if TYPE_CHECKING:
    from cmemu_nb.emulator import Emulator

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
    """The file of one emulator that runs; `close()` removes it, in the process that has written it."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self._identity = identity
        self._pid = os.getpid()

    def close(self) -> None:
        """Remove the file, if it is still this emulator's."""
        if os.getpid() != self._pid:
            return  # a forked child has inherited the object, not the emulator
        remove(self.path, self._identity)


def folder() -> Path:
    """Return Jupyter's runtime directory."""
    from jupyter_core.paths import jupyter_runtime_dir  # noqa: PLC0415 - takes a while to import

    return Path(jupyter_runtime_dir())


def write(emulator: Emulator) -> LiveFile | None:
    """Write the file of an emulator that serves; one that can't be written is an event, and None."""
    application = emulator.application
    try:
        found = LiveEmulator(
            url=emulator.url,
            platform_url=emulator.platform_url,
            token=Token(emulator.token),
            pid=os.getpid(),
            started_at=emulator.started_at,
            id=application.identity,
            hostname=socket.gethostname(),
            cwd=_directory(),
            version=application.version,
        )
        return LiveFile(_write(folder(), found), found.id)
    except (OSError, ValueError, RuntimeError) as error:
        emulator.lifecycle.note("live_file_failed", detail=f"{type(error).__name__}: {error}")
        return None


def _directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was deleted
        return ""


def _write(directory: Path, found: LiveEmulator) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = _reserve(directory)
    part = path.with_name(f".{path.name}")
    try:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        with open(part, "xb", opener=for_the_owner_only) as file:
            file.write(msgspec.json.encode({**msgspec.structs.asdict(found), "token": str(found.token)}))
        part.replace(path)
    except BaseException:
        for each in (part, path):
            with contextlib.suppress(OSError):
                each.unlink()
        raise
    return path


def _reserve(directory: Path) -> Path:
    """Make the first file that is not there yet, empty: another process or thread never gets the same one."""
    for number in itertools.count(1):
        path = directory / f"cmemu-{os.getpid()}{'' if number == 1 else f'-{number}'}.json"
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            return path
    raise AssertionError


def read(path: Path) -> LiveEmulator | None:
    """Read a file; None when it is gone, is being written, or is no such file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=LiveEmulator)
    except (OSError, msgspec.MsgspecError, ValueError):
        return None


def remove(path: Path, identity: str) -> None:
    """Remove a file, if it is still of the emulator with this identity."""
    found = read(path)
    if found is not None and found.id == identity:
        with contextlib.suppress(OSError):
            path.unlink()
