"""The slots for running jobs: how many there are, and which functions hold them when none is free."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

from cmemu_nb.lifecycle.records import JobStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.emulator import Emulator
    from cmemu_nb.lifecycle.state import State


class Slots(NamedTuple):
    """The slots of some runtimes: their `number`, None if it is unknown, and what holds them while none is free.

    `full` has the runtimes whose slots are all taken while jobs wait for one, or every runtime if no slot is free at
    all; `holders` says how many of their slots each function holds.
    """

    number: int | None
    full: list[str]
    holders: Counter[str]


class RuntimeSlots(NamedTuple):
    """How many slots the executors of one runtime have, and the ids of the jobs that hold them."""

    slots: int
    held: list[str]

    @property
    def full(self) -> bool:
        """Whether no slot is free."""
        return len(self.held) >= self.slots


def slots(emulator: Emulator) -> Slots:
    """Return the slots of the executors in cells and of the replicas that poll, of all runtimes.

    Their number is unknown while jobs run on a runtime whose executor has no limit, or is not known to poll.
    """
    state, executors = emulator.lifecycle, slots_by_runtime(emulator)
    running = Counter({name: state.count(name)[JobStatus.RUNNING] for name in executors if state.has_runtime(name)})
    known = bool(executors) and state.count()[JobStatus.RUNNING] <= running.total()
    full = [name for name, each in executors.items() if each.full]
    if len(full) < len(executors):
        full = [name for name in full if state.has_runtime(name) and state.queue_depth(name)]
    held = (job_id for name in full for job_id in executors[name].held)
    number = sum(each.slots for each in executors.values())
    return Slots(number if known else None, full, _functions(state, held))


def slots_by_runtime(emulator: Emulator) -> dict[str, RuntimeSlots]:
    """Return the slots of each runtime that has an executor in cells or a replica that polls."""
    found: defaultdict[str, RuntimeSlots] = defaultdict(lambda: RuntimeSlots(0, []))

    def add(runtime_id: str, slots: int, held: list[str]) -> None:
        before = found[runtime_id]
        found[runtime_id] = RuntimeSlots(before.slots + slots, before.held + held)

    for executor in emulator.functions.executors:
        if executor.takes_jobs:
            add(executor.runtime_id, executor.slots, [thread.job_id for thread in executor.busy])
    for replica in emulator.lifecycle.replicas():
        if replica.takes_jobs and replica.max_concurrent_tasks:
            add(replica.runtime_id, replica.max_concurrent_tasks, list(replica.held))
    return dict(found)


def _functions(state: State, job_ids: Iterable[str]) -> Counter[str]:
    jobs = map(state.find_job, job_ids)
    return Counter(job.query_type for job in jobs if job is not None)
