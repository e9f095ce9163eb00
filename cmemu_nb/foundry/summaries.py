"""What is known of a dataset and of a stream without reading its data, as those who list them show it.

Any thread may call these: they read records that never change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmemu_nb.lifecycle.datasets import MASTER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.lifecycle.data_streams import StreamLog
    from cmemu_nb.lifecycle.datasets import DatasetHistory
    from cmemu_nb.lifecycle.state import State


def histories(state: State, most: int | None = None) -> Iterator[DatasetHistory]:
    """Yield the newest datasets, by default all, in the order of their creation, without those deleted meanwhile."""
    for dataset in state.datasets()[-(most or 0) :]:
        if (history := state.find_dataset(dataset.rid)) is not None:
            yield history


def logs(state: State, most: int | None = None) -> Iterator[StreamLog]:
    """Yield the newest streams with their branches in the same way."""
    for stream in state.data_streams()[-(most or 0) :]:
        if (log := state.find_data_stream(stream.rid, stream.branch)) is not None:
            yield log


def dataset_summary(history: DatasetHistory, branch: str = MASTER) -> dict[str, Any]:
    """Return what a list of datasets says of one: `schema`, `rows`, `files` and `bytes` are those of the branch.

    `rows` is None if they can't be counted without decoding the files. `open_transactions` are their RIDs,
    `committed_at` is the time of the newest commit on any branch in Unix nanoseconds, or None.
    """
    from cmemu_nb.foundry.tables import count_rows  # noqa: PLC0415 - imported only where there is a dataset

    end = committed_rid(history, branch)
    files, columns = history.view(end), dataset_schema(history, end)
    commits = (history.transactions.get(each.committed_rid or "") for each in list(history.branches.values()))
    return {
        "name": history.dataset.name,
        "schema": ", ".join(f"{name} {kind}" for name, kind in columns.items()),
        "columns": len(columns),
        "rows": count_rows(files.values()),
        "files": len(files),
        "bytes": sum(file.size for file in files.values()),
        "branches": list(history.branches),
        "transactions": len(history.transactions),
        "open_transactions": [each.rid for each in history.open_transactions()],
        "committed_at": max((each.closed_at for each in commits if each and each.closed_at), default=None),
        "rid": history.dataset.rid,
    }


def committed_rid(history: DatasetHistory, branch: str = MASTER) -> str | None:
    """Return the newest committed transaction of a branch; None without one, or without that branch."""
    found = history.branches.get(branch)
    return None if found is None else found.committed_rid


def dataset_schema(history: DatasetHistory, end: str | None) -> dict[str, str]:
    """Return the columns that are valid for a transaction with their types in Foundry; empty without a schema."""
    from cmemu_nb.foundry.field_schemas import read_fields  # noqa: PLC0415 - only a dataset with a schema needs it

    found = history.schema(end)
    return {} if found is None else {field.name or "": str(field) for field in read_fields(found.fields)}


def stream_summary(log: StreamLog) -> dict[str, Any]:
    """Return what a list of streams says of one on one branch; `published` counts dropped records, too."""
    newest = log.newest(1)
    return {
        "name": log.stream.name,
        "branch": log.stream.branch,
        "schema": log.stream.schema.in_words,
        "records": len(log.arrived),
        "bytes": log.size,
        "published": log.published,
        "partitions": len(log.partitions),
        "end_offsets": list(log.ends),
        "published_at": newest[0].published_at if newest else None,
        "rid": log.stream.rid,
    }
