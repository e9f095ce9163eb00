"""The cell magics: `%%cmemu_functions` serves a cell's functions, `%%compute_module` launches a cell as a module."""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from cmemu_nb.arguments import given_configuration
from cmemu_nb.display.names import running_emulators
from cmemu_nb.storage.owner_only import write_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

    from cmemu_nb.emulator import Emulator
    from cmemu_nb.executors.modules.modules import LaunchedModule
    from cmemu_nb.notebook.commands import Arguments

CELL_MAGIC = "%%cmemu_functions"
NODE_PACKAGE = "@palantir/compute-module"
_DEF = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(\w+)", re.MULTILINE)
_ES_MODULE = re.compile(r"^[ \t]*(?:import\b(?!\s*\()|export\b)", re.MULTILINE)


def run_cell(shell: InteractiveShell, cell: str) -> list[Callable[..., Any]]:
    """Run a cell in the user's namespace, and return the functions that it defines, except those named `_...`.

    Lines are counted from the line of the magic, so that tracebacks have the line numbers that the notebook shows.
    """
    running = shell.displayhook.exec_result  # None when a program runs the cell
    raw = running.info.raw_cell if running and running.info else f"{CELL_MAGIC}\n{cell}"
    count = running.execution_count if running else None
    source = "\n" * (_blank_lines(raw) + 1 + _blank_lines(cell)) + shell.transform_cell(cell)
    name = shell.compile.cache(source, count or shell.execution_count, raw_code=raw)
    tree = ast.parse(source, name)
    code = compile(tree, name, "exec", flags=shell.compile.flags, dont_inherit=True)
    exec(code, shell.user_ns)  # noqa: S102 - it is what the user typed
    names = [each for each in _defined(tree) if not each.startswith("_")]
    return [shell.user_ns[each] for each in names if each in shell.user_ns]  # the cell may have deleted one again


def _blank_lines(cell: str) -> int:
    """Return the number of blank lines that IPython removes from the beginning of a cell."""
    stripped = cell.lstrip()
    return cell[: len(cell) - len(stripped)].count("\n") if stripped else 0


def _defined(tree: ast.Module) -> list[str]:
    defined = (node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return list(dict.fromkeys(defined))


def with_streaming(functions: Iterable[Callable[..., Any]]) -> list[tuple[Callable[..., Any], bool]]:
    """Return each function with whether it streams its result; generator functions do."""
    return [(function, inspect.isgeneratorfunction(function)) for function in functions]


def cell_sources(shell: InteractiveShell) -> list[str]:
    """Return the cells of this session as plain Python, oldest first, without those that have a syntax error."""
    return list(_sources(shell))


def _sources(shell: InteractiveShell) -> Iterator[str]:
    for raw in shell.history_manager.input_hist_raw:  # type: ignore[union-attr]
        cell = raw.partition("\n")[2] if raw.lstrip().startswith(CELL_MAGIC) else raw
        source = shell.transform_cell(cell)
        try:
            ast.parse(source)
        except SyntaxError:
            continue
        yield source


def print_still_served(result: ExecutionResult) -> None:
    """Print which versions of its functions are still served after a cell had a syntax error."""
    if not isinstance(result.error_before_exec, SyntaxError) or result.info is None:
        return
    names = set(_DEF.findall(result.info.raw_cell))
    served = [each for emulator in running_emulators() for each in emulator.functions.in_cells if each.name in names]
    if served:
        kept = ", ".join(f"{each.name} v{each.version}" for each in served)
        print(f"This cell has a syntax error, so none of it was run. Still served: {kept}.", file=sys.stderr)  # noqa: T201


def syntax_error(error: SyntaxError, emulator: Emulator, cell: str) -> UsageError:
    """Return the error for a cell of functions that can't be compiled, with the versions that are still served."""
    names = set(_DEF.findall(cell))
    kept = ", ".join(f"{each.name} v{each.version}" for each in emulator.functions.in_cells if each.name in names)
    still = f" Still served: {kept}." if kept else ""
    return UsageError(
        f"{CELL_MAGIC}: syntax error in line {error.lineno}: {error.msg}. None of the cell was run.{still}"
    )


# %%compute_module


def launch_cell(emulator: Emulator, given: Arguments, text: str) -> LaunchedModule:
    """Write a cell's text into a file and launch it, in place of the module that the cell launched before."""
    configuration = given_configuration(given)  # an invalid file leaves the earlier module running
    emulator.modules.stop(given.module)
    folder = emulator.files.folder(f"module-{re.sub(r'[^A-Za-z0-9._-]', '_', given.module)}")
    write = _write_node if given.language == "node" else _write_python
    command = write(folder, text)
    return emulator.launch(command, given.module, **configuration)


def _write_python(folder: Path, text: str) -> list[str]:
    path = write_in(folder, "app.py", text.encode())
    return ["python", str(path)]


def _write_node(folder: Path, text: str) -> list[str]:
    modules = _node_modules()
    link = folder / "node_modules"
    link.unlink(missing_ok=True)  # an earlier run of the cell may have used another working directory
    link.symlink_to(modules)
    path = write_in(folder, "app.mjs" if _ES_MODULE.search(text) else "app.cjs", text.encode())
    return ["node", str(path)]


def _node_modules() -> Path:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "node_modules" / NODE_PACKAGE).is_dir():
            return folder / "node_modules"
    raise UsageError(
        f"%%compute_module: {NODE_PACKAGE} is not installed in {os.fspath(here)} or a folder above it. "
        f"Type: !npm install {NODE_PACKAGE}"
    )
