"""What a forked child must not hold: sockets and files that are closed in it."""

from __future__ import annotations

import os
import sys
import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable


class Closable(Protocol):
    """A socket or a file."""

    def close(self) -> None:
        """Let the other side, or other processes, have it."""


def close_in_children(things: Iterable[Closable]) -> None:
    """Close sockets or files in forked children, which would hold them when the emulator is long gone."""
    closed_in_children().update(things)


def closed_in_children() -> weakref.WeakSet[Closable]:
    """Return the sockets and files of this process that a forked child closes."""
    # On sys: a module's globals are wiped by %autoreload, and the hook can be registered only once.
    listening: weakref.WeakSet[Closable] | None = getattr(sys, "_cmemu_nb_listening", None)
    if listening is None:
        listening = weakref.WeakSet()
        sys._cmemu_nb_listening = listening  # type: ignore[attr-defined]  # noqa: SLF001
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: close(list(listening)))
    return listening


def close(things: Iterable[Closable]) -> None:
    """Close sockets or files."""
    for each in things:
        each.close()
