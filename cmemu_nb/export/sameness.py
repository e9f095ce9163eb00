"""The check that a source text, and the current values of its global names, still belong to a function or class."""

from __future__ import annotations

import ast
import inspect
import re
import typing
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Statement = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def outdated(statement: Statement, value: Any, namespace: Mapping[str, Any]) -> str | None:
    """Return the annotation, default or base of a function or class whose value is outdated, or None.

    It is outdated if its expression has another value now, for example because a class was defined again.
    """
    for name, node, then in _made_with(statement, value):
        if isinstance(then, str) or any(isinstance(each, ast.Call) for each in ast.walk(node)):
            continue  # strings are not evaluated, and a call may return another object each time
        try:
            now = eval(compile(ast.Expression(node), "<export>", "eval", dont_inherit=True), dict(namespace))  # noqa: S307
            same = now is then or (type(now) is type(then) and bool(now == then))
        except Exception:  # noqa: BLE001, S112 - undefined names are reported elsewhere
            continue
        if not same and now is not None:
            return f"{name}: {ast.unparse(node)}"
    return None


def _made_with(statement: Statement, value: Any) -> Iterator[tuple[str, ast.expr, Any]]:
    annotations = inspect.get_annotations(value)
    if isinstance(statement, ast.ClassDef):
        nodes = _fields(statement)
        if len(statement.bases) == len(value.__bases__) and "__orig_bases__" not in vars(value):
            plain = zip(statement.bases, value.__bases__, strict=True)
            yield from (
                ("base", node, base) for node, base in plain if not typing.is_typeddict(value) and base is not tuple
            )
    else:
        nodes = dict(_parameters(statement))
        yield from _defaults(statement.args, value)
    yield from ((name, node, annotations[name]) for name, node in nodes.items() if name in annotations)


def _fields(statement: ast.ClassDef) -> dict[str, ast.expr]:
    return {
        each.target.id: each.annotation
        for each in statement.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }


def _parameters(statement: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, ast.expr]]:
    arguments = statement.args
    extra = [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
    for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *extra):
        if each.annotation is not None:
            yield each.arg, each.annotation
    if statement.returns is not None:
        yield "return", statement.returns


def _defaults(arguments: ast.arguments, function: FunctionType) -> Iterator[tuple[str, ast.expr, Any]]:
    """Yield the defaults that are plain names: evaluating other expressions again could have side effects."""
    positional = [*arguments.posonlyargs, *arguments.args][-len(arguments.defaults) :]
    pairs = list(zip(positional, arguments.defaults, function.__defaults__ or (), strict=False))
    keywords = function.__kwdefaults__ or {}
    by_name = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    pairs += [(each, node, keywords[each.arg]) for each, node in by_name if node is not None and each.arg in keywords]
    yield from ((each.arg, node, then) for each, node, then in pairs if isinstance(node, ast.Name))


def codes(text: str, flags: int = 0) -> list[CodeType]:
    """Return the code objects of the function, or of the class's methods, that the text defines."""
    module = compile(text, "<export>", "exec", flags, dont_inherit=True)
    return [code for outer in _nested(module) for code in (outer, *_nested(outer))]


def _nested(code: CodeType) -> list[CodeType]:
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    # The code of a generic function is inside the scope of its type parameters (Python 3.12).
    return [*inner, *(deeper for each in inner if each.co_name.startswith("<generic") for deeper in _nested(each))]


def same_code(one: CodeType, other: CodeType) -> bool:
    """Return whether two code objects do the same, regardless of their line numbers."""
    if (one.co_name, one.co_code, one.co_names, one.co_varnames, len(one.co_consts)) != (
        (other.co_name, other.co_code, other.co_names, other.co_varnames, len(other.co_consts))
    ):
        return False
    return all(
        same_code(a, b)
        if isinstance(a, CodeType) and isinstance(b, CodeType)
        else (type(a), repr(a)) == (type(b), repr(b))
        for a, b in zip(one.co_consts, other.co_consts, strict=True)
        if not (isinstance(a, frozenset) and a == b)  # the repr of a frozenset has no fixed order
    )


def is_class(statement: ast.ClassDef, text: str, cls: type) -> bool:
    """Return whether a statement defines this class: it has the same annotated fields and the same methods."""
    fields = list(_fields(statement))
    declared = list(inspect.get_annotations(cls))
    if typing.is_typeddict(cls):  # its annotations include those of its bases
        fields = [name for name in declared if name in fields]
        declared = [name for name in declared if name in fields]
    methods = [each.name for each in statement.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    mangled = [re.sub("^__.*(?<!__)$", f"_{cls.__name__.lstrip('_')}\\g<0>", name) for name in methods]
    return (
        fields == declared
        and set(mangled) <= set(vars(cls))
        and all(any(same_code(each, code) for each in codes(text)) for code in _method_codes(cls))
    )


def _method_codes(cls: type) -> Iterator[CodeType]:
    """Yield the code objects of the class's own methods, without those that dataclasses and the like generate."""
    for value in vars(cls).values():
        plain = unwrapped(getattr(value, "__func__", None) or getattr(value, "fget", None) or value)
        own = isinstance(plain, FunctionType) and plain.__module__ == cls.__module__
        if own and not plain.__code__.co_filename.startswith("<string"):
            yield plain.__code__


def unwrapped(value: Any) -> Any:
    """Return the function inside a wrapper of `functools.wraps`, or the value itself."""
    if not callable(value) or isinstance(value, type):
        return value
    try:
        return inspect.unwrap(value)
    except ValueError:
        return value
