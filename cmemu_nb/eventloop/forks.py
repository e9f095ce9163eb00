"""The closing of sockets and files in forked child processes, which must not hold them."""

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
        """Release it for the other side, or for other processes."""


def close_in_children(things: Iterable[Closable]) -> None:
    """Close sockets or files in forked children, which would otherwise hold them after the emulator has ended."""
    closed_in_children().update(things)


def closed_in_children() -> weakref.WeakSet[Closable]:
    """Return the sockets and files of this process that a forked child closes."""
    # It is kept on sys because %autoreload clears the globals of modules, and the hook must be registered only once.
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
