"""What a dashboard sends ahead while a cell runs, to a browser whose messages arrive only when the cell ends.

That is so where the kernel has no subshells, or the front end does not use them. The browser then has the data of each
tab, and the newest jobs, before somebody chooses them; so they are shown at once, and searched in the browser.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from cmemu_nb.dashboard.board import Changes
from cmemu_nb.dashboard.job_list import JobFilter, JobList
from cmemu_nb.dashboard.job_rows import JobRows
from cmemu_nb.eventloop.shell import running_cell

if TYPE_CHECKING:
    from cmemu_nb.dashboard.panels import Part
    from cmemu_nb.lifecycle.state import State

AHEAD_SECONDS = 1.0
MAX_ROWS = 500
MAX_TIMELINE = 5_000
NOTHING, EVERYTHING = (Changes(set(), each, each) for each in (False, True))


class Ahead:
    """When the tabs that are not open are sent, too: once a second, after a cell has run for a second.

    `active` says whether that is so now.
    """

    def __init__(self) -> None:
        self.active = False
        self._waits_for_cells = False
        self._cell: object | None = None
        self._at = 0.0
        self._missed = EVERYTHING
        self._rows = JobRows()

    def heard(self) -> None:
        """Note in which thread a message of the browser has arrived: a cell that runs blocks the main one."""
        self._waits_for_cells = threading.current_thread() is threading.main_thread()

    def due(self, changes: Changes) -> Changes | None:
        """Return the changes since the tabs that are not open were sent, or None if they are not to be sent now."""
        cell, now = running_cell() if self._waits_for_cells else None, time.monotonic()
        if cell != self._cell:
            self.active, self._cell, self._at, self._missed = False, cell, now, EVERYTHING
        if cell is None:  # the first changes that are sent while a cell runs are all
            return None
        self._missed = self._missed.and_later(changes)
        if now - self._at < AHEAD_SECONDS:
            return None
        since, self._missed = self._missed, NOTHING
        self.active, self._at = True, now
        return since

    def newest_part(self, state: State) -> Part:
        """Return the rows of the newest jobs, whatever the filter is."""
        jobs = JobList(state, JobFilter())
        return {"rows": self._rows.of(jobs.newest(MAX_ROWS)), "every": len(jobs)}
