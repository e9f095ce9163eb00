"""The internals of other packages that are relied on are listed in docs/architecture.md, and are there."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).parent.parent / "cmemu_nb"
DOCUMENT = (PACKAGE / "docs" / "architecture.md").read_text("utf-8")
ROW = re.compile(r"^\| `([\w.]+)` \| (`[^|]*`) \| ([^|]+) \|$", re.MULTILINE)
LISTED = [found.groups() for found in ROW.finditer(DOCUMENT.partition("## Internals of other packages")[2])]
DISTRIBUTIONS = {"compute_modules": "foundry-compute-modules", "IPython": "ipython"}
# Documented by Python, whatever their names look like.
DOCUMENTED = {"_current_frames", "_getframe", "_exit", "_asdict"}


def missing(name: str) -> str:
    """Return what of a dotted name is not there; "" when all of it is."""
    parts = name.split(".")
    found: Any = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], 1):
        here = ".".join(parts[: number + 1])
        if inspect.ismodule(found) and not hasattr(found, part):
            try:
                importlib.import_module(here)
            except ModuleNotFoundError:
                return here
        if not hasattr(found, part):
            return "" if inspect.isclass(found) and is_set_by(found, part) else here
        found = getattr(found, part)
    return ""


def is_set_by(kind: type, attribute: str) -> bool:
    """Return whether the methods of a class, or of one that it inherits from, set an attribute of its objects."""
    sources = [inspect.getsource(each) for each in kind.__mro__ if each.__module__ != "builtins"]
    return any(re.search(rf"\bself\.{attribute}\b[^=\n]*=[^=]", source) for source in sources)


def version_of(name: str) -> str:
    package = name.partition(".")[0]
    try:
        return f"{package} {metadata.version(DISTRIBUTIONS.get(package, package))}"
    except metadata.PackageNotFoundError:
        return "this Python"


@pytest.mark.parametrize(("name", "used_in", "why"), LISTED, ids=[each[0] for each in LISTED])
def test_each_listed_name_is_there_and_is_used_where_the_list_says(name: str, used_in: str, why: str) -> None:
    lacking = missing(name)
    assert not lacking, f"{version_of(name)} has no {lacking} any more, which {used_in} uses for: {why.strip()}."
    attribute = name.rpartition(".")[2]
    for place in re.findall(r"`([\w/.]+)`", used_in):
        path = PACKAGE / place
        sources = [file.read_text("utf-8") for file in ([path] if path.is_file() else path.rglob("*.py"))]
        assert any(attribute in source for source in sources), f"{place} does not use {name}: correct the list."


def test_every_private_name_of_another_package_is_in_the_list() -> None:
    used: dict[str, set[str]] = {}
    own = {"_cmemu_nb_listening", "_cmemu_nb_journals"}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.Attribute(attr=name, ctx=context):
                    if isinstance(context, ast.Store):
                        own.add(name)
                    used.setdefault(name, set()).add(file.name)
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    own.add(name)
                case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                    own.add(name)
                case ast.ImportFrom(names=names, module=module) if not str(module).startswith("cmemu_nb"):
                    for each in names:
                        used.setdefault(each.name, set()).add(file.name)
    private = {name: files for name, files in used.items() if name.startswith("_") and not name.startswith("__")}
    listed = {name.rpartition(".")[2] for name, _, _ in LISTED}
    assert {name: files for name, files in private.items() if name not in own | listed | DOCUMENTED} == {}
