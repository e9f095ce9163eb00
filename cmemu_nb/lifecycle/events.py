"""What happened, in order: event records, their subscribers, and the bounded log.

Empty polls, chunks of a stream and evictions come by the thousand; they are told to the subscribers
like everything else but kept apart, so that they never push the rest out of the log.
"""

from __future__ import annotations

import collections
import traceback
from operator import attrgetter
from sys import getsizeof
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.lifecycle.records import NS_PER_MS
from cmemu_nb.settings import DEFAULT_KEEP_BYTES
from cmemu_nb.wire.labels import shortened
from cmemu_nb.wire.masking import Mask

if TYPE_CHECKING:
    from collections.abc import Callable

# Every kind of event there is.
KINDS = (
    *("emulator_started", "emulator_stopped", "seed_applied"),
    *("session_opened", "session_reset", "session_deleted", "app_bound", "runtime_connected"),
    *("schemas_posted", "schema_deleted", "replica_added", "replica_started", "replica_exited", "replica_removed"),
    *("job_queued", "job_started", "job_given_back", "job_succeeded", "job_failed", "job_cleared"),
    *("result_started", "result_chunk", "late_result", "poll_empty", "job_evicted", "eviction_began"),
    *("journal_failed", "journal_written", "live_file_failed", "executor_restarted"),
    *("faults_changed", "fault_injected"),
    *("unknown_query_type", "request_refused", "nested_call", "listener_failed", "internal_error", "log"),
)
QUIET = frozenset({"poll_empty", "result_chunk", "job_evicted"})
# Anybody can cause events, so they may not take the room of results: an eighth for each of the two logs.
SHARE_OF_A_LOG = 8
MAX_DETAIL_BYTES = 16_384


class Event(msgspec.Struct, frozen=True, gc=False):
    """One thing that happened; `at` is Unix nanoseconds, `detail` one sentence or nothing."""

    sequence: int
    at: int
    kind: str
    runtime_id: str | None = None
    job_id: str | None = None
    detail: str | None = None

    def wire(self) -> dict[str, Any]:
        """Return the record as JSON-ready fields, the time in Unix milliseconds."""
        return {**msgspec.structs.asdict(self), "at": self.at // NS_PER_MS}


class _Newest:
    """The newest events, at most `count` of them that have at most `most` bytes; `size` is how many they have."""

    def __init__(self, events: collections.deque[Event], count: int, most: int) -> None:
        self.events = events
        self.size = sum(map(_size, events))
        self._count = count
        self._most = most
        self._drop_oldest()

    def append(self, event: Event) -> None:
        self.events.append(event)
        self.size += _size(event)
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        while len(self.events) > self._count or (self.size > self._most and len(self.events) > 1):
            self.size -= _size(self.events.popleft())

    def clear(self) -> None:
        self.events.clear()
        self.size = 0


def _size(event: Event) -> int:
    # In Python's memory: with what each text takes beside its characters, and found without looking at them.
    return getsizeof(event.runtime_id) + getsizeof(event.job_id) + getsizeof(event.detail)


class EventLog:
    """Numbers the events, keeps the newest `keep` of them and tells each to every subscriber.

    They have at most a quarter of `keep_bytes`.
    """

    def __init__(self, keep: int = 10_000, keep_bytes: int = DEFAULT_KEEP_BYTES) -> None:
        self._count = 0
        self._kept = self._quiet = _Newest(collections.deque(), keep, 0)
        self.keep(keep, keep_bytes)
        self._subscribers: dict[object, Callable[[Event], object]] = {}
        self.cleared = 0
        self.masked = Mask()
        """Returns a text as an event shows it, without secrets."""

    def keep(self, count: int, size: int) -> None:
        """Keep this many events from now on, and as many empty polls and chunks, all within a quarter of `size`."""
        self._kept = _Newest(self._kept.events.copy(), count, size // SHARE_OF_A_LOG)
        self._quiet = _Newest(self._quiet.events.copy(), count, size // SHARE_OF_A_LOG)

    @property
    def size(self) -> int:
        """How many bytes of memory the texts of all kept events take."""
        return self._kept.size + self._quiet.size

    def hide(self, *tokens: str) -> None:
        """Show no more than the last four characters of these tokens too from now on; of usual module tokens always."""
        self.masked.add(*tokens)

    def emit(
        self, kind: str, at: int, runtime_id: str | None = None, job_id: str | None = None, detail: str | None = None
    ) -> Event:
        """Log one event and tell it to the subscribers; one that raises is logged and stays subscribed."""
        event = self._log(kind, at, runtime_id, job_id, detail)
        self._tell(event, tuple(self._subscribers.values()))
        return event

    def _tell(self, event: Event, subscribers: tuple[Callable[[Event], object], ...]) -> None:
        sound, failures = [], []
        for tell in subscribers:
            try:
                tell(event)
                sound.append(tell)
            except Exception:  # noqa: BLE001 - whatever a listener does, the change has happened
                detail = traceback.format_exc()
                failures.append(self._log("listener_failed", event.at, event.runtime_id, event.job_id, detail))
        for failure in failures:
            self._tell(failure, tuple(sound))

    def _log(self, kind: str, at: int, runtime_id: str | None, job_id: str | None, detail: str | None) -> Event:
        self._count += 1
        if detail is not None:
            detail = shortened(self.masked(detail), MAX_DETAIL_BYTES)
        event = Event(self._count, at, kind, runtime_id, job_id, detail)
        (self._quiet if kind in QUIET else self._kept).append(event)
        return event

    def subscribe(self, tell: Callable[[Event], object]) -> Callable[[], None]:
        """Call `tell(event)` for every event from now on; returns the function that ends it."""
        subscription = object()
        self._subscribers[subscription] = tell

        def unsubscribe() -> None:
            self._subscribers.pop(subscription, None)

        return unsubscribe

    @property
    def newest(self) -> int:
        """The number of the newest event that is none of the quiet ones, 0 without any."""
        try:
            return self._kept.events[-1].sequence
        except IndexError:
            return 0

    def keeps(self, event: Event) -> bool:
        """Tell whether an event is still in the log."""
        log = (self._quiet if event.kind in QUIET else self._kept).events
        return bool(log) and log[0].sequence <= event.sequence

    def restore(self, events: list[Event]) -> None:
        """Take over the events of another log, into one that has none."""
        for event in events:
            (self._quiet if event.kind in QUIET else self._kept).append(event)
        self._count = events[-1].sequence if events else 0

    def clear(self) -> None:
        """Forget every event; numbers go on, subscribers stay. `cleared` counts how often."""
        self._kept.clear()
        self._quiet.clear()
        self.cleared += 1

    def recent(self, *, all: bool = False) -> list[Event]:  # noqa: A002 - named as the option of the magic
        """Return the kept events, oldest first; `all=True` adds the quiet ones: empty polls, chunks, evictions."""
        kept = list(self._kept.events)
        return sorted(kept + list(self._quiet.events), key=attrgetter("sequence")) if all else kept
