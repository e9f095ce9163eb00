"""The scratch space of one session: the cache and the locks that the replicas of a compute module share [foundry].

Nothing here is kept in a journal or an export: on the platform, too, it has no guarantee of durability.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.wire.labels import size_of

if TYPE_CHECKING:
    from collections.abc import Iterable

# The SDK's documentation says how long a lock lasts without a refresh; the limits are ours.
LEASE_SECONDS = 20
MAX_LOCKS = 1000
MAX_VALUE_BYTES = 16 * 1024**2
MAX_CACHE_BYTES = 64 * 1024**2
# What an entry takes in memory beside its texts, about.
ENTRY_BYTES = 300


class CacheEntry(msgspec.Struct, frozen=True, gc=False):
    """A value in the cache; `ends_at` is in nanoseconds of the steady clock, `size` in bytes."""

    value: str
    ends_at: int
    size: int


class Lock(msgspec.Struct, frozen=True, gc=False):
    """A lock that a replica holds until it unlocks it, or until `ends_at`, in nanoseconds of the steady clock."""

    name: str
    lock_id: str
    replica_id: str
    ends_at: int


class Scratch:
    """The cache, its oldest entry first, and the locks, in the order in which their leases end.

    `size` is the number of bytes of the cache, at most `MAX_CACHE_BYTES`.
    """

    __slots__ = ("cache", "locks", "size")

    def __init__(self) -> None:
        self.cache: OrderedDict[str, CacheEntry] = OrderedDict()
        self.locks: OrderedDict[str, Lock] = OrderedDict()
        self.size = 0

    def values(self, keys: Iterable[str], now: int) -> dict[str, str]:
        """Return the values of those keys that are in the cache."""
        entries = {key: self.cache.get(key) for key in keys}
        return {key: entry.value for key, entry in entries.items() if entry is not None and entry.ends_at > now}

    def put(self, key: str, value: str, ends_at: int) -> list[str]:
        """Put a value into the cache, and return the keys of the oldest entries that were removed to make room."""
        self.drop(key)
        self.cache[key] = entry = CacheEntry(value, ends_at, size_of(key) + size_of(value) + ENTRY_BYTES)
        self.size += entry.size
        removed = []
        while self.size > MAX_CACHE_BYTES:
            removed.append(next(iter(self.cache)))
            self.drop(removed[-1])
        return removed

    def drop(self, key: str) -> CacheEntry | None:
        """Remove an entry from the cache and return it; None if there is none."""
        entry = self.cache.pop(key, None)
        if entry is not None:
            self.size -= entry.size
        return entry

    def lock(self, lock: Lock) -> None:
        """Hold a lock: a new one, or one whose lease begins again."""
        self.locks[lock.name] = lock
        self.locks.move_to_end(lock.name)

    def pop_ended(self, now: int) -> Lock | None:
        """Release a lock whose lease has ended, and return it; None if there is none."""
        first = next(iter(self.locks.values()), None)
        return self.locks.pop(first.name) if first is not None and first.ends_at <= now else None
