"""One line of text for a person who waits: replaced in place where possible, and removed at the end."""

from __future__ import annotations

import html
import os
import shutil
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from cmemu_nb.executors.cells.current_job import RUNNING
from cmemu_nb.ipython import current_shell

if TYPE_CHECKING:
    from IPython.display import DisplayHandle


class OneLine(ABC):
    """A place to show a line."""

    @abstractmethod
    def show(self, kind: str, text: str) -> None:
        """Show a text in place of the previous one; texts that differ only in their numbers have the same `kind`."""

    def clear(self) -> None:  # noqa: B027 - not every place can remove its text
        """Remove the line, where that is possible."""


class NotebookLine(OneLine):
    """An output of the cell, which is empty at the end, also in the saved notebook."""

    def __init__(self) -> None:
        self._handle: DisplayHandle | None = None

    def show(self, kind: str, text: str) -> None:  # noqa: ARG002
        """Show a text in place of the one before."""
        style = "color: var(--jp-ui-font-color2, #616161); font-size: var(--jp-code-font-size, 13px)"
        self._update({"text/plain": text, "text/html": f'<div style="{style}">{html.escape(text, quote=False)}</div>'})

    def clear(self) -> None:
        """Make the output empty."""
        if self._handle is not None:
            self._update({"text/plain": "", "text/html": ""})

    def _update(self, data: dict[str, str]) -> None:
        from IPython.display import display  # noqa: PLC0415 - only notebooks have IPython

        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


class TerminalLine(OneLine):
    """The last line of a terminal, on stderr; a long text takes several rows."""

    def __init__(self) -> None:
        self._rows = 0

    def show(self, kind: str, text: str) -> None:  # noqa: ARG002
        """Show a text in place of the one before."""
        self.clear()
        self._write(text)
        columns = shutil.get_terminal_size().columns
        self._rows = -(-len(text) // columns)

    def clear(self) -> None:
        """Remove the line, and put the cursor back to its beginning."""
        if self._rows:
            up = f"\x1b[{self._rows - 1}A" if self._rows > 1 else ""
            self._write(f"\r{up}\x1b[J")
            self._rows = 0

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


class PlainLines(OneLine):
    """A stderr that is stored, such as a log: one text of each kind is printed."""

    def __init__(self) -> None:
        self._shown: set[str] = set()

    def show(self, kind: str, text: str) -> None:
        """Print a text, unless one of its kind was printed before."""
        if kind not in self._shown:
            self._shown.add(kind)
            print(text, file=sys.stderr, flush=True)  # noqa: T201


def is_wanted(*, progress: bool) -> bool:
    """Return whether to show the progress: not if the environment variable `CI` is set, as nobody watches it there."""
    return progress and not os.environ.get("CI")


def one_line() -> OneLine:
    """Return the place to show a line to the person who runs this code."""
    shell: Any = current_shell()
    if RUNNING.get() is not None:  # a function in a cell: what it prints is its job's log
        return PlainLines()
    if getattr(shell, "kernel", None) is not None:
        return NotebookLine()
    return TerminalLine() if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else PlainLines()
