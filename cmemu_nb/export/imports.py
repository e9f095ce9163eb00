"""Import statements that bind the same objects in a module as in the notebook."""

from __future__ import annotations

import ast
import sys
from itertools import groupby
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from cmemu_nb.export.sources import parsed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MISSING = object()


class Import(NamedTuple):
    """`import module as name`, or `from module import attribute as name`; no name for `import a.b`."""

    module: str
    attribute: str | None
    name: str | None

    @property
    def standard(self) -> bool:
        """Whether the module is in Python's standard library."""
        return self.module.partition(".")[0] in sys.stdlib_module_names

    def __str__(self) -> str:
        what = self.attribute or self.module
        return what if self.name in (what, None) else f"{what} as {self.name}"


def find_import(name: str, value: Any, cells: Sequence[str]) -> Import | None:
    """Return an import statement that binds a name to exactly this object, or None.

    The notebook's own import statements are tried first, the newest before the others, because they use the public
    names of objects (`from pathlib import Path`). Then the module that the object names is tried. Nothing is imported.
    """
    candidates = [*_written(name, cells), *_known(name, value)]
    return next((each for each in candidates if _gives(each, value)), None)


def _written(name: str, cells: Sequence[str]) -> Iterator[Import]:
    for cell in reversed(cells):
        for node in ast.walk(parsed(cell)):
            for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
                if isinstance(node, ast.Import) and (alias.asname or alias.name) == name:
                    yield Import(alias.name, None, name)
                elif isinstance(node, ast.ImportFrom) and node.module and alias.name == "*":
                    yield Import(node.module, name, name)
                elif isinstance(node, ast.ImportFrom) and node.module and (alias.asname or alias.name) == name:
                    yield Import(node.module, alias.name, name)


def _known(name: str, value: Any) -> Iterator[Import]:
    if isinstance(value, ModuleType):
        yield Import(value.__name__, None, name)
        return
    module = getattr(value, "__module__", None)
    for each in ("__qualname__", "__name__", "_name", None):
        attribute = name if each is None else getattr(value, each, None)
        if isinstance(module, str) and isinstance(attribute, str):
            yield Import(module, attribute, name)


def _gives(candidate: Import, value: Any) -> bool:
    module = sys.modules.get(candidate.module)
    # A module without a spec can't be imported: it is __main__, or was created in code.
    if candidate.module == "__main__" or getattr(module, "__spec__", None) is None:
        return False
    if candidate.attribute is None:
        return module is value
    return getattr(module, candidate.attribute, MISSING) is value


def submodules(name: str, module: ModuleType, statement: ast.AST) -> list[str]:
    """Return the full names of the modules that a statement uses as `name.submodule`.

    In the notebook any cell may have imported them; in a new process they must be imported explicitly.
    """
    paths = {path for node in ast.walk(statement) for path in [_dotted(node)] if path.startswith(f"{name}.")}
    full = {module.__name__ + path.removeprefix(name) for path in paths}
    found = {each for each in full if getattr(sys.modules.get(each), "__name__", None) == each}
    return sorted(each for each in found if not any(other.startswith(f"{each}.") for other in found))


def _dotted(node: ast.AST) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def import_block(imports: Iterable[Import]) -> str:
    """Return imports as lines: the standard library first, and one `from` line for each module."""
    wanted = sorted(imports, key=lambda each: (not each.standard, each.attribute is not None, each.module, str(each)))
    groups = groupby(wanted, key=lambda each: each.standard)
    return "\n\n".join("\n".join(_lines(list(group))) for _, group in groups)


def _lines(imports: list[Import]) -> Iterator[str]:
    yield from (f"import {each}" for each in imports if each.attribute is None)
    named = [each for each in imports if each.attribute is not None]
    for module, group in groupby(named, key=lambda each: each.module):
        yield f"from {module} import {', '.join(map(str, group))}"
