"""The source texts of a notebook's functions and classes, and the global names that they use."""

from __future__ import annotations
import __future__

import ast
import dis
import inspect
import textwrap
import typing
from dataclasses import dataclass, field
from functools import cache
from types import CodeType, FunctionType
from typing import TYPE_CHECKING

from cmemu_nb.errors import ExportRefused
from cmemu_nb.export.sameness import Statement, codes, is_class, same_code

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MUTATING = {"append", "extend", "insert", "remove", "pop", "popitem", "clear", "sort", "reverse", "add", "discard"} | {
    *("update", "setdefault", "difference_update", "intersection_update", "symmetric_difference_update"),
    *("__setitem__", "__delitem__", "__ior__", "__iadd__"),
}
LOADS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
STORES = {"STORE_GLOBAL", "DELETE_GLOBAL"}
OWN_NAMES = {"__name__", "__doc__", "__annotations__", "__conditional_annotations__", "__debug__"}
ANNOTATIONS_AS_TEXT = __future__.annotations.compiler_flag


@dataclass
class Source:
    """A `def` or `class` statement, and the global names that it uses, in the order of their first use."""

    name: str
    text: str
    statement: Statement
    at_import: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)

    @property
    def used(self) -> list[str]:
        """All names, beginning with those that are needed as soon as the statement runs."""
        return list(dict.fromkeys(self.at_import + self.later))


def function_source(function: FunctionType, served_as: str | None = None) -> Source:
    """Return the `def` of a function from its cell; `served_as` replaces the arguments of the decorator that serves it.

    Raises `ExportRefused` with only the reason, which the caller puts into a message about the function.
    """
    _refuse_unwritable(function)
    text, statement = _original(function)
    if served_as is not None:
        text = _serve(text, statement, served_as)
        statement = typing.cast("Statement", ast.parse(text).body[0])
    return _analysed(function.__name__, text, statement, served=served_as is not None)


def _refuse_unwritable(function: FunctionType) -> None:
    if function.__name__ == "<lambda>":
        raise ExportRefused("it is a lambda, which has no statement of its own. Write it with def.")
    free = function.__code__.co_freevars
    if free:
        raise ExportRefused(
            f"it is a closure over {', '.join(map(repr, free))}, whose values live in the function that made it. "
            "Make them arguments or constants of the notebook; in a decorator, use functools.wraps."
        )
    file, namespace = function.__code__.co_filename, function.__globals__
    if namespace.get("__file__") == file and "__name__" not in namespace:  # so %run leaves the names of a program
        raise ExportRefused(
            f"it was run from the file {file}, which is a module already. Deploy that file, or paste its text into a "
            "cell."
        )


def _original(function: FunctionType) -> tuple[str, Statement]:
    try:
        text = textwrap.dedent(inspect.getsource(function)).rstrip() + "\n"
        statement = ast.parse(text).body[0]
        found = codes(text, function.__code__.co_flags & ANNOTATIONS_AS_TEXT)
    except (OSError, TypeError, SyntaxError, IndexError):
        raise ExportRefused("its source is not known. Define it with def in a cell of its own.") from None
    if not isinstance(statement, Statement) or not any(same_code(each, function.__code__) for each in found):
        raise ExportRefused("its source was changed after it was defined. Run its cell again.")
    return text, statement


def serves(decorator: ast.expr) -> bool:
    """Return whether a decorator is `@function` or `@anything.function`, with or without arguments."""
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", None)
    return name == "function"


def _kept(decorator: ast.expr) -> list[ast.keyword]:
    keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
    return [keyword for keyword in keywords if keyword.arg == "edits"]


def _serve(text: str, statement: Statement, served_as: str) -> str:
    lines = text.encode().split(b"\n")  # the offsets of ast count bytes
    found = [each for each in statement.decorator_list if serves(each)]
    for decorator in reversed(found):
        end = decorator.end_lineno or decorator.lineno
        arguments = [served_as] if served_as else []
        arguments += [ast.get_source_segment(text, each) or "" for each in _kept(decorator)]
        line = f"@function({', '.join(arguments)})" if arguments else "@function"
        rest = lines[end - 1][decorator.end_col_offset :]
        lines[decorator.lineno - 1 : end] = [line.encode() + rest] if decorator is found[0] else []
    if not found:
        lines.insert(0, f"@function({served_as})".encode() if served_as else b"@function")
    return b"\n".join(lines).decode()


def class_source(cls: type, cells: Sequence[str]) -> Source:
    """Return the `class` statement of a class from the cells, the newest one with its name.

    `inspect.getsource` can't find classes of cells. Raises `ExportRefused` with only the reason.
    """
    for cell in reversed(cells):
        for statement in reversed(parsed(cell).body):
            if isinstance(statement, ast.ClassDef) and statement.name == cls.__name__:
                start = min([statement.lineno, *(each.lineno for each in statement.decorator_list)])
                text = "\n".join(cell.split("\n")[start - 1 : statement.end_lineno]) + "\n"
                if not is_class(statement, text, cls):
                    raise ExportRefused("the class was changed after this one was made from it. Run its cell again.")
                return _analysed(cls.__name__, text, statement)
    raise ExportRefused("no cell has its class statement at the top level. Write it there, and run the cell.")


@cache
def parsed(cell: str) -> ast.Module:
    """Parse a cell. A cell that is not Python is parsed as an empty one."""
    try:
        return ast.parse(cell)
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _analysed(name: str, text: str, statement: Statement, *, served: bool = False) -> Source:
    tree = ast.parse(text)
    if served:  # the decorator will be the SDK's: only the names in its arguments count
        statement_again = typing.cast("Statement", tree.body[0])
        decorators = statement_again.decorator_list
        statement_again.decorator_list = [
            kept for each in decorators for kept in ([k.value for k in _kept(each)] if serves(each) else [each])
        ]
    source = Source(name, text, statement)
    _collect(compile(tree, "<export>", "exec", dont_inherit=True), source, at_import=True)
    source.changed = set(_changed(statement)) & set(source.used)
    return source


def _collect(code: CodeType, source: Source, *, at_import: bool) -> None:
    """Collect the global names from the bytecode, which is exact for scopes, comprehensions and class bodies."""
    stored: set[str] = set()
    names = source.at_import if at_import else source.later
    for step in dis.get_instructions(code):
        if step.opname == "STORE_NAME":
            stored.add(step.argval)
        elif step.opname in LOADS and step.argval not in stored | OWN_NAMES | {*names}:
            names.append(step.argval)
        elif step.opname in STORES and step.argval not in source.written:
            source.written.append(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            waits = inner.co_flags & inspect.CO_OPTIMIZED and not inner.co_name.startswith(("<", "__annotate"))
            _collect(inner, source, at_import=at_import and not waits)


def _changed(tree: ast.AST) -> Iterator[str]:
    """Yield the names of objects that are changed in place. Local names may be among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield _root(node)
        elif isinstance(node, ast.AugAssign):
            yield _root(node.target)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATING:
            yield _root(node.func)


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
