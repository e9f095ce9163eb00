"""The job whose function the calling code runs in."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmemu_nb.executors.cells.job_thread import JobThread

RUNNING: ContextVar[JobThread | None] = ContextVar("cmemu_running_job", default=None)
"""The thread of the job whose function runs in this context; None outside functions in cells."""
