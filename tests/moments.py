"""Interrupt what runs at each of its moments: at these Python looks for signals, so that it is no matter of luck.

A moment is the beginning of a function, before a line, or a return. It runs in kernels as well as in tests.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def interrupted_at(number: int, act: Callable[[], object]) -> bool:
    """Interrupt an act at the moment of that number, and tell whether it was as long as that."""
    return next(_interrupted_at(number, act))


def _interrupted_at(number: int, act: Callable[[], object]) -> Iterator[bool]:
    """Do it in a generator, which has a place of its own for the exception that is being handled.

    CPython 3.11 to 3.13 leaves that of an except clause there for good when a trace function raises at its `return`: in
    this thread it would be the context of every later one. Only a trace function can raise there.
    """
    moments, reached = iter(range(number)), False

    def look(*_: object) -> Any:
        nonlocal reached
        if next(moments, None) is None:
            sys.settrace(None)
            reached = True
            signal.raise_signal(signal.SIGINT)
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        act()
    except KeyboardInterrupt:
        reached = True
    finally:
        sys.settrace(before)
    yield reached


def moments_of(act: Callable[[], object]) -> int:
    """Count the moments of an act."""
    count = 0

    def look(*_: object) -> Any:
        nonlocal count
        count += 1
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        act()
    finally:
        sys.settrace(before)
    return count
