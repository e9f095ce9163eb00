"""The dashboard as plain HTML: what is left of it in a saved notebook when the kernel is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.dashboard.job_panels import job_row
from cmemu_nb.dashboard.panels import runtimes_part
from cmemu_nb.display.html import Html, card, status_badge, table, two_lines
from cmemu_nb.display.text import short_id, tally, when

if TYPE_CHECKING:
    from cmemu_nb.emulator import Emulator

MOST_JOBS = 20


def summary(emulator: Emulator) -> Html:
    """Return a collapsed summary: how many jobs there were, the runtimes, and the newest jobs."""
    now = emulator.looked_at()
    total = tally(emulator.lifecycle.outcomes()) or "no jobs"
    pieces = (
        card("Emulator", [("URL", emulator.url), ("jobs", total), ("written", when(now))]),
        _runtimes(emulator, now),
        _jobs(emulator, emulator.steady_at()),
    )
    heading = f"Summary of the dashboard, written {when(now)}: {total}"
    # The attribute keeps JupyterLab from taking keys that are pressed on the heading for those of its command mode.
    return Html(f"<details><summary data-lm-suppress-shortcuts='true'>{heading}</summary>{''.join(pieces)}</details>")


def _runtimes(emulator: Emulator, now: int) -> Html:
    rows = [
        {
            "runtime": two_lines(row["name"]),
            "state": status_badge(row["state"]["badge"]),
            "last poll": row["last_poll"],
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
    for job in emulator.lifecycle.newest_jobs(MOST_JOBS):
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
    return table(f"The newest {MOST_JOBS} jobs", columns, rows, "There were no jobs.", compact=True)
