"""The writer of a notebook's functions as one module for the official SDK, with everything that they need."""

from __future__ import annotations

import builtins
import math
import pprint
import sys
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from cmemu_nb.errors import ExportRefused
from cmemu_nb.export.imports import Import, find_import, import_block, submodules
from cmemu_nb.export.sameness import outdated, unwrapped
from cmemu_nb.export.sources import class_source, function_source
from cmemu_nb.phrases import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cmemu_nb.export.sources import Source

DOCSTRING = '"""Functions of a compute module, written by cmemu_nb from a notebook."""'
SDK = "compute_modules.annotations"
WIDTH = 100
SCALARS = (bool, int, float, complex, str, bytes, type(None), type(...))
CONSTANT, CLASS, HELPER, SERVED = range(4)
WHAT_TO_DO = "Pass it in the event, load it inside the function, or put it in a module and import it."
MISSING = object()


@dataclass
class Piece:
    """A statement of the module: the name that it defines, its rank, and the names that it needs."""

    name: str
    rank: int
    text: str
    at_import: Sequence[str] = ()
    used: Sequence[str] = ()


def export_module(functions: Iterable[tuple[Callable[..., Any], bool]], cells: Sequence[str]) -> str:
    """Return the text of one module that the official SDK serves, with these functions.

    `functions` are pairs of a Python function and whether it streams, in the order of definition; `cells` are the
    sources of the cells that the notebook has run, as plain Python, oldest first. The module also contains everything
    that the functions refer to: imports, constants, classes and helpers. Raises `ExportRefused`, which lists by name
    everything that can't be written faithfully.
    """
    writer = _Writer(list(functions), cells)
    writer.collect()
    if writer.problems:
        raise ExportRefused(
            f"The module was not written, because of {plural(len(writer.problems), 'thing')}:\n"
            + "\n".join(f"- {problem}" for problem in writer.problems)
        )
    text = writer.text()
    compile(text, "<export>", "exec", dont_inherit=True)
    return text


class _Writer:
    def __init__(self, functions: Sequence[tuple[Callable[..., Any], bool]], cells: Sequence[str]) -> None:
        self.functions = functions
        self.cells = cells
        self.problems: list[str] = []
        self.imports = {Import(SDK, "function", "function")}
        self.pieces: list[Piece] = []
        self.sources: list[Source] = []
        self.claims: dict[str, Any] = {"function": getattr(sys.modules.get(SDK), "function", SDK)}
        self.containers: dict[str, Any] = {}

    # Collecting

    def collect(self) -> None:
        claimed = [self._claim(function.__name__, function, "the notebook") for function, _ in self.functions]
        for (function, streaming), new in zip(self.functions, claimed, strict=True):
            if new:
                self._serve(function, "streaming=True" if streaming else "")
        for source in self.sources:
            for name in sorted(source.changed & set(self.containers)):
                self._refuse(
                    source.name, name, self.containers[name], "it is changed, and each worker has its own copy"
                )

    def _serve(self, function: Callable[..., Any], arguments: str) -> None:
        name = function.__name__
        found = find_import(name, function, self.cells)
        plain = unwrapped(function)
        if found:
            self.imports.add(found)
            register = f"function({arguments})({name})" if arguments else f"function({name})"
            self.pieces.append(Piece("", SERVED, register + "\n"))
        elif isinstance(plain, FunctionType):
            self._define(name, plain, plain.__globals__, lambda: function_source(plain, arguments), SERVED)
        else:
            self._refuse("the notebook", name, function, "it is not a function with a source")

    def _define(
        self, who: str, value: Any, namespace: Mapping[str, Any], read: Callable[[], Source], rank: int
    ) -> None:
        try:
            source = read()
        except ExportRefused as refused:
            self._problem(f"{who}: {refused}")
            return
        stale = outdated(source.statement, value, namespace)
        if stale:
            self._problem(
                f"{source.name} was made with another object than its global names have now ({stale}): "
                f"something was changed after {source.name} was defined. Run the cell of {source.name} again."
            )
        self.sources.append(source)
        self._follow(source, namespace)
        self.pieces.append(Piece(source.name, rank, source.text, source.at_import, source.used))

    def _follow(self, source: Source, namespace: Mapping[str, Any]) -> None:
        for name in source.written:
            value = namespace.get(name, MISSING)
            self._refuse(source.name, name, value, "it is written with 'global', and each worker has its own copy")
        for name in source.used:
            if name in source.written:
                continue
            value = namespace.get(name, getattr(builtins, name, MISSING))
            if value is MISSING:
                self._problem(f"{source.name} uses {name!r}, which is not defined. Define it, or import it in a cell.")
            elif not _is_builtin(name, value):
                self._need(name, value, namespace, source)

    def _need(self, name: str, value: Any, namespace: Mapping[str, Any], user: Source) -> None:
        if isinstance(value, ModuleType):
            self._import_submodules(name, value, user)
        if not self._claim(name, value, user.name):
            return
        found = find_import(name, value, self.cells)
        plain = unwrapped(value)
        reason = _why_not(value)
        if name == "get_ipython":
            self._problem(
                f"{user.name} uses a magic or a shell command (% or !), which only notebooks have. {WHAT_TO_DO}"
            )
        elif found:
            self.imports.add(found)
        elif isinstance(value, type):
            self._named(name, value, user, namespace, lambda: class_source(value, self.cells), CLASS)
        elif isinstance(plain, FunctionType):
            self._named(name, value, user, plain.__globals__, lambda: _helper_source(plain, value), HELPER)
        elif reason:
            self._refuse(user.name, name, value, reason)
        else:
            self._add_constant(name, value)

    def _named(
        self, name: str, value: Any, user: Source, namespace: Mapping[str, Any], read: Callable[[], Source], rank: int
    ) -> None:
        """Define a function or class, and the second name under which it is used, if any."""
        own = getattr(unwrapped(value), "__name__", name)
        if name == own or self._claim(own, value, user.name):
            self._define(f"{user.name} uses {name!r}", unwrapped(value), namespace, read, rank)
        if name != own:
            self.pieces.append(Piece(name, HELPER, f"{name} = {own}\n", [own], [own]))

    def _add_constant(self, name: str, value: Any) -> None:
        if not isinstance(value, SCALARS):
            self.containers[name] = value
        literal = pprint.pformat(value, width=WIDTH, compact=True, sort_dicts=False)
        self.pieces.append(Piece(name, CONSTANT, f"{name} = {literal}\n"))

    def _import_submodules(self, name: str, module: ModuleType, user: Source) -> None:
        for full in submodules(name, module, user.statement):
            root = full.partition(".")[0]
            self._claim(root, sys.modules[root], user.name)
            self.imports.add(Import(full, None, None))

    # Problems

    def _claim(self, name: str, value: Any, user: str) -> bool:
        """Reserve a name for an object, or return False if it is reserved; a clash of two objects is a problem."""
        if name not in self.claims:
            self.claims[name] = value
            return True
        taken = self.claims[name]
        same = unwrapped(taken) is unwrapped(value) or (_why_not(value) is None and repr(taken) == repr(value))
        if not same:
            self._problem(
                f"{user} uses {name!r}, {_kind(value)}, but another object, "
                f"{'the decorator of the SDK' if taken is SDK else _kind(taken)}, has this name in the module too. "
                "Give one of them another name."
            )
        return False

    def _refuse(self, user: str, name: str, value: Any, reason: str) -> None:
        self._problem(f"{user} uses {name!r}, {_kind(value)}: {reason}. {WHAT_TO_DO}")

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)

    # Writing

    def text(self) -> str:
        text = f"{DOCSTRING}\n\n{import_block(self.imports)}\n"
        last = None
        for piece in self._ordered():
            kind = piece.rank, bool(piece.name)
            lines = kind in (
                (CONSTANT, True),
                (SERVED, False),
            )  # statements of one line are not separated by blank lines
            text += ("" if lines and kind == last else "\n" if lines else "\n\n") + piece.text
            last = kind
        return text

    def _ordered(self) -> list[Piece]:
        """Sort the pieces by rank, but each one after those that it needs while the module is imported."""
        waiting = sorted(self.pieces, key=lambda piece: piece.rank)
        by_name = {piece.name: piece for piece in waiting}
        done: list[Piece] = []
        while waiting:
            left = {piece.name for piece in waiting}
            ready = (piece for piece in waiting if not (_needed(piece, by_name) - {piece.name}) & left)
            # For functions that call each other while they are defined, only the names in their statements count.
            plain = (piece for piece in waiting if not (set(piece.at_import) - {piece.name}) & left)
            chosen = next(ready, None) or next(plain, waiting[0])
            waiting.remove(chosen)
            done.append(chosen)
        return done


def _needed(piece: Piece, by_name: Mapping[str, Piece]) -> set[str]:
    """Return the names that must be defined before a piece: those in its statement, and those that they may use."""
    needed: set[str] = set()
    todo = list(piece.at_import)
    while todo:
        name = todo.pop()
        if name not in needed and name in by_name:
            needed.add(name)
            todo += by_name[name].used
    return needed


def _helper_source(plain: FunctionType, value: Any) -> Source:
    source = function_source(plain)
    if value is not plain and not source.statement.decorator_list:
        raise ExportRefused("it was wrapped by a call. Write what wraps it as a decorator, @ above its def.")
    if hasattr(value, "registry") and hasattr(value, "dispatch"):
        raise ExportRefused(
            "functions were registered with it later (singledispatch). Put it in a module and import it."
        )
    return source


def _why_not(value: Any) -> str | None:
    """Return the reason why a value can't be written as a literal, or None if it can."""
    try:
        if type(value).__module__.startswith("cmemu_nb"):
            return "it exists only where the emulator runs"
        if not is_literal(value):
            return "its value can't be written as a literal"
        repr(value)
    except RecursionError:
        return "it contains itself"
    except ValueError:
        return "it is too long to be written"
    return None


def is_literal(value: Any) -> bool:
    """Return whether a value can be written as a literal of Python, which gives an equal one."""
    if type(value) is dict:
        return all(is_literal(key) and is_literal(each) for key, each in value.items())
    if type(value) in (tuple, list, set, frozenset):
        return all(map(is_literal, value))
    if type(value) in (float, complex):
        return math.isfinite(abs(value))
    return type(value) in SCALARS


def _is_builtin(name: str, value: Any) -> bool:
    """Return whether a name is Python's own builtin. IPython adds some builtins, and wraps `open`."""
    own = str(getattr(value, "__module__", None)).startswith("IPython")
    return not own and hasattr(builtins, name) and unwrapped(value) is getattr(builtins, name)


def _kind(value: Any) -> str:
    if value is MISSING:
        return "which is not defined yet"
    if isinstance(value, ModuleType):
        return f"the module {value.__name__}"
    kind = type(value)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"an object of type {module}{kind.__qualname__}"
