"""Type hints that the official SDK takes though they break when a job comes, and what to write instead.

It gives a function an empty object for an event that it can't convert, and posts an error for a result that it
can't encode. Both can be seen when the function is defined. [foundry: the SDK's payload converter and encoder]
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import inspect
import types
import typing
from collections.abc import Iterable
from typing import Any

from compute_modules.function_registry.types import Byte, Double, Long, Short

Problem = tuple[str, str]

NUMBERS = (Byte, Double, Long, Short)
SCALARS = (bool, int, float, str, bytes, dt.date, dt.datetime, decimal.Decimal, type(None), *NUMBERS)
PLAIN = (str, int, float, bool, type(None))
TYPES = (
    "bool, int, float, str, bytes, datetime.date, datetime.datetime, decimal.Decimal, list[...], set[...], "
    "dict[..., ...], Optional[...], a dataclass or a TypedDict"
)
# Part of what the SDK says, and what helps.
_FIXES = (
    ("context can only be typed", "Annotate it as compute_modules.context.QueryContext, or not at all."),
    ("dict type hints must have", "Say what is in it, such as dict[str, int]."),
    ("Map key must be", "Use str or another plain type as the key."),
    ("Only unions", "Use Optional[...], or fields of their own."),
    ("match init args", "Make it a dataclass."),
    ("init args type annotations", "Make it a dataclass, and leave out 'from __future__ import annotations'."),
    ("should not use *", "Make it a dataclass."),
    (
        "expected a class",
        f"An event is a dataclass or a TypedDict. Fields and results are {TYPES}; a stream is Iterable[...].",
    ),
    (
        "is not defined",
        "It reads annotations without the notebook's names: write types, not strings, and no __future__ annotations.",
    ),
)


def what_to_do(error: Exception) -> str:
    """Say what helps against the SDK's refusal."""
    said = str(error)
    return next((fix for part, fix in _FIXES if part in said), f"It knows {TYPES}.")


def event_problem(hint: Any, path: str) -> Problem | None:
    """Tell why a function could never get an event of this type, and what to do; None if it could."""
    if hint in SCALARS:
        said = f"the SDK makes an empty {_say(hint)} of every event, because it converts events to classes only"
        return f"{path!r} is annotated as {_say(hint)}, and {said}", _event_fix(path)
    return _lost(hint, path)


def _event_fix(path: str) -> str:
    return f"Leave {path!r} without annotation to get the dict, or annotate a dataclass or TypedDict with its fields."


def _lost(hint: Any, path: str) -> Problem | None:
    if inspect.isclass(hint) and hint not in SCALARS:
        fields = get_fields(hint)
        if not fields and not (dataclasses.is_dataclass(hint) or typing.is_typeddict(hint)):
            reason = f"{path!r} is annotated as {_say(hint)}, which has no annotated fields, so the SDK would hand it "
            return f"{reason}over empty, whatever was sent", _event_fix(path) if "." not in path else _say_types(path)
        return _first(_lost(part, f"{path}.{name}") for name, part in fields.items())
    return _first(_lost(part, path) for part in typing.get_args(hint))


def _say_types(path: str) -> str:
    return f"Annotate {path!r} with one of {TYPES}."


def result_problem(hint: Any, *, streaming: bool) -> Problem | None:
    """Tell why a result of this type could never be posted, and what to do; None if it could."""
    if streaming and typing.get_origin(hint) in (list, set, Iterable):
        return _unencodable(typing.get_args(hint)[0], streamed=True)
    return _unencodable(hint, streamed=False)


def _unencodable(hint: Any, *, streamed: bool) -> Problem | None:
    if hint in NUMBERS or hint is Any:
        return None
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        parts = typing.get_args(hint)
        # Other unions are ontology edits, which have an encoding of their own.
        return _first(_unencodable(part, streamed=streamed) for part in parts) if type(None) in parts else None
    if origin is dict:
        key, value = typing.get_args(hint)
        return _bad_key(key) or _unencodable(value, streamed=streamed)
    if origin in (list, Iterable):
        return _unencodable(typing.get_args(hint)[0], streamed=streamed)
    return _unencodable_class(origin or hint, streamed=streamed)


def _unencodable_class(kind: Any, *, streamed: bool) -> Problem | None:
    if (dataclasses.is_dataclass(kind) and not streamed) or typing.is_typeddict(kind):
        return _first(_unencodable(part, streamed=streamed) for part in get_fields(kind).values())
    if not inspect.isclass(kind) or kind is object or issubclass(kind, (*PLAIN, list, tuple, dict)):
        return None
    if issubclass(kind, dt.date) and not streamed:
        return None
    what = f"items of type {_say(kind)} in a stream" if streamed else f"results of type {_say(kind)}"
    return f"the SDK can't encode {what} as JSON, so every job would end as an error", _result_fix(kind)


def _result_fix(kind: Any) -> str:
    instead = {set: "list[...]", frozenset: "list[...]", dt.date: "str", dt.datetime: "str", bytes: "str"}
    return f"Use {instead.get(kind, 'a str or a float' if kind is decimal.Decimal else 'a dict')} instead."


def _bad_key(key: Any) -> Problem | None:
    if key in NUMBERS or (inspect.isclass(key) and issubclass(key, PLAIN)):
        return None
    return f"a JSON object can't have keys of type {_say(key)}, so every job would end as an error", "Use str keys."


def get_fields(kind: Any) -> dict[str, Any]:
    """Return a class's annotated fields as the SDK sees them."""
    return typing.get_type_hints(kind, globalns={})


def _first(problems: Iterable[Problem | None]) -> Problem | None:
    return next((problem for problem in problems if problem), None)


def _say(hint: Any) -> str:
    return getattr(hint, "__qualname__", None) or getattr(hint, "__name__", None) or str(hint)
