"""The rules for a Python program, checked in its text: it is not run here."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NamedTuple

from cmemu_nb.check.findings import ADVICE, FUNCTIONS, Finding, Severity
from cmemu_nb.check.secrets import find_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

SDK = "compute_modules"
ANNOTATIONS = f"{SDK}.annotations"
# Calls that wait, or that may: at module level they delay the first poll, or the module never polls.
WAITS = {
    "input": "waits for somebody who types",
    "time.sleep": "waits",
    "asyncio.run": "runs until its coroutine ends",
    "subprocess.run": "waits for a program",
    "subprocess.check_call": "waits for a program",
    "subprocess.check_output": "waits for a program",
    "os.system": "waits for a program",
    "urllib.request.urlopen": "waits for another server",
    **{f"requests.{verb}": "waits for another server" for verb in ("get", "post", "put", "delete", "request")},
    **{f"httpx.{verb}": "waits for another server" for verb in ("get", "post", "put", "delete", "request")},
}


class Program(NamedTuple):
    """A parsed Python file."""

    path: str
    tree: ast.Module

    @property
    def uses_sdk(self) -> bool:
        """Whether it imports the official SDK."""
        return SDK in self.imports

    @property
    def imports(self) -> dict[str, int]:
        """The top-level modules that it imports, each with the line of its first import."""
        found: dict[str, int] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for each in node.names:
                    found.setdefault(each.name.partition(".")[0], node.lineno)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.setdefault(node.module.partition(".")[0], node.lineno)
        return found


def read_program(path: str, text: str) -> Program | Finding:
    """Parse a Python file; a syntax error is a finding."""
    try:
        return Program(path, ast.parse(text, path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", 0) or 0
        message = f"Python can't read the file: {getattr(error, 'msg', error)}."
        return Finding(path, line, Severity.ERROR, "syntax", message, "Correct this line.", ADVICE)


def check_program(program: Program, text: str) -> Iterator[Finding]:
    """Yield the findings in the text of a program."""
    yield from find_secrets(program.path, text, quoted=True)
    yield from _check_module_level(program, program.tree.body)
    yield from _check_imports(program)


def _check_module_level(program: Program, body: list[ast.stmt]) -> Iterator[Finding]:
    """Yield what waits while the module is imported, before it can poll for jobs."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or _is_main_guard(statement):
            continue
        if isinstance(statement, ast.While) and isinstance(statement.test, ast.Constant) and statement.test.value:
            yield _blocks(program, statement.lineno, "This loop never ends")
            continue
        for node in _nodes_outside_functions(statement):
            name = _dotted(node.func) if isinstance(node, ast.Call) else ""
            if name in WAITS:
                yield _blocks(program, node.lineno, f"{name}() {WAITS[name]}")


def _blocks(program: Program, line: int, what: str) -> Finding:
    message = f"{what}, and it runs while the module starts: until it ends, the module does not poll for jobs."
    fix = "Do it in the function, at its first call, or after: if __name__ == '__main__':"
    return Finding(program.path, line, Severity.WARNING, "blocking", message, fix, ADVICE)


def _is_main_guard(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "__name__" in {
        node.id for node in ast.walk(statement.test) if isinstance(node, ast.Name)
    }


def _nodes_outside_functions(statement: ast.AST) -> Iterator[ast.expr]:
    for node in ast.iter_child_nodes(statement):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            continue
        if isinstance(node, ast.expr):
            yield node
        yield from _nodes_outside_functions(node)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def _check_imports(program: Program) -> Iterator[Finding]:
    line = program.imports.get("cmemu_nb")
    if line:
        message = "The module imports cmemu_nb, the emulator, which is not there on the platform."
        fix = f"Import the decorator from the official SDK: from {ANNOTATIONS} import function"
        yield Finding(program.path, line, Severity.ERROR, "emulator", message, fix, FUNCTIONS)
