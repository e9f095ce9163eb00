"""The official SDK inside a notebook: its `@function` serves here, and its poller stays off.

`import compute_modules.annotations` makes the SDK poll for ever when the interpreter ends, which would hang the
kernel. While this is in force an `app.py` can be pasted into a cell, or `%run`, as it is.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import compute_modules
from compute_modules import startup
from compute_modules.function_registry import function_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    Serve = Callable[[Callable[..., Any], bool, Sequence[Any]], object]


def take_over(serve: Serve) -> Callable[[], None]:
    """Call `serve(function, streaming, edits)` for what the SDK would register; returns the function that ends it."""
    original, started = function_registry.add_function, startup.DISABLE_STARTUP
    startup.DISABLE_STARTUP = True

    def add_function(
        function_ref: Callable[..., Any], *, streaming: bool = False, edits: list[Any] | None = None
    ) -> None:
        serve(function_ref, streaming, edits or ())

    def give_back() -> None:
        startup.DISABLE_STARTUP = started
        _replace(add_function, original)

    _replace(original, add_function)
    return give_back


def _replace(old: Callable[..., None], new: Callable[..., None]) -> None:
    for module in _modules():
        if getattr(module, "add_function", None) is old:
            vars(module)["add_function"] = new


def _modules() -> list[ModuleType]:
    """Return the modules that have the SDK's `add_function`. Importing `annotations` here would start the poller."""
    annotations = sys.modules.get("compute_modules.annotations")
    return [function_registry, compute_modules, *([annotations] if annotations else [])]
