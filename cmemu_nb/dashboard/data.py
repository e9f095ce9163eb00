"""The dashboard's data of datasets and streams: a line for each, without reading what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmemu_nb.dashboard.panels import Part, plain
from cmemu_nb.display.text import MISSING, size_in_words
from cmemu_nb.foundry.summaries import dataset_summary, histories, logs, stream_summary
from cmemu_nb.lifecycle.datasets import MASTER
from cmemu_nb.lifecycle.records import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from cmemu_nb.lifecycle.data_streams import StreamLog
    from cmemu_nb.lifecycle.datasets import DatasetHistory
    from cmemu_nb.lifecycle.state import State

MAX_ROWS = 200


class DataList:
    """The lines of all datasets and streams. A line is made again only when its dataset or stream has changed."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lines: dict[Hashable, tuple[Hashable, Part]] = {}

    def part(self) -> Part:
        """Return the newest datasets and streams in the order in which they were created, and how many there are."""
        before, self._lines = self._lines, {}
        datasets, streams = histories(self._state, MAX_ROWS), logs(self._state, MAX_ROWS)
        return {
            "datasets": [self._line(before, version_of_dataset(each), each, _dataset) for each in datasets],
            "streams": [self._line(before, version_of_stream(each), each, _stream) for each in streams],
            "every_dataset": len(self._state.datasets()),
            "every_stream": len(self._state.data_streams()),
        }

    def _line(
        self, before: dict[Hashable, tuple[Hashable, Part]], version: Hashable, found: Any, make: Callable[[Any], Part]
    ) -> Part:
        known = before.get(found)
        line = known[1] if known is not None and known[0] == version else make(found)
        self._lines[found] = version, line
        return line


def has_data(state: State) -> bool:
    """Return whether there is a dataset or a stream."""
    return bool(state.datasets() or state.data_streams())


def version_of_dataset(history: DatasetHistory) -> Hashable:
    """Return what is another value after each change of a dataset that is shown."""
    return history.size, len(history.transactions), tuple(history.branches.values())


def version_of_stream(log: StreamLog) -> Hashable:
    """Return what is another value after each publication; a reset stream has another log."""
    return log.published


def _dataset(history: DatasetHistory) -> Part:
    summary = dataset_summary(history)
    opened = [f"{each.kind}{_on(each.branch)}" for each in history.open_transactions()]
    return {
        "key": summary["rid"],
        "branch": MASTER if MASTER in summary["branches"] else next(iter(summary["branches"]), MASTER),
        "name": plain(summary["name"]),
        "schema": plain(summary["schema"]) or MISSING,
        "rows": count(summary["rows"]),
        "files": count(summary["files"]),
        "size": size_in_words(summary["bytes"]),
        "branches": plain(", ".join(summary["branches"])),
        "committed_at": seconds(summary["committed_at"]),
        "open": plain(opened[0] if len(opened) == 1 else f"{len(opened)} transactions" if opened else ""),
    }


def _stream(log: StreamLog) -> Part:
    summary = stream_summary(log)
    return {
        "key": f"{summary['rid']} {summary['branch']}",
        "rid": summary["rid"],
        "branch": summary["branch"],
        "name": plain(f"{summary['name']}{_on(summary['branch'])}"),
        "schema": plain(summary["schema"]),
        "records": count(summary["records"]),
        "size": size_in_words(summary["bytes"]),
        "partitions": count(summary["partitions"]),
        "published_at": seconds(summary["published_at"]),
    }


def _on(branch: str) -> str:
    return "" if branch == MASTER else f" on {branch}"


def count(number: int | None) -> str:
    """Return a number for people; a dash if it is not known."""
    return MISSING if number is None else f"{number:,}"


def seconds(at: int | None) -> int | None:
    """Return a time in Unix seconds."""
    return None if at is None else at // NS_PER_S
