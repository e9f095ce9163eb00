"""Which files and which schema of a dataset a request is about: those of a branch, or of a range of transactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmemu_nb.errors import ApiError
from cmemu_nb.lifecycle.datasets import MASTER, DatasetFile, DatasetHistory, DatasetSchema
from cmemu_nb.phrases import quoted
from cmemu_nb.server.openapi.schemas import TEXT, Schema, described

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmemu_nb.lifecycle.data_streams import DataStream
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request

BRANCH_OPTION: Schema = {"branchName": described(TEXT, f"The branch, `{MASTER}` by default")}
END_OPTION: Schema = {
    "endTransactionRid": described(TEXT, "The last transaction; by default the newest committed one of the branch")
}
RANGE_OPTIONS: Schema = {
    **BRANCH_OPTION,
    **END_OPTION,
    "startTransactionRid": described(TEXT, "The first transaction; by default the newest `SNAPSHOT` before the last"),
}
NOT_FOUND = "The dataset, its branch or the transaction does not exist"


def history_of(context: Context, request: Request) -> DatasetHistory:
    """Return the dataset that a request names. Raises the platform's error if there is none, or if it is a stream."""
    streams = streams_of(context, request)
    if streams:
        name = streams[0].name
        message = (
            f"{quoted(name)} is a stream, of which the emulator keeps no files, transactions and schema of a dataset. "
            "Read and write its records with foundry_sdk's client.streams.Dataset.Stream, or by the stream proxy."
        )
        raise ApiError(400, "DatasetReadNotSupported", message, datasetRid=streams[0].rid)
    return context.lifecycle.dataset(request.params["datasetRid"])


def streams_of(context: Context, request: Request) -> list[DataStream]:
    """Return the stream on each branch of the dataset that a request names; none if it is not of the type stream."""
    rid, state = request.params["datasetRid"], context.lifecycle
    log = state.find_data_stream(rid, None)
    return [] if log is None else [each for each in state.data_streams() if each.rid == rid]


@dataclass(frozen=True)
class View:
    """The files from a `start` transaction, or from the newest snapshot, to an `end`, which is None before the first.

    The end is committed. Only the files of one transaction alone, from it to it, can be seen while it is open [ours].
    """

    history: DatasetHistory
    branch: str
    end: str | None
    start: str | None
    by_transaction: bool

    @classmethod
    def asked(cls, history: DatasetHistory, options: Mapping[str, str]) -> View:
        """Return the view that the query options of a request mean, with the errors of the platform."""
        branch, end, start = (options.get(name) for name in ("branchName", "endTransactionRid", "startTransactionRid"))
        head = history.branch(branch or MASTER) if end is None or branch is not None else None
        for rid in filter(None, (start, end)):
            history.transaction(rid)
        if end is None:
            assert head is not None  # noqa: S101 - there is no end
            return cls(history, head.name, head.committed_rid, start, by_transaction=start is not None)
        if start != end:
            history.committed(end)
        return cls(history, branch or history.transaction(end).branch, end, start, by_transaction=True)

    @property
    def files(self) -> dict[str, DatasetFile]:
        """The files by path."""
        return self.history.view(self.end, self.start)

    def file(self, path: str) -> DatasetFile:
        """Return a file, or the error of the platform."""
        file = self.history.find_file(path, self.end, self.start)
        if file is None:
            raise self._not_found(path)
        return file

    def _not_found(self, path: str) -> ApiError:
        where = f"the transactions up to {self.end}" if self.by_transaction else f"the branch {quoted(self.branch)}"
        message = f"The dataset {quoted(self.history.dataset.name)} has no file {quoted(path)} on {where}."
        ids = {"datasetRid": self.history.dataset.rid, "path": path}
        if self.by_transaction:
            ids |= {"startTransactionRid": self.start} if self.start else {}
            return ApiError(404, "FileNotFoundOnTransactionRange", message, **ids, endTransactionRid=self.end or "")
        return ApiError(404, "FileNotFoundOnBranch", message, **ids, branchName=self.branch)

    def schema(self, version_id: str | None = None) -> DatasetSchema:
        """Return the schema, or a version of it, or the error of the platform."""
        schema = self.history.schema(self.end, version_id)
        if schema is None:
            name = self.history.dataset.name
            message = (
                f"The dataset {quoted(name)} has no schema on the branch {quoted(self.branch)}, so it can't be read "
                "as a table. Put one with putSchema; in the notebook .frame() reads the files without a schema."
            )
            ids = {"datasetRid": self.history.dataset.rid, "branchName": self.branch}
            ids |= {"transactionRid": self.end} if self.end else {}
            raise ApiError(404, "SchemaNotFound", message, **ids)
        return schema
