"""Alternatives to a type hint that the official SDK does not know, or that it accepts although each job would break."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections import abc
from enum import Enum
from typing import Any

# By a class's package and name: the annotation to use instead, and how the function makes the value from it.
_CLASSES = {
    "uuid.UUID": ("str", "uuid.UUID({})"),
    "datetime.time": ("str", "datetime.time.fromisoformat({})"),
    "datetime.timedelta": ("float for the seconds", "datetime.timedelta(seconds={})"),
    "pathlib.PurePath": ("str", "pathlib.Path({})"),
    "numpy.bool": ("bool", ""),
    "numpy.bool_": ("bool", ""),
    "numpy.integer": ("int", ""),
    "numpy.floating": ("float", ""),
    "numpy.ndarray": ("list[float]", "numpy.array({})"),
    "pandas.DataFrame": ("list[...] of a dataclass that is a row", "pandas.DataFrame({})"),
    "pandas.Series": ("list[float]", "pandas.Series({})"),
    "pandas.Timestamp": ("datetime.datetime", "pandas.Timestamp({})"),
    "builtins.bytearray": ("bytes", "bytearray({})"),
    "builtins.complex": ("a field for each of its parts", ""),
    "builtins.tuple": ("list[...], or a dataclass with a field for each", ""),
    "builtins.list": ("list[...] with the type of its items, such as list[int]", ""),
    "builtins.set": ("set[...] with the type of its items, such as set[int]", ""),
    "builtins.frozenset": ("set[...]", ""),
    "builtins.dict": ("dict[..., ...] with the types of its keys and values, such as dict[str, int]", ""),
}
_UNTYPED = "leave its event without an annotation"
_LISTS = (abc.Sequence, abc.MutableSequence, abc.Collection, list)
_STREAMS = (abc.Iterator, abc.Generator)
_SETS = (frozenset, abc.Set, abc.MutableSet)


def instead_of(hint: Any, path: str, *, result: bool = False) -> str | None:
    """Return a sentence that says what to write instead, None if there is no advice beyond the SDK's list of types.

    `path` is the value's name in the function, such as `event.at`. For a `result` no conversion is suggested, because
    the function does not receive it.
    """
    if typing.get_origin(hint) is None and inspect.isclass(hint):
        return _instead_of_class(hint, path, result=result)
    return _instead_of_form(hint)


def _instead_of_class(kind: type, path: str, *, result: bool) -> str | None:
    for base in kind.__mro__:
        name = f"{base.__module__.partition('.')[0]}.{base.__qualname__}"
        if name in _CLASSES and not hasattr(kind, "_fields"):  # a named tuple has fields, unlike other tuples
            return _use(*_CLASSES[name], path, result=result)
    if kind in (object, Any):
        return "Write its type." if result else f"Write its type, or let the function receive the dict: {_UNTYPED}."
    if issubclass(kind, Enum):
        values = " or ".join(sorted({type(each.value).__name__ for each in kind})) or "str"
        return _use(values, f"{kind.__name__}({{}})", path, result=result)
    if dataclasses.is_dataclass(kind):
        return _dataclass_problem(kind, path)
    if hasattr(kind, "model_validate"):
        otherwise = "" if result else f", or {_UNTYPED} and write {kind.__name__}(**...) in the function"
        return f"Make {kind.__name__} a dataclass{otherwise}."
    return None


def _use(what: str, conversion: str, path: str, *, result: bool) -> str:
    then = f", and {conversion.format(path)} in the function" if conversion and not result else ""
    return f"Use {what}{then}."


def _dataclass_problem(kind: Any, path: str) -> str | None:
    """Return which field of a dataclass is not a positional parameter: the SDK looks for all of them there."""
    for each in dataclasses.fields(kind):
        if not each.init:
            return f"{path}.{each.name} is not a parameter of {kind.__name__}: drop init=False, and its annotation."
        if each.kw_only:
            return f"{path}.{each.name} is a keyword-only field of {kind.__name__}: drop kw_only."
    hints: dict[str, Any] = inspect.get_annotations(kind)
    for name, hint in hints.items():
        if typing.get_origin(hint) is typing.Annotated:
            return f"{path}.{name} is Annotated: write {format_hint(typing.get_args(hint)[0])}."
        if hint is None:
            return f"{path}.{name} is annotated as None: write its type."
    return None


def _instead_of_form(hint: Any) -> str | None:
    origin: Any = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    inside = ", ".join(map(format_hint, arguments)) or "..."
    forms: list[tuple[bool, str]] = [
        (isinstance(hint, str | typing.ForwardRef), _NAMES),
        (hint is dataclasses.KW_ONLY, "Leave it out: the SDK looks for the fields among the positional parameters."),
        (isinstance(hint, dataclasses.InitVar), "Make it a field."),
        (typing.ClassVar in (hint, origin), "Write it without an annotation."),
        (origin is typing.Final, f"Use {inside}."),
        (isinstance(hint, typing.NewType), f"Use {format_hint(getattr(hint, '__supertype__', ''))}."),
        (isinstance(hint, typing.TypeVar), "Write the types out: the SDK knows no generic classes."),
        (origin is typing.Literal, f"Use {_kinds(arguments)}, and check the value in the function."),
        (origin in (typing.Union, types.UnionType), "Use Optional[...], or fields of their own."),
        (origin is tuple, "Use list[...], or a dataclass with a field for each."),
        (origin in _STREAMS, f"Use Iterable[{format_hint(arguments[0]) if arguments else '...'}], which is a stream."),
        (origin in _LISTS, f"Use list[{inside}]."),
        (origin in _SETS, f"Use set[{inside}]."),
        (inspect.isclass(origin) and issubclass(origin, abc.Mapping), f"Use dict[{inside}]."),
        (dataclasses.is_dataclass(origin), "Write the types out: the SDK knows no generic classes."),
    ]
    return next((alternative for found, alternative in forms if found), None)


_NAMES = (
    "Write types, not strings, which it reads without the notebook's names: no quotes, and no 'from __future__ import "
    "annotations'. It has no types that contain themselves."
)


def _kinds(values: tuple[Any, ...]) -> str:
    return " or ".join(sorted({type(each).__name__ for each in values}))


def format_hint(hint: Any) -> str:
    """Return a type hint as it is written in code."""
    if hint is dataclasses.KW_ONLY:
        return "KW_ONLY"
    if isinstance(hint, str | typing.ForwardRef):
        return repr(getattr(hint, "__forward_arg__", hint))
    name = getattr(hint, "__qualname__", None) or getattr(hint, "__name__", None)
    if not name or typing.get_origin(hint) is not None:
        return str(hint).replace("typing.", "").replace("__main__.", "").replace("collections.abc.", "")
    package = hint.__module__.partition(".")[0]
    return f"{package}.{name}" if package in _PACKAGES else str(name)


_PACKAGES = frozenset({"datetime", "decimal", "uuid", "pathlib", "numpy", "pandas"})
