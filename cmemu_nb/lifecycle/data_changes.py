"""What has changed in the datasets and data streams since a journal wrote them."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Name = tuple[str, ...]
EVERYTHING: Name = ("everything",)


class Change(Enum):
    """What happened to a record: it was added or changed, it was removed, or it was removed and then added anew."""

    PUT = auto()
    REMOVED = auto()
    ANEW = auto()


class DataChanges:
    """The changes that are in no journal yet, as names only: the records are in the lifecycle.

    A name is the kind of a record and what identifies it in its dataset or data stream, such as `("branch", "master")`;
    `EVERYTHING` that was removed are all records of a RID. Nothing is collected while there is no journal.
    """

    __slots__ = ("_by_rid", "_collected")

    def __init__(self) -> None:
        self._by_rid: dict[str, dict[Name, Change]] = {}
        self._collected = False

    def collect(self, *, now: bool) -> None:
        """Begin to collect changes, or end it; what was collected is discarded."""
        self._collected = now
        self._by_rid = {}

    def put(self, rid: str, *name: str) -> None:
        """Note that a record was added or changed."""
        if not self._collected:
            return
        names = self._by_rid.setdefault(rid, {})
        if names.get(name) is Change.REMOVED:  # a journal keeps records in the order in which they were added
            del names[name]
            names[name] = Change.ANEW
        else:
            names.setdefault(name, Change.PUT)

    def remove(self, rid: str, *name: str) -> None:
        """Note that a record was removed."""
        if self._collected:
            self._by_rid.setdefault(rid, {})[name] = Change.REMOVED

    def remove_everything(self, rid: str) -> None:
        """Note that a dataset or data stream was deleted with all that belongs to it."""
        if self._collected:
            self._by_rid.pop(rid, None)
            self._by_rid[rid] = {EVERYTHING: Change.REMOVED}

    def __iter__(self) -> Iterator[tuple[str, Name, Change]]:
        """Return the changes in the order in which a journal must make them, each with the RID and the name."""
        return ((rid, name, change) for rid, names in self._by_rid.items() for name, change in names.items())

    def __bool__(self) -> bool:
        """Return whether there are any changes."""
        return bool(self._by_rid)
