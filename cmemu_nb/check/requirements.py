"""Whether the image gets every package that a program imports, each with a version."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from typing import TYPE_CHECKING

from cmemu_nb.check.findings import ADVICE, Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cmemu_nb.check.program import Program

FILE = "requirements.txt"
_LINE = re.compile(r"^\s*([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*([^#;]*)")


def check_requirements(path: str, text: str) -> Iterator[Finding]:
    """Yield the requirements without a fixed version."""
    for number, line in enumerate(text.splitlines(), 1):
        found = _LINE.match(line)
        if found is None or found[2].startswith(("==", "===", "@")):
            continue
        name, given = found[1], found[2].strip()
        installed = version_here(name)
        message = (
            f"{name} has {f'the range {given}' if given else 'no version'}, so the next image may get another one."
        )
        fix = f"Type: {name}=={installed or 'VERSION'}{', the version here' if installed else ''}."
        yield Finding(path, number, Severity.WARNING, "requirements", message, fix, ADVICE)


def check_imports(program: Program, text: str | None, local: Iterable[str]) -> Iterator[Finding]:
    """Yield the imported packages that no requirement installs; `text` is None if there is no file of requirements.

    `local` are the names of the modules beside the program.
    """
    required = {normal(found[1]) for line in (text or "").splitlines() if (found := _LINE.match(line))}
    here = metadata.packages_distributions()
    ours = {*sys.stdlib_module_names, *local, "__main__", "cmemu_nb"}
    for module, line in program.imports.items():
        if module in ours or _is_required(module, required, here):
            continue
        name = next(iter(here.get(module, ())), module)
        installed = version_here(name)
        missing = f"there is no {FILE}" if text is None else f"{FILE} does not name it"
        message = f"The program imports {module}, but {missing}, so the image may not have it."
        fix = f"Add this line to {FILE}: {name}=={installed or 'VERSION'}"
        yield Finding(program.path, line, Severity.ERROR, "requirements", message, fix, ADVICE)


def _is_required(module: str, required: set[str], here: Mapping[str, list[str]]) -> bool:
    names = {normal(name) for name in here.get(module, ())} | {normal(module)}
    if names & required:
        return True
    # A required package brings the packages that it requires itself.
    return any(normal(found[1]) in names for name in required for found in _own_requirements(name))


def _own_requirements(name: str) -> list[re.Match[str]]:
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
    return [found for line in lines if "extra ==" not in line and (found := _LINE.match(line))]


def normal(name: str) -> str:
    """Return a package's name in its normal form."""
    return re.sub(r"[-_.]+", "-", name).lower()


def version_here(name: str) -> str:
    """Return the version of a package in this environment, "" if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
