"""Type hints that the official SDK refuses, or accepts although each job would break, and what to write instead.

For an event that it can't convert, the SDK gives the function an empty object. It passes an optional value on
unconverted. For a result that it can't encode, it posts an error. All of this can be detected when the function is
defined. [foundry: the SDK's schema parser, payload converter and encoder]
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import inspect
import types
import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from compute_modules.function_registry.types import Byte, Double, Long, Short

from cmemu_nb.executors.sdk.alternatives import format_hint, instead_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Problem = tuple[str, str]

NUMBERS = (Byte, Double, Long, Short)
SCALARS = (bool, int, float, str, bytes, dt.date, dt.datetime, decimal.Decimal, type(None), *NUMBERS)
PLAIN = (str, int, float, bool, type(None))
TYPES = (
    "bool, int, float, str, bytes, datetime.date, datetime.datetime, decimal.Decimal, list[...], set[...], "
    "dict[..., ...], Optional[...], a dataclass or a TypedDict"
)
# Part of an error message of the SDK, and what helps.
_FIXES = (
    ("context can only be typed", "Annotate it as compute_modules.context.QueryContext, or not at all."),
    ("dict type hints must have", "Write what it contains, such as dict[str, int]."),
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


def find_fix(error: Exception) -> str:
    """Return a sentence on how to avoid the SDK's error."""
    message = str(error)
    return next((fix for part, fix in _FIXES if part in message), f"It knows {TYPES}.")


def refusal(hint: Any, path: str, error: Exception, refuses: Callable[[Any], Exception | None]) -> Problem:
    """Return which part of a hint the SDK refuses, with its error message, and what to do.

    `refuses(part)` returns the SDK's error for a part alone, None if the SDK accepts it.
    """
    path, part, error = _refused_part(hint, path, error, refuses)
    in_result = path.startswith(RESULT)
    # An alternative that is no class would not help for the event itself: it must be a class, whatever its fields are.
    has_alternative = in_result or "." in path or inspect.isclass(part) or isinstance(part, str)
    fix = instead_of(part, path, result=in_result) if has_alternative else None
    name = path if in_result else repr(path)
    reason = f"{name} is annotated as {format_hint(part)}, and the official SDK refuses it ({describe_error(error)})"
    return reason, fix or find_fix(error)


RESULT = "its result"


def describe_error(error: Exception) -> str:
    """Return the message of the SDK's error, after its type unless it is a `ValueError`."""
    message = " ".join(map(str, error.args)) or type(error).__name__
    return message if isinstance(error, ValueError) else f"{type(error).__name__}: {message}"


def _refused_part(
    hint: Any, path: str, error: Exception, refuses: Callable[[Any], Exception | None]
) -> tuple[str, Any, Exception]:
    for inner, part in _parts(hint, path):
        if (inner_error := refuses(part)) is not None:
            return _refused_part(part, inner, inner_error, refuses)
    return path, hint, error


def _parts(hint: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a hint that the SDK reads, each with its path."""
    if inspect.isclass(hint) and typing.get_origin(hint) is None:
        if (dataclasses.is_dataclass(hint) or typing.is_typeddict(hint)) and hint not in SCALARS:
            for kind in reversed(hint.__mro__):
                for name, part in inspect.get_annotations(kind).items():
                    yield f"{path}.{name}", part
    elif typing.get_origin(hint) in _CONTAINERS:
        for part in typing.get_args(hint):
            yield path, part


_CONTAINERS = (list, set, dict, Iterable, typing.Union, types.UnionType)


def event_problem(hint: Any, path: str) -> Problem | None:
    """Return why a function could never receive an event of this type, and what to do; None if it could."""
    if hint in SCALARS:
        kind = format_hint(hint)
        reason = f"the SDK makes an empty {kind} of every event, because it converts events to classes only"
        return f"{path!r} is annotated as {kind}, and {reason}", _event_fix(path)
    if hint is dict:
        reason = "the SDK converts no event to a dict without types, so every job would end as an error"
        return f"{path!r} is annotated as dict, and {reason}", _event_fix(path)
    return _lost_value(hint, path)


def _event_fix(path: str) -> str:
    return f"Leave {path!r} without an annotation to get the dict, or annotate a dataclass or TypedDict of its fields."


def _lost_value(hint: Any, path: str) -> Problem | None:
    if inspect.isclass(hint) and hint not in SCALARS:
        fields = get_fields(hint)
        if not fields and not (dataclasses.is_dataclass(hint) or typing.is_typeddict(hint)):
            reason = (
                f"{path!r} is annotated as {format_hint(hint)}, which has no annotated fields, so the SDK would pass "
                "an empty one, whatever was sent"
            )
            return reason, _event_fix(path) if "." not in path else instead_of(hint, path) or _list_types(path)
        return _first(_lost_value(part, f"{path}.{name}") for name, part in fields.items())
    if typing.get_origin(hint) is set and (problem := _unhashable(typing.get_args(hint)[0], path)):
        return problem
    return _first(_lost_value(part, path) for part in typing.get_args(hint))


def _unhashable(hint: Any, path: str) -> Problem | None:
    kind = typing.get_origin(hint) or hint
    if getattr(kind, "__hash__", None) is not None and not typing.is_typeddict(kind):
        return None
    fix = "@dataclass(frozen=True) makes it hashable." if dataclasses.is_dataclass(kind) else ""
    kind = format_hint(hint)
    reason = f"{path!r} is annotated as a set of {kind}, which is not hashable, so every job would end as an error"
    return reason, f"Use list[{kind}].{' ' if fix else ''}{fix}"


def _list_types(path: str) -> str:
    return f"Annotate {path!r} with one of {TYPES}."


def result_problem(hint: Any, *, streaming: bool) -> Problem | None:
    """Return why a result of this type could never be posted, and what to do; None if it could."""
    if streaming and typing.get_origin(hint) in (list, set, Iterable):
        return _unencodable(typing.get_args(hint)[0], streamed=True)
    return _unencodable(hint, streamed=False)


def _unencodable(hint: Any, *, streamed: bool) -> Problem | None:
    if hint in NUMBERS or hint is Any:
        return None
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        parts = typing.get_args(hint)
        # Other unions are ontology edits, which the SDK encodes in a way of their own.
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
    what = f"items of type {format_hint(kind)} in a stream" if streamed else f"results of type {format_hint(kind)}"
    return f"the SDK can't encode {what} as JSON, so every job would end as an error", _result_fix(kind)


def _result_fix(kind: Any) -> str:
    if kind in (set, frozenset):
        return "Use list[...] instead."
    if kind in (dt.date, dt.datetime, bytes):
        return "Use str instead."
    if kind is decimal.Decimal:
        return "Use a str or a float instead."
    return instead_of(kind, RESULT, result=True) or "Use a dict instead."


def _bad_key(key: Any) -> Problem | None:
    if key in NUMBERS or (inspect.isclass(key) and issubclass(key, PLAIN)):
        return None
    reason = f"a JSON object can't have keys of type {format_hint(key)}, so every job would end as an error"
    return reason, "Use str keys."


def get_fields(kind: Any) -> dict[str, Any]:
    """Return the type hints of a class's fields as the SDK reads them."""
    return typing.get_type_hints(kind, globalns={})


def _first(problems: Iterable[Problem | None]) -> Problem | None:
    return next((problem for problem in problems if problem), None)


# Hints that the SDK accepts, with a warning


def event_warnings(hint: Any, path: str, *, nested: bool = False) -> Iterator[str]:
    """Yield a warning for each part of an event that the SDK passes on unconverted, against its annotation.

    A value that is `nested` in a list or a map can't have a default.
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inside = next((part for part in typing.get_args(hint) if part is not type(None)), None)
        if _is_converted(inside):
            yield _warn_of_unconverted(inside, path, nested=nested)
    elif inspect.isclass(hint) and hint not in SCALARS and typing.get_origin(hint) is None:
        for name, part in get_fields(hint).items():
            yield from event_warnings(part, f"{path}.{name}")
    else:
        for part in typing.get_args(hint):
            yield from event_warnings(part, path, nested=True)


def _is_converted(hint: Any) -> bool:
    """Return whether the SDK converts the JSON value to another one."""
    origin = typing.get_origin(hint)
    if origin is dict:
        key, value = typing.get_args(hint)
        return key is not str or _is_converted(value)
    if origin is not None:
        return origin is set or any(map(_is_converted, typing.get_args(hint)))
    if typing.is_typeddict(hint):
        return any(map(_is_converted, get_fields(hint).values()))
    return hint in _MADE_FROM_TEXT or (inspect.isclass(hint) and hint not in SCALARS)


_MADE_FROM_TEXT = {
    dt.date: "datetime.date.fromisoformat({})",
    dt.datetime: "datetime.datetime.fromisoformat({})",
    decimal.Decimal: "decimal.Decimal({})",
    bytes: "{}.encode()",
}


def _warn_of_unconverted(hint: Any, path: str, *, nested: bool) -> str:
    what, conversion = "the JSON value", ""
    if hint in _MADE_FROM_TEXT:
        what, conversion = "text", _MADE_FROM_TEXT[hint]
    elif inspect.isclass(hint) and typing.get_origin(hint) is None:
        what, conversion = "a dict", f"{hint.__name__}(**{{}})"
    elif typing.get_origin(hint) is set:
        what, conversion = "a list", "set({})"
    kind = format_hint(hint)
    fixes = [] if nested else [f"annotate it as {kind} with the default None, and it is converted when it is sent"]
    if conversion:
        fixes.append(f"write {conversion.format('each' if nested else path)} in the function")
    fix = "; or ".join(fixes) or "convert it in the function"
    return (
        f"{path!r} is annotated as Optional[{kind}], and the official SDK converts nothing inside of Optional: "
        f"the function gets {what}. {fix[0].upper()}{fix[1:]}."
    )


def result_warnings(hint: Any) -> Iterator[str]:
    """Yield a warning for each part of a result that the SDK's schema describes as a struct without fields."""
    if inspect.isclass(hint) and typing.get_origin(hint) is None:
        if dataclasses.is_dataclass(hint) or typing.is_typeddict(hint):
            for part in get_fields(hint).values():
                yield from result_warnings(part)
            return
        if hint in SCALARS:
            return
    elif hint in NUMBERS:
        return
    elif hint is not Any:
        for part in typing.get_args(hint):
            yield from result_warnings(part)
        return
    yield (
        f"{RESULT} is annotated as {format_hint(hint)}, which is none of the types that the official SDK knows, so the "
        "schema that it posts describes a struct without fields. "
        f"{instead_of(hint, RESULT, result=True) or f'It knows {TYPES}.'}"
    )
