"""The events: what happened, in order, with their subscribers and the bounded log.

Empty polls, chunks of a stream, evictions, records of data streams, and what modules do with the scratch cache come by
the thousand. Subscribers receive them like all other events, but the log keeps them apart, so that they never push the
others out.
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
    *("emulator_started", "emulator_stopped", "seed_applied", "signed_in"),
    *("session_opened", "session_reset", "session_deleted", "app_bound", "runtime_configured", "runtime_connected"),
    *(
        "schemas_posted",
        "schema_deleted",
        "mode_set",
        "import_error_set",
        "module_scaled",
        "upgrade_began",
        "replicas_switched",
        "switch_failed",
        "replica_added",
        "replica_started",
        "replica_ready",
        "replica_unresponsive",
        "replica_exited",
        "replica_removed",
    ),
    *("cache_put", "cache_deleted", "cache_evicted"),
    *("lock_acquired", "lock_refreshed", "lock_released", "lock_expired"),
    *("dataset_created", "dataset_deleted", "branch_created", "branch_deleted"),
    *("transaction_opened", "transaction_committed", "transaction_aborted", "transaction_evicted"),
    *("file_uploaded", "file_deleted", "dataset_schema_set"),
    *("job_queued", "job_started", "job_given_back", "job_succeeded", "job_failed", "job_cleared"),
    *("result_started", "result_chunk", "late_result", "poll_empty", "job_evicted", "eviction_began"),
    *("stream_created", "stream_reset", "stream_deleted", "records_published"),
    *("subscriber_created", "subscriber_moved", "subscriber_deleted"),
    *("journal_failed", "journal_written", "live_file_failed", "executor_restarted"),
    *("faults_changed", "fault_injected"),
    *(
        "unknown_query_type",
        "invalid_api_name",
        "request_refused",
        "nested_call",
        "listener_failed",
        "internal_error",
        "log",
    ),
)
QUIET = frozenset(
    {
        *("poll_empty", "result_chunk", "job_evicted", "cache_put", "cache_deleted", "cache_evicted", "lock_refreshed"),
        *("records_published", "subscriber_moved"),
    }
)
FINISHES_JOB = frozenset({"job_succeeded", "job_failed"})
"""After these a job has an outcome."""
STOPS_JOB = frozenset({"job_failed", "job_cleared"})
"""After these nobody needs the result of a job, so what runs it stops."""
ENDS_JOB = FINISHES_JOB | STOPS_JOB
ENDS_RUN = ENDS_JOB | {"job_given_back"}
"""After these the executor that received a job does not have it any more."""
ENDS_SESSION = frozenset({"session_reset", "session_deleted"})
# Any client can cause events, so they must not take the room of results: each of the two logs gets an eighth.
SHARE_OF_A_LOG = 8
MAX_DETAIL_BYTES = 16_384


class Event(msgspec.Struct, frozen=True, gc=False):
    """One thing that happened; `at` is in Unix nanoseconds, `detail` is a sentence or None."""

    sequence: int
    at: int
    kind: str
    runtime_id: str | None = None
    job_id: str | None = None
    detail: str | None = None

    def wire(self) -> dict[str, Any]:
        """Return the record as JSON-ready fields, the time in Unix milliseconds."""
        return {**msgspec.structs.asdict(self), "at": self.at // NS_PER_MS}


class _NewestEvents:
    """The newest events, at most `max_count` of them with at most `max_bytes`; `size` is how many bytes they have."""

    def __init__(self, events: collections.deque[Event], max_count: int, max_bytes: int) -> None:
        self.events = events
        self.size = sum(map(_size, events))
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._drop_oldest()

    def append(self, event: Event) -> None:
        self.events.append(event)
        self.size += _size(event)
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        while len(self.events) > self._max_count or (self.size > self._max_bytes and len(self.events) > 1):
            self.size -= _size(self.events.popleft())

    def clear(self) -> None:
        self.events.clear()
        self.size = 0


def _size(event: Event) -> int:
    # The size in memory: it includes what each text takes beside its characters, and is found without reading them.
    return getsizeof(event.runtime_id) + getsizeof(event.job_id) + getsizeof(event.detail)


class EventLog:
    """Numbers the events, keeps the newest `keep` of them and passes each on to every subscriber.

    Those that are kept take at most a quarter of `keep_bytes`.
    """

    def __init__(self, keep: int = 10_000, keep_bytes: int = DEFAULT_KEEP_BYTES) -> None:
        self._count = 0
        self._kept = self._quiet = _NewestEvents(collections.deque(), keep, 0)
        self.keep(keep, keep_bytes)
        self._subscribers: dict[object, Callable[[Event], object]] = {}
        self.cleared = 0
        self.masked = Mask()
        """Called with a text, returns it as an event shows it: without secrets."""

    def keep(self, count: int, size: int) -> None:
        """Keep `count` events from now on, and as many quiet ones, all within a quarter of `size` bytes."""
        self._kept = _NewestEvents(self._kept.events.copy(), count, size // SHARE_OF_A_LOG)
        self._quiet = _NewestEvents(self._quiet.events.copy(), count, size // SHARE_OF_A_LOG)

    @property
    def size(self) -> int:
        """How many bytes of memory the texts of all kept events take."""
        return self._kept.size + self._quiet.size

    def hide(self, *tokens: str) -> None:
        """Show only the last four characters of these tokens from now on; usual module tokens are always masked."""
        self.masked.add(*tokens)

    def emit(
        self, kind: str, at: int, runtime_id: str | None = None, job_id: str | None = None, detail: str | None = None
    ) -> Event:
        """Log one event and pass it to the subscribers; an exception of one is logged, and it stays subscribed."""
        event = self._log(kind, at, runtime_id, job_id, detail)
        self._publish(event, tuple(self._subscribers.values()))
        return event

    def _publish(self, event: Event, subscribers: tuple[Callable[[Event], object], ...]) -> None:
        sound, failures = [], []
        for receive in subscribers:
            try:
                receive(event)
                sound.append(receive)
            except Exception:  # noqa: BLE001 - the change has happened, whatever a listener raises
                detail = traceback.format_exc()
                failures.append(self._log("listener_failed", event.at, event.runtime_id, event.job_id, detail))
        for failure in failures:
            self._publish(failure, tuple(sound))

    def _log(self, kind: str, at: int, runtime_id: str | None, job_id: str | None, detail: str | None) -> Event:
        self._count += 1
        if detail is not None:
            detail = shortened(self.masked(detail), MAX_DETAIL_BYTES)
        event = Event(self._count, at, kind, runtime_id, job_id, detail)
        (self._quiet if kind in QUIET else self._kept).append(event)
        return event

    def subscribe(self, receive: Callable[[Event], object]) -> Callable[[], None]:
        """Call `receive(event)` for every event from now on; return the function that ends the subscription."""
        subscription = object()
        self._subscribers[subscription] = receive

        def unsubscribe() -> None:
            self._subscribers.pop(subscription, None)

        return unsubscribe

    @property
    def newest(self) -> int:
        """The number of the newest event that is not a quiet one, 0 if there is none."""
        try:
            return self._kept.events[-1].sequence
        except IndexError:
            return 0

    def keeps(self, event: Event) -> bool:
        """Return whether an event is still in the log."""
        log = (self._quiet if event.kind in QUIET else self._kept).events
        return bool(log) and log[0].sequence <= event.sequence

    def restore(self, events: list[Event]) -> None:
        """Adopt the events of another log, in a log that is empty."""
        for event in events:
            (self._quiet if event.kind in QUIET else self._kept).append(event)
        self._count = events[-1].sequence if events else 0

    def clear(self) -> None:
        """Forget every event; the numbers continue, and subscribers stay. `cleared` counts how often."""
        self._kept.clear()
        self._quiet.clear()
        self.cleared += 1

    def recent(self, *, all: bool = False) -> list[Event]:  # noqa: A002 - named as the option of the magic
        """Return the kept events, oldest first; `all=True` adds the quiet ones, which come by the thousand."""
        kept = list(self._kept.events)
        return sorted(kept + list(self._quiet.events), key=attrgetter("sequence")) if all else kept
