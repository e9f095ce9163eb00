"""The rules for functions: their names and types, as the official SDK infers them from the program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from cmemu_nb.check.findings import ADVICE, FUNCTIONS, Finding, Severity
from cmemu_nb.wire.api_names import RULE, advice, name_in_api

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

IMPORT_SECONDS = 30.0
# With these the program would look for a runtime, and act as one of its modules.
_OF_A_MODULE = ("GET_JOB_URI", "POST_RESULT_URI", "POST_SCHEMA_URI", "MODULE_AUTH_TOKEN", "RUNTIME_API")


def import_functions(path: str, file: Path) -> list[dict[str, Any]] | Finding:
    """Import a program in a process of its own, and return its functions; a finding if it can't be imported."""
    environment = {name: value for name, value in os.environ.items() if name not in _OF_A_MODULE}
    command = [sys.executable, "-m", "cmemu_nb.check.imported", str(file.resolve())]
    try:
        done = subprocess.run(  # noqa: S603 - the user asks to check this program
            command,
            cwd=file.resolve().parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=IMPORT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        message = f"The program is still starting after {IMPORT_SECONDS:g} s, so the module would not poll for jobs."
        fix = "Move what takes long into a function, or after: if __name__ == '__main__':"
        return Finding(path, 0, Severity.ERROR, "blocking", message, fix, ADVICE)
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        message = f"The program ended (exit code {done.returncode}) while it was imported."
        return Finding(path, 0, Severity.ERROR, "import", message, f"Run it: python {file.name}", FUNCTIONS)
    if "error" in found:
        error = found["error"]
        fix = error["fix"] or _fix_of_import(error["message"])
        message = f"The program can't be imported: {error['message']}."
        return Finding(path, error["line"], Severity.ERROR, "import", message, fix, FUNCTIONS)
    functions: list[dict[str, Any]] = found["functions"]
    return functions


def _fix_of_import(message: str) -> str:
    if "ModuleNotFoundError" in message:
        return f"Install what it imports: {sys.executable} -m pip install -r requirements.txt"
    return "Correct this line, so that the program starts."


def check_functions(path: str, functions: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield the findings about names and types."""
    seen: dict[str, int] = {}
    for each in functions:
        name, line = each["name"], each["line"]
        if name in seen:
            message = f"{name} is defined twice, first in line {seen[name]}; the SDK refuses the module."
            yield Finding(path, line, Severity.ERROR, "duplicate", message, "Rename one of them.", FUNCTIONS)
        seen.setdefault(name, line)
        if name_in_api(name) is None:
            message = f"No API name can be made from {name!r}, since {RULE}."
            yield Finding(path, line, Severity.ERROR, "api-name", message, advice(name), FUNCTIONS)
        if each["problem"]:
            message, _, fix = each["problem"].partition(". ")
            yield Finding(path, line, Severity.ERROR, "types", f"{message}.", fix or "Annotate it.", FUNCTIONS)
        for warning in each["warnings"]:
            if name_in_api(name) is not None:
                fix = "Change the annotation."
                yield Finding(path, line, Severity.WARNING, "types", f"{name}: {warning}", fix, FUNCTIONS)
        if each["schema"] and not each["annotated"]:
            message = f"{name} has no result type, so its callers get a string."
            fix = "Annotate the result, such as: -> float"
            yield Finding(path, line, Severity.WARNING, "result-type", message, fix, FUNCTIONS)


def compare_with_served(
    path: str, functions: Iterable[Mapping[str, Any]], served: Mapping[str, Any]
) -> Iterator[Finding]:
    """Yield the functions whose schema differs from the one that is served here under the same name."""
    for each in functions:
        here = served.get(each["name"])
        if each["schema"] is None or here is None or _same(each["schema"], here):
            continue
        message = f"{each['name']} has another schema in the file than the one that is served here."
        fix = "Write the file again: %cmemu export-module, or run the cell again."
        yield Finding(path, each["line"], Severity.WARNING, "schema", message, fix, FUNCTIONS)


def _same(one: Mapping[str, Any], other: Any) -> bool:
    keys = ("inputs", "output")
    return isinstance(other, dict) and all(one.get(key) == other.get(key) for key in keys)
