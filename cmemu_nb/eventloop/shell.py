"""The notebook's shell: whether a cell runs, and events for the beginning and the end of each cell."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any

from cmemu_nb.ipython import current_shell

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.eventloop.home import Home


def in_marimo() -> bool:
    """Return whether this is called in a cell of a marimo notebook, without importing marimo."""
    marimo = sys.modules.get("marimo")
    return marimo is not None and bool(marimo.running_in_notebook())


def in_voila() -> bool:
    """Return whether Voila runs this notebook. It sends each cell's output when the cell ends, and saves nothing."""
    return os.environ.get("SERVER_SOFTWARE", "").startswith("voila/")


def cell_is_running() -> bool:
    """Return whether the notebook is running a cell. It may be called in any thread."""
    return _result_of_cell() is not None


def running_cell() -> object | None:
    """Return an object that identifies the running cell; None if none runs. It may be called in any thread."""
    result = _result_of_cell()
    return None if result is None else weakref.ref(result)


def when_interrupted(callback: Callable[[], object]) -> None:
    """Call `callback` if the cell that is running now ends by an interrupt, whatever it is doing then."""
    shell = current_shell()

    def after_cell(result: Any) -> None:
        shell.events.unregister("post_run_cell", after_cell)
        # An interrupt of a cell that awaits is a CancelledError.
        if isinstance(getattr(result, "error_in_exec", None), KeyboardInterrupt | asyncio.CancelledError):
            callback()

    shell.events.register("post_run_cell", after_cell)


def _result_of_cell() -> Any:
    # IPython sets the result of a cell only while the cell runs.
    return getattr(getattr(current_shell(), "displayhook", None), "exec_result", None)


def watch_cells(home: Home) -> Callable[[], None]:
    """Notify the home of the start and end of each cell, beginning with this one; return a function that stops this."""
    shell = current_shell()
    if shell is None:
        return lambda: None
    shell.events.register("pre_run_cell", home.cell_starts)
    shell.events.register("post_run_cell", home.cell_ends)
    home.cell_starts()

    def leave() -> None:
        for event, callback in (("pre_run_cell", home.cell_starts), ("post_run_cell", home.cell_ends)):
            with contextlib.suppress(ValueError):
                shell.events.unregister(event, callback)

    return leave


def echo_here() -> Callable[[str], object]:
    """Return a function that prints a text under the cell that is running now, from any thread and at any time."""
    context, stream = contextvars.copy_context(), sys.stdout
    return lambda text: context.copy().run(stream.write, text)
