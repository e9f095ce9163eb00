"""The eviction of the oldest finished jobs, when more are kept than `keep_jobs` or `keep_bytes` allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.lifecycle import Lifecycle

ADDS_TO_KEPT = frozenset({"job_queued", "job_succeeded", "job_failed"})
MAX_AT_ONCE = 200


class Eviction:
    """Keeps a lifecycle within its limits by evicting a few jobs at a time, on the emulator's loop."""

    def __init__(self, lifecycle: Lifecycle, loop: asyncio.AbstractEventLoop, keep_jobs: int, keep_bytes: int) -> None:
        self._lifecycle = lifecycle
        self._loop = loop
        self._keep_jobs = keep_jobs
        self._keep_bytes = keep_bytes
        self._handle: asyncio.Handle | None = None
        self._began = False
        self._unsubscribe: Callable[[], None] = lifecycle.events.subscribe(self._on_event)
        self._schedule()

    def _on_event(self, event: Event) -> None:
        if event.kind in ADDS_TO_KEPT:
            self._schedule()

    def _schedule(self) -> None:
        over = self._lifecycle.keeps_more_than(self._keep_jobs, self._keep_bytes)
        if self._handle is None and over and self._lifecycle.evictable:
            # Not at once, nor jobs that finish meanwhile: a client that waits for one must read its result first.
            self._handle = self._loop.call_soon(self._evict, min(self._lifecycle.evictable, MAX_AT_ONCE))

    def _evict(self, max_count: int) -> None:
        self._handle = None
        count = self._lifecycle.evict(self._keep_jobs, self._keep_bytes, max_count)
        if count and not self._began:
            self._began = True
            limits = f"keep_jobs={self._keep_jobs}, keep_bytes={self._keep_bytes}"
            self._lifecycle.note(
                "eviction_began", detail=f"the oldest finished jobs are evicted from now on, to keep within {limits}"
            )
        self._schedule()

    def close(self) -> None:
        """Evict nothing from now on."""
        self._unsubscribe()
        if self._handle is not None:
            self._handle.cancel()
