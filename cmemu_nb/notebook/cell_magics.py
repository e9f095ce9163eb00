"""`%%cmemu_functions`: a cell whose functions are served; and what is said when a cell of functions is broken."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from cmemu_nb.display.names import running_emulators

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

    from cmemu_nb.emulator import Emulator

CELL_MAGIC = "%%cmemu_functions"
_DEF = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(\w+)", re.MULTILINE)


def run_cell(shell: InteractiveShell, cell: str) -> list[Callable[..., Any]]:
    """Run a cell in the user's namespace, and return the functions that it defines, without those named `_...`.

    The line of the magic counts, so that tracebacks point at the cell's lines as they are shown.
    """
    running = shell.displayhook.exec_result  # None for a cell that is run by a program
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
    """Count the lines that IPython drops at the beginning of a cell."""
    stripped = cell.lstrip()
    return cell[: len(cell) - len(stripped)].count("\n") if stripped else 0


def _defined(tree: ast.Module) -> list[str]:
    defined = (node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return list(dict.fromkeys(defined))


def with_streaming(functions: Iterable[Callable[..., Any]]) -> list[tuple[Callable[..., Any], bool]]:
    """Say of each function whether it streams: generators do."""
    return [(function, inspect.isgeneratorfunction(function)) for function in functions]


def cell_sources(shell: InteractiveShell) -> list[str]:
    """Return all that was run in this session as plain Python, oldest first; cells that can't be read are left out."""
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


def tell_what_is_still_served(result: ExecutionResult) -> None:
    """After a cell with a syntax error, which leaves the last good versions served, print which they are."""
    if not isinstance(result.error_before_exec, SyntaxError) or result.info is None:
        return
    names = set(_DEF.findall(result.info.raw_cell))
    served = [each for emulator in running_emulators() for each in emulator.functions if each.name in names]
    if served:
        kept = ", ".join(f"{each.name} v{each.version}" for each in served)
        print(f"This cell has a syntax error, so nothing of it was run. Still served: {kept}.", file=sys.stderr)  # noqa: T201


def syntax_error(error: SyntaxError, emulator: Emulator, cell: str) -> UsageError:
    """Say what is wrong with a cell of functions, and what is still served."""
    names = set(_DEF.findall(cell))
    kept = ", ".join(f"{each.name} v{each.version}" for each in emulator.functions if each.name in names)
    still = f" Still served: {kept}." if kept else ""
    return UsageError(
        f"{CELL_MAGIC}: line {error.lineno} is no Python: {error.msg}. Nothing of the cell was run.{still}"
    )
