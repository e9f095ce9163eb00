"""A function in a cell asks nobody: `input()`, `getpass()` and the debugger's prompt raise `EOFError` in it.

ipykernel would send the question to the browser, from whichever thread, and the function would wait for an answer that
no cell shows a field for. A compute module has nobody to ask either.
"""

from __future__ import annotations

import bdb
import builtins
import functools
import getpass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cmemu_nb.ipython import current_shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = "{} in a function has nobody to ask. {}"
GIVE_IT = (
    "Give the function what it needs in its event, or call it without the emulator in a cell: my_function({}, event)."
)
STEP = "To step through it, call it without the emulator in a cell: my_function({}, event)."
_KERNEL_ASKS = {"raw_input": "input()", "getpass": "getpass()", "_input_request": "A prompt"}


def refuse_prompts(in_job: Callable[[], bool]) -> None:
    """Have prompts raise `EOFError` where `in_job()` is true; elsewhere they work as before. May be called again.

    ipykernel puts its own functions in place of Python's at the beginning of each cell, so those are replaced too.
    """
    for holder, name, asks in _places():
        current = getattr(holder, name, None)
        if current is not None and not hasattr(current, "_beneath"):
            setattr(holder, name, _refusing(current, asks, in_job))


def _places() -> Iterator[tuple[Any, str, str]]:
    yield builtins, "input", NOBODY.format("input()", GIVE_IT)
    yield getpass, "getpass", NOBODY.format("getpass()", GIVE_IT)
    yield bdb.Bdb, "set_trace", NOBODY.format("The debugger", STEP)
    kernel = getattr(current_shell(), "kernel", None)
    if kernel is not None:
        for name, what in _KERNEL_ASKS.items():
            yield kernel, name, NOBODY.format(what, GIVE_IT)


def _refusing(beneath: Callable[..., Any], message: str, in_job: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(beneath)
    def ask(*arguments: Any, **keywords: Any) -> Any:
        if in_job():
            raise EOFError(message)
        return beneath(*arguments, **keywords)

    vars(ask)["_beneath"] = beneath
    return ask


def allow_prompts() -> None:
    """Put back what was there before `refuse_prompts`."""
    for holder, name, _ in _places():
        beneath = getattr(getattr(holder, name, None), "_beneath", None)
        if beneath is None:
            continue
        if isinstance(holder, type | ModuleType):
            setattr(holder, name, beneath)
        else:
            delattr(holder, name)  # an object's own, in front of its class's method
