"""Functions as cells define them, made from text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable  # the SDK reads annotations at run time
from typing import Any

# Made by a call, because the SDK can't read annotations that are strings, as they are in this file.
Sum = dataclasses.make_dataclass("Sum", [("x", int), ("y", int, 2)])
ADD = "def add(context, event: Sum) -> int:\n    return event.x + event.y"


def make(source: str, **names: Any) -> Any:
    """Define a function from text, as a cell would: with annotations that are types."""
    namespace = {"Sum": Sum, "Iterable": Iterable, **names}
    exec(compile(source, "<cell>", "exec", dont_inherit=True), namespace)
    return next(value for name, value in reversed(namespace.items()) if callable(value) and name not in names)
