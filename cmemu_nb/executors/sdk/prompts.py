"""Prompts in a served function: `input()`, `getpass()` and the debugger's prompt raise `EOFError` there.

ipykernel would send the question to the browser from any thread, and the function would wait for an answer although no
cell shows a field to type it in (https://github.com/ipython/ipykernel/issues/452). A compute module on the platform has
no user to ask either.
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

NO_USER = "{} in a function has no user to ask. {}"
USE_EVENT = (
    "Give the function what it needs in its event, or call it without the emulator in a cell: my_function({}, event)."
)
STEP_IN_CELL = "To step through it, call it without the emulator in a cell: my_function({}, event)."
_KERNEL_PROMPTS = {"raw_input": "input()", "getpass": "getpass()", "_input_request": "A prompt"}


def refuse_prompts(in_job: Callable[[], bool]) -> None:
    """Make prompts raise `EOFError` where `in_job()` is true; elsewhere they work as before. May be called again.

    ipykernel replaces Python's functions by its own at the beginning of each cell, so the kernel's are replaced too.
    """
    for holder, name, message in _prompts():
        current = getattr(holder, name, None)
        if current is not None and not hasattr(current, "_original"):
            setattr(holder, name, _refusing(current, message, in_job))


def _prompts() -> Iterator[tuple[Any, str, str]]:
    """Yield each function that prompts: the object that holds it, its name there, and the message of its error."""
    yield builtins, "input", NO_USER.format("input()", USE_EVENT)
    yield getpass, "getpass", NO_USER.format("getpass()", USE_EVENT)
    yield bdb.Bdb, "set_trace", NO_USER.format("The debugger", STEP_IN_CELL)
    kernel = getattr(current_shell(), "kernel", None)
    if kernel is not None:
        for name, what in _KERNEL_PROMPTS.items():
            yield kernel, name, NO_USER.format(what, USE_EVENT)


def _refusing(original: Callable[..., Any], message: str, in_job: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(original)
    def prompt(*arguments: Any, **keywords: Any) -> Any:
        if in_job():
            raise EOFError(message)
        return original(*arguments, **keywords)

    vars(prompt)["_original"] = original
    return prompt


def restore_prompts() -> None:
    """Undo `refuse_prompts`."""
    for holder, name, _ in _prompts():
        original = getattr(getattr(holder, name, None), "_original", None)
        if original is None:
            continue
        if isinstance(holder, type | ModuleType):
            setattr(holder, name, original)
        else:
            delattr(holder, name)  # an attribute of the object, which hides its class's method
