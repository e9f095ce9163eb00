"""Letting go of the oldest finished jobs, when more are kept than `keep_jobs` or `keep_bytes` say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.lifecycle import Lifecycle

ADDS_TO_WHAT_IS_KEPT = frozenset({"job_queued", "job_succeeded", "job_failed"})
MAX_AT_ONCE = 200


class Eviction:
    """Keeps a lifecycle within its limits, a few jobs at a time, on the emulator's loop."""

    def __init__(self, lifecycle: Lifecycle, loop: asyncio.AbstractEventLoop, keep_jobs: int, keep_bytes: int) -> None:
        self._lifecycle = lifecycle
        self._loop = loop
        self._keep_jobs = keep_jobs
        self._keep_bytes = keep_bytes
        self._handle: asyncio.Handle | None = None
        self._began = False
        self._unsubscribe: Callable[[], None] = lifecycle.events.subscribe(self._on_event)
        self._look()

    def _on_event(self, event: Event) -> None:
        if event.kind in ADDS_TO_WHAT_IS_KEPT:
            self._look()

    def _look(self) -> None:
        over = self._lifecycle.keeps_more_than(self._keep_jobs, self._keep_bytes)
        if self._handle is None and over and self._lifecycle.evictable:
            # Not at once, and not what finishes meanwhile: whoever waits for a job is to read its result before.
            self._handle = self._loop.call_soon(self._evict, min(self._lifecycle.evictable, MAX_AT_ONCE))

    def _evict(self, most: int) -> None:
        self._handle = None
        count = self._lifecycle.evict(self._keep_jobs, self._keep_bytes, most)
        if count and not self._began:
            self._began = True
            limits = f"keep_jobs={self._keep_jobs}, keep_bytes={self._keep_bytes}"
            self._lifecycle.note(
                "eviction_began", detail=f"the oldest finished jobs are let go from now on, to keep within {limits}"
            )
        self._look()

    def close(self) -> None:
        """Keep everything from now on."""
        self._unsubscribe()
        if self._handle is not None:
            self._handle.cancel()
