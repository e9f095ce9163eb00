"""The line that shows why `cmemu call` is waiting, as in a notebook, with the commands for a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from cmemu_nb.calls.diagnosis import Diagnosis
from cmemu_nb.calls.one_line import is_wanted, one_line
from cmemu_nb.calls.wait_line import PATIENCE_SECONDS, UPDATE_SECONDS, no_result
from cmemu_nb.errors import CmemuError
from cmemu_nb.server.routes.tools import JOBS

if TYPE_CHECKING:
    from cmemu_nb.cli.remote import Remote


async def diagnosis(remote: Remote, job_id: str) -> Diagnosis | None:
    """Return why a job has no result yet, or no value; None if that can't be found out."""
    with contextlib.suppress(CmemuError):
        answer = await remote.get(f"{JOBS}/{quote(job_id, safe='')}/diagnosis")
        return Diagnosis(answer["kind"], answer["sentence"], answer["explanation"] or "")
    return None


class RemoteWaitLine:
    """The line of one job, which is shown while an `async with` block waits for the job."""

    def __init__(self, remote: Remote, job_id: str, *, progress: bool) -> None:
        self._remote = remote
        self._job_id = job_id
        self._wanted = is_wanted(progress=progress)
        self._line = one_line()
        self.clear()

    def clear(self) -> None:
        """Remove the line, because output is about to be printed."""
        self._line.clear()
        self._since = asyncio.get_running_loop().time()
        self._due = self._since + PATIENCE_SECONDS if self._wanted else math.inf

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        self._line.clear()

    async def _watch(self) -> None:
        now = asyncio.get_running_loop().time
        while self._wanted:
            if now() < self._due:
                await asyncio.sleep(self._due - now())
                continue
            why = await diagnosis(self._remote, self._job_id)
            if now() >= self._due:  # no output came in the meantime
                self._due = now() + UPDATE_SECONDS
                if why is not None and why.kind != "finished":
                    self._line.show(why.kind, f"{no_result(now() - self._since)} {why}")
