"""Whether a process group has a connection: it is read from /proc, so nothing is known where there is none."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def has_connection(group: int, port: int, to_port: int) -> bool:
    """Return whether a process of a group has the connection from one local port to another."""
    link = f"socket:[{_inode(port, to_port)}]"
    return any(link in _open_files(pid) for pid in _members(group))


def _inode(port: int, to_port: int) -> str:
    for table in TABLES:
        with contextlib.suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines():
                _, local, remote, *fields = line.split()
                if local.endswith(f":{port:04X}") and remote.endswith(f":{to_port:04X}"):
                    return fields[6]
    return ""


def _members(group: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):  # noqa: PTH208 - only the names are needed
            with contextlib.suppress(OSError):
                if name.isdecimal() and os.getpgid(int(name)) == group:
                    found.append(int(name))
    return found


def _open_files(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # it was closed meanwhile
                found.append(str(descriptor.readlink()))
    return found
