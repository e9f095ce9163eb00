"""The summaries under an emulator's dashboards, brought up to date at the end of each cell in which something happened.

So a notebook that is saved, or executed by a program without a browser, shows how it ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmemu_nb.ipython import current_shell

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.lifecycle.events import EventLog


class Summaries:
    """Calls `rewrite()` of each dashboard that is shown, on the main thread. A cell that is run again has one."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._shell: Any = None
        self._shown: dict[object, Callable[[], object]] = {}
        self._written = 0

    def add(self, rewrite: Callable[[], object]) -> None:
        """Keep a summary up to date that the running cell shows, in place of the one that it has shown before."""
        if self._shell is None:
            self._shell = current_shell()
            self._shell.events.register("post_run_cell", self._after_cell)
        self._written = self._events.newest
        # Only some front ends say which cell they run.
        info = getattr(self._shell.displayhook.exec_result, "info", None)
        self._shown[getattr(info, "cell_id", None) or object()] = rewrite

    def remove(self, rewrite: Callable[[], object]) -> None:
        """Leave a summary as it is."""
        self._shown = {cell: each for cell, each in self._shown.items() if each != rewrite}
        if not self._shown and self._shell is not None:
            self._shell.events.unregister("post_run_cell", self._after_cell)
            self._shell = None

    def _after_cell(self, _: object) -> None:
        newest = self._events.newest
        if newest != self._written:
            self._written = newest
            for rewrite in list(self._shown.values()):
                rewrite()
