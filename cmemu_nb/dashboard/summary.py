"""The summary below a dashboard: plain HTML, which a saved notebook still shows without a kernel.

It is updated at the end of each cell in which something happened, so that a notebook that is saved, or executed by a
program without a browser, shows the final state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmemu_nb.dashboard.job_panels import job_row
from cmemu_nb.dashboard.runtimes import runtimes_part
from cmemu_nb.display.html import Html, card, status_badge, table, two_lines
from cmemu_nb.display.text import ago, short_id, tally, when
from cmemu_nb.ipython import current_shell
from cmemu_nb.lifecycle.records import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.emulator import Emulator
    from cmemu_nb.lifecycle.events import EventLog

MAX_JOBS = 20


def summary(emulator: Emulator) -> Html:
    """Return a collapsed summary: the counts of jobs, the runtimes, and the newest jobs."""
    now = emulator.looked_at()
    total = tally(emulator.lifecycle.outcomes()) or "no jobs"
    pieces = (
        card("Emulator", [("URL", emulator.url), ("jobs", total), ("written", when(now))]),
        _runtimes(emulator, now),
        _jobs(emulator, emulator.steady_at()),
    )
    heading = f"Summary of the dashboard, written {when(now)}: {total}"
    # The attribute keeps JupyterLab from handling keys pressed on the heading as those of its command mode.
    return Html(f"<details><summary data-lm-suppress-shortcuts='true'>{heading}</summary>{''.join(pieces)}</details>")


def _runtimes(emulator: Emulator, now: int) -> Html:
    rows = [
        {
            "runtime": two_lines(row["name"]),
            "state": status_badge(row["state"]),
            "last poll": ago(row["polled_at"] and row["polled_at"] * NS_PER_S, now),
            "queued": row["queued"],
            "running": row["running"],
            "bound apps": two_lines(", ".join(row["apps"])),
            "functions": two_lines(", ".join(row["functions"])),
        }
        for row in runtimes_part(emulator, now)["rows"]
    ]
    columns = ("runtime", "state", "last poll", "queued", "running", "bound apps", "functions")
    return table("Runtimes", columns, rows, "There were no runtimes.", compact=True)


def _jobs(emulator: Emulator, now: int) -> Html:
    rows = []
    for job in emulator.lifecycle.newest_jobs(MAX_JOBS):
        words = job_row(job, now)
        rows.append(
            {
                "function": two_lines(words["function"]),
                "runtime": two_lines(words["runtime"]),
                "state": status_badge(job.status, job.outcome),
                "queued at (UTC)": words["queued_at"],
                "queue time": words["queue_time"],
                "run time": words["run_time"],
                "job": short_id(job.job_id),
            }
        )
    columns = ("function", "runtime", "state", "queued at (UTC)", "queue time", "run time", "job")
    return table(f"The newest {MAX_JOBS} jobs", columns, rows, "There were no jobs.", compact=True)


class Summaries:
    """The summaries below the dashboards that are shown; each cell has one at most.

    At the end of each cell in which something happened it calls `rewrite()` of each summary, on the main thread.
    """

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._shell: Any = None
        self._shown: dict[object, Callable[[], object]] = {}
        self._written = 0

    def add(self, rewrite: Callable[[], object]) -> None:
        """Add the summary that the running cell shows; it replaces one that an earlier run of this cell has shown."""
        if self._shell is None:
            self._shell = current_shell()
            self._shell.events.register("post_run_cell", self._after_cell)
        self._written = self._events.newest
        # Only some front ends send the id of the cell.
        info = getattr(self._shell.displayhook.exec_result, "info", None)
        self._shown[getattr(info, "cell_id", None) or object()] = rewrite

    def remove(self, rewrite: Callable[[], object]) -> None:
        """Stop updating a summary."""
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
