"""Held requests: polls that wait for a job, and clients that wait for a result. Events wake them through futures."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING

from cmemu_nb.lifecycle.events import ENDS_RUN, ENDS_SESSION, FINISHES_JOB

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.lifecycle import Lifecycle

WAKES_ONE_POLL = frozenset({"job_queued", "job_given_back"})
FREES_A_SLOT = FINISHES_JOB | {"job_given_back", "replica_ready", "replicas_switched"}
WAKES_JOB = ENDS_RUN | {"job_started", "result_started", "result_chunk"}


Future = asyncio.Future[bool]


class LongPolls:
    """The held requests of one emulator, woken by its events."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._polls: defaultdict[str | None, OrderedDict[Future, None]] = defaultdict(OrderedDict)
        self._slots: defaultdict[str | None, set[Future]] = defaultdict(set)
        self._jobs: defaultdict[str | None, set[Future]] = defaultdict(set)
        self.close: Callable[[], None] = lifecycle.events.subscribe(self._on_event)

    async def for_queued_job(self, runtime_id: str, seconds: float) -> bool:
        """Wait until a job may be queued for a runtime, or its session ends; return False when the time is over."""
        future = _future(seconds)
        self._polls[runtime_id][future] = None
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                # The client disconnected just after the poll was woken: the job is for the next poll.
                self.pass_on(runtime_id)
            raise
        finally:
            self._polls[runtime_id].pop(future, None)
            if not self._polls[runtime_id]:
                del self._polls[runtime_id]

    def holds_poll(self, runtime_id: str) -> bool:
        """Return whether a poll of a runtime is held until there is a job for it. It may be called in any thread."""
        return runtime_id in self._polls or runtime_id in self._slots

    async def for_slot(self, runtime_id: str, seconds: float) -> bool:
        """Wait until a job of a runtime may have ended, or its session ends; return False when the time is over."""
        return await _wait_in(self._slots, runtime_id, seconds)

    async def for_change(self, job_id: str, seconds: float | None) -> bool:
        """Wait until the state of a job changes; return False when the time is over."""
        return await _wait_in(self._jobs, job_id, seconds)

    def _on_event(self, event: Event) -> None:
        job_id, runtime_id = event.job_id, event.runtime_id
        if job_id in self._jobs and event.kind in WAKES_JOB:
            for future in self._jobs[job_id]:
                _wake(future)
        if runtime_id in self._slots and event.kind in FREES_A_SLOT | ENDS_SESSION:
            for future in self._slots[runtime_id]:
                _wake(future)
        if runtime_id in self._polls:
            if event.kind in WAKES_ONE_POLL:
                self.pass_on(runtime_id)
            elif event.kind in ENDS_SESSION:
                for future in self._polls[runtime_id]:
                    _wake(future)

    def pass_on(self, runtime_id: str | None) -> None:
        """Wake the runtime's longest waiting poll."""
        polls = self._polls.get(runtime_id)
        while polls:
            future, _ = polls.popitem(last=False)
            if not future.done():
                future.set_result(True)
                return

    def end_polls(self) -> None:
        """End every held poll as if its time were over."""
        for futures in (*self._polls.values(), *self._slots.values()):
            for future in futures:
                _wake(future, False)  # noqa: FBT003


async def _wait_in(held: defaultdict[str | None, set[Future]], key: str, seconds: float | None) -> bool:
    future = _future(seconds)
    held[key].add(future)
    try:
        return await future
    finally:
        held[key].discard(future)
        if not held[key]:
            del held[key]


def _future(seconds: float | None) -> Future:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    if seconds is not None:
        timer = loop.call_later(seconds, _wake, future, False)  # noqa: FBT003
        future.add_done_callback(lambda _: timer.cancel())
    return future


def _wake(future: Future, woken: bool = True) -> None:  # noqa: FBT001, FBT002
    if not future.done():
        future.set_result(woken)
