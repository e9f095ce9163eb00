"""Which functions of a module may give another result for the same query: by time, chance or the job's context."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MODULES = {"random", "secrets", "time", "uuid"}
OF_A_JOB = {"jobId", "userId", "tempCredsAuthToken"}
ATTRIBUTES = {"now", "today", "utcnow", "random", "default_rng", "urandom"} | OF_A_JOB
REPEATED = {"sleep"}


def varying_functions(text: str) -> set[str]:
    """Return the names of the functions and classes in a module's text that use the time or chance, also by others.

    So does what the context has of one job: its id and its user.
    """
    tree = ast.parse(text)
    sources = dict(_imported(tree))
    uses = {each.name: set(_names(each)) for each in tree.body if isinstance(each, _DEFINITIONS)}
    varying = {each.name for each in tree.body if isinstance(each, _DEFINITIONS) and _varies(each, sources)}
    while more := {name for name, used in uses.items() if name not in varying and used & varying}:
        varying |= more
    return varying


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the names that are bound to the time or to chance, each with the module's name and the attribute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((each.asname or each.name, each.name) for each in node.names if each.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            names = [each for each in node.names if each.name not in REPEATED]
            yield from ((each.asname or each.name, f"{node.module}.{each.name}") for each in names)


def _names(node: ast.AST) -> Iterator[str]:
    return (each.id for each in ast.walk(node) if isinstance(each, ast.Name))


def _varies(definition: ast.AST, sources: Mapping[str, str]) -> bool:
    return any(_is_variable(node, sources) for node in ast.walk(definition))


def _is_variable(node: ast.AST, sources: Mapping[str, str]) -> bool:
    if isinstance(node, ast.Attribute):
        root = node.value.id if isinstance(node.value, ast.Name) else ""
        return node.attr in ATTRIBUTES or (sources.get(root) in MODULES and node.attr not in REPEATED)
    if isinstance(node, ast.Constant):
        return node.value in OF_A_JOB
    return isinstance(node, ast.Name) and "." in sources.get(node.id, "")
