"""Whole programs for the official Python SDK in a notebook: pasted into a cell, or run with `%run app.py`.

The functions that a program registers with the SDK are served, and `start_compute_module()` returns at once. A program
that reads its command line sees one without arguments in a cell, as with `python app.py`; `%run` sets its arguments.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from cmemu_nb.display.names import running_emulators
from cmemu_nb.errors import DefinitionWarning, FunctionRefused, NotRunning
from cmemu_nb.executors.sdk.adapter import is_accepted
from cmemu_nb.tracebacks import warn_user

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from IPython.core.interactiveshell import ExecutionInfo

    from cmemu_nb.executors.cells.served import ServedFunction

SDK = "compute_modules"


class Programs:
    """Serves the functions that programs register with the SDK, and prints after each cell which ones it served."""

    def __init__(self) -> None:
        self._served: dict[str, ServedFunction] = {}
        self._arguments: list[str] | None = None

    def serve(self, function: Callable[..., Any], streaming: bool, edits: Sequence[Any]) -> None:  # noqa: FBT001
        """Serve a function on the first emulator; one that the SDK accepts and no call could use becomes a warning.

        Raises `NotRunning`, and `FunctionRefused` if the SDK refuses the function: that ends the program, as there.
        """
        running = running_emulators()
        if not running:
            raise NotRunning(
                "The function can't be served: no emulator is running. Type %cmemu start, and run this again."
            )
        try:
            for served in running[0].functions.serve([(function, streaming)], edits=edits):
                self._served[served.name] = served
        except FunctionRefused as refused:
            if not is_accepted(function, edits):
                raise
            warn_user(DefinitionWarning(f"{refused} The official SDK registers it, so the program continues."))

    def take(self) -> list[ServedFunction]:
        """Return the functions that were served since the last call."""
        served, self._served = list(self._served.values()), {}
        return served

    def before_cell(self, info: ExecutionInfo) -> None:
        """Hide the kernel's own command line from a program in the cell."""
        self._arguments = None
        if SDK in (info.raw_cell or ""):
            self._arguments, sys.argv = sys.argv, sys.argv[:1]

    def after_cell(self, _: object) -> None:
        """Restore the command line, and print which functions the cell has served."""
        if self._arguments is not None:
            sys.argv, self._arguments = self._arguments, None
        if served := self.take():
            print_served(served)


def print_served(served: Sequence[ServedFunction]) -> None:
    """Print the functions that are served now, with their versions."""
    print("Served: " + (", ".join(f"{each.name} v{each.version}" for each in served) or "nothing") + ".")  # noqa: T201
