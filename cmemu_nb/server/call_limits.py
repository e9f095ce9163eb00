"""The limits that Foundry's API has for each caller, as settings that are off by default [foundry].

A caller is a user, or the service user of an OAuth client. The requests of executors are never limited.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cmemu_nb.errors import TooManyRequests
from cmemu_nb.lifecycle.events import ENDS_JOB
from cmemu_nb.phrases import plural
from cmemu_nb.server.auth import Auth
from cmemu_nb.wire.paths import CONTOUR, DEPLOYED_APPS, PUBLIC_API

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.server.auth import Caller
    from cmemu_nb.server.routing import Route

MINUTE = 60.0
EVENT_SECONDS = 1.0
"""A caller's refusals are at most one event in this time, so that they do not displace the other events."""
LIMITED_PATHS = (*PUBLIC_API, CONTOUR, DEPLOYED_APPS)
TIME_LIMIT = "the time limit of the call is over"


def is_limited(route: Route) -> bool:
    """Return whether the limits apply to a route: whether callers of Foundry's API use it."""
    return route.auth in (Auth.BEARER, Auth.DATA) and route.path.startswith(LIMITED_PATHS)


@dataclass
class _Use:
    """What one caller has requested: the times of the last minute's requests, and the refusals."""

    times: deque[float] = field(default_factory=deque)
    refusals: int = 0
    event_at: float = -math.inf


class CallLimits:
    """The limits of requests in a minute and of requests at once, each None if it is off.

    `note(detail)` is called for refusals. `clock` returns seconds.
    """

    def __init__(
        self,
        per_minute: int | None,
        concurrent: int | None,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_minute = per_minute
        self._concurrent = concurrent
        self._note = note
        self._clock = clock
        self._uses: dict[Caller, _Use] = {}
        self._held: Counter[Caller] = Counter()

    @property
    def on(self) -> bool:
        """Whether any of the limits is set."""
        return self._per_minute is not None or self._concurrent is not None

    def count(self, caller: Caller | None) -> None:
        """Count a request of a caller. Raises `TooManyRequests` if the last minute has as many as are allowed.

        A refused request does not count. Service users have no such limit [foundry].
        """
        limit = self._per_minute
        if limit is None or caller is None or caller.service:
            return
        now, times = self._clock(), self._use(caller).times
        while times and times[0] <= now - MINUTE:
            times.popleft()
        if len(times) >= limit:
            seconds = max(1, math.ceil(times[0] + MINUTE - now))
            error = TooManyRequests(
                f"In the last minute {caller} has sent {plural(limit, 'request')}, as many as max_requests_per_minute "
                f"allows. Send this one again in {seconds} s.",
                seconds,
            )
            raise self._refused(caller, error)
        times.append(now)

    def check_held(self, caller: Caller | None) -> None:
        """Raise `TooManyRequests` if as many requests of a caller are being processed as are allowed."""
        limit = self._concurrent
        if limit is not None and caller is not None and self._held[caller] >= limit:
            error = TooManyRequests(
                f"{plural(limit, 'request')} of {caller} {'is' if limit == 1 else 'are'} being processed, as many as "
                "max_concurrent_requests allows. Send this one again when one of them has its answer."
            )
            raise self._refused(caller, error)

    def hold(self, caller: Caller | None, task: asyncio.Task[None]) -> None:
        """Count a request as being processed until its task is done."""
        if caller is not None:
            self._held[caller] += 1
            task.add_done_callback(lambda _: self._release(caller))

    def _release(self, caller: Caller) -> None:
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]

    def _use(self, caller: Caller) -> _Use:
        return self._uses.setdefault(caller, _Use())

    def _refused(self, caller: Caller, error: TooManyRequests) -> TooManyRequests:
        """Record a refusal, unless the caller had one a moment ago; the number in the next event includes it."""
        use, now = self._use(caller), self._clock()
        use.refusals += 1
        if now >= use.event_at + EVENT_SECONDS:
            use.event_at = now
            before = f" It is the refusal number {use.refusals} of this caller." if use.refusals > 1 else ""
            self._note(f"{error.status} {error.code}: {error}{before}")
        return error


class CallTimers:
    """Fails the job of a call that has no result after `seconds`; None for no limit.

    `explain(job_id)` says why a job has no result.
    """

    def __init__(self, lifecycle: Lifecycle, seconds: float | None, explain: Callable[[str], object]) -> None:
        self.seconds = seconds
        self._lifecycle = lifecycle
        self._explain = explain
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._unsubscribe = lifecycle.events.subscribe(self._on_event) if seconds is not None else lambda: None

    def start(self, loop: asyncio.AbstractEventLoop, job_id: str) -> None:
        """Begin the time of a call whose job has been submitted."""
        if self.seconds is not None:
            self._timers[job_id] = loop.call_later(self.seconds, self._expire, job_id)

    def _on_event(self, event: Event) -> None:
        if event.kind in ENDS_JOB and (timer := self._timers.pop(event.job_id or "", None)):
            timer.cancel()

    def _expire(self, job_id: str) -> None:
        reason = f"{TIME_LIMIT}: no result within {self.seconds:g} s (function_timeout). {self._explain(job_id)}"
        self._lifecycle.fail(job_id, reason)

    def close(self) -> None:
        """Stop the timers."""
        self._unsubscribe()
        for timer in self._timers.values():
            timer.cancel()
