"""What an emulator's own events say of its jobs: each from its submission to its one end, first in, first out."""

from __future__ import annotations

import bisect
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmemu_nb import Emulator
    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.records import Job

FAULTS = {"internal_error", "listener_failed", "log"}
ENDS = {"job_succeeded": "succeeded", "job_failed": "failed", "job_cleared": "cleared"}


@dataclass(eq=False)
class TrueJob:
    """A job; `ticket` is the number in its query, `session` the token of the session that it belongs to."""

    job_id: str
    ticket: int
    runtime: str
    session: str
    app: str | None
    status: str = "queued"  # or running, succeeded, failed, cleared
    gone: bool = False  # with its session
    result: bytes | None = None
    error: str | None = None
    replica: str | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDS.values()


class Truth:
    """Listens to an emulator, and notes in `wrong` whatever must never happen in whichever order."""

    def __init__(self, emulator: Emulator) -> None:
        self.jobs: dict[str, TrueJob] = {}
        self.by_ticket: dict[int, TrueJob] = {}
        self.tokens: dict[str, str] = {}
        self.wrong: list[str] = []
        self._queues: defaultdict[str, list[int]] = defaultdict(list)
        self._order: dict[str, int] = {}
        self._by_order: dict[int, TrueJob] = {}
        self._limits: dict[str, int] = {}
        self._lifecycle = emulator.lifecycle
        self.stop = emulator.lifecycle.events.subscribe(self._hear)

    def queue(self, runtime: str) -> list[TrueJob]:
        return [self._by_order[number] for number in list(self._queues[runtime])]

    def of(self, runtime: str, *statuses: str) -> list[TrueJob]:
        """Return the jobs of the runtime's present session, in the order of submission."""
        there = [job for job in list(self.jobs.values()) if job.runtime == runtime and not job.gone]
        return [job for job in there if not statuses or job.status in statuses]

    def held_by(self, replica: str) -> int:
        return sum(job.replica == replica and job.status == "running" for job in list(self.jobs.values()))

    def limit(self, replica: str, most: int) -> None:
        self._limits[replica] = most

    # On the emulator's loop

    def _hear(self, event: Event) -> None:
        try:
            self._note(event, event.runtime_id or "", event.job_id or "")
        except Exception as error:  # noqa: BLE001 - a listener's own fault would only be logged
            self.wrong.append(f"{event}: {error!r}")

    def _note(self, event: Event, runtime: str, job_id: str) -> None:
        if event.kind in ("session_opened", "session_reset"):
            self._end_session(runtime)
            self.tokens[runtime] = self._lifecycle.runtime(runtime).module_auth_token
        elif event.kind == "session_deleted":
            self._end_session(runtime)
            del self.tokens[runtime]
        elif event.kind == "job_queued":
            self._queued(self._lifecycle.job(job_id))
        elif event.kind == "job_started":
            self._started(self.jobs[job_id])
        elif event.kind == "job_given_back":
            self._given_back(self.jobs[job_id])
        elif event.kind in ENDS:
            self._ended(self.jobs[job_id], ENDS[event.kind])
        elif event.kind in FAULTS:
            self.wrong.append(f"{event.kind}: {event.detail}")

    def _end_session(self, runtime: str) -> None:
        for job in self.of(runtime):
            job.gone = True

    def _queued(self, record: Job) -> None:
        ticket = json.loads(record.query)["ticket"]
        session = self.tokens[record.runtime_id]
        job = TrueJob(record.job_id, ticket, record.runtime_id, session, record.deployed_app_rid)
        self._expect(ticket not in self.by_ticket and job.job_id not in self.jobs, f"{job} is new")
        self.jobs[job.job_id] = self.by_ticket[ticket] = job
        self._order[job.job_id] = len(self._order)
        self._by_order[self._order[job.job_id]] = job
        self._queues[job.runtime].append(self._order[job.job_id])

    def _started(self, job: TrueJob) -> None:
        self._expect(self._queues[job.runtime][:1] == [self._order[job.job_id]], f"{job} is the oldest that is queued")
        self._leave_queue(job)
        job.status, job.replica = "running", self._lifecycle.job(job.job_id).replica_id
        most = self._limits.get(job.replica or "")
        self._expect(most is None or self.held_by(job.replica or "") <= most, f"the replica of {job} may hold it")

    def _given_back(self, job: TrueJob) -> None:
        self._expect(job.status == "running", f"{job} ran before it was given back")
        job.status, job.replica = "queued", None
        bisect.insort(self._queues[job.runtime], self._order[job.job_id])

    def _ended(self, job: TrueJob, status: str) -> None:
        self._expect(not job.ended, f"{job} ends once, not again as {status}")
        self._expect(job.gone == (status == "cleared"), f"{job} is {status} in its own session only")
        self._expect(status != "succeeded" or job.status == "running", f"{job} ran before it succeeded")
        self._leave_queue(job)
        job.status = status
        if status != "cleared":
            record = self._lifecycle.job(job.job_id)
            job.result, job.error = record.result, record.error_message

    def _leave_queue(self, job: TrueJob) -> None:
        if self._order[job.job_id] in self._queues[job.runtime]:
            self._queues[job.runtime].remove(self._order[job.job_id])

    def _expect(self, holds: object, what: str) -> None:
        if not holds:
            self.wrong.append(f"it is not true that {what}")
