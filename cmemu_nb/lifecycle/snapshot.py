"""The state that a lifecycle begins with: an earlier process's, from a journal or an exported session, or a seed's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import msgspec

from cmemu_nb.errors import SeedError
from cmemu_nb.lifecycle.data_streams import (  # noqa: TC001 - the same
    DataStream,
    StreamOptions,
    StreamRecord,
    Subscriber,
)
from cmemu_nb.lifecycle.datasets import Branch, Dataset, DatasetFile, DatasetSchema, Reader, Transaction  # noqa: TC001 - the same
from cmemu_nb.lifecycle.records import DeployedApp, FunctionSchema, Job, Runtime  # noqa: TC001 - msgspec reads the fields' types
from cmemu_nb.lifecycle.state import DEFAULT_BRANCH

if TYPE_CHECKING:
    from collections.abc import Collection

    from cmemu_nb.lifecycle.configuration import Configuration
    from cmemu_nb.lifecycle.data_streams import StreamLog
    from cmemu_nb.lifecycle.datasets import DatasetHistory
    from cmemu_nb.tokens import Token
    from cmemu_nb.wire.stream_schemas import StreamSchema
    from cmemu_nb.wire.stream_values import NewRecord


DATASET_KEYS = ("path", "rows", "rid")
STREAM_KEYS = ("schema", "records", "path", "partitions", "keys", "rid")
"""What a dataset and a stream of a seed can have."""


class SavedReplica(msgspec.Struct, frozen=True):
    """A replica that was started outside this process, so its token stays valid."""

    replica_id: str
    token: str
    max_concurrent_tasks: int


class SavedSession(msgspec.Struct, frozen=True):
    """One runtime's session without its jobs; `evicted` says how many of those were evicted."""

    runtime: Runtime
    schemas: list[FunctionSchema]
    replicas: list[SavedReplica]
    evicted: int


class SavedDataset(msgspec.Struct, frozen=True):
    """A dataset with its branches, transactions and schemas, each from old to new.

    `files` are the files with their transactions and paths; a file that its transaction deleted is None.
    """

    dataset: Dataset
    branches: list[Branch]
    transactions: list[Transaction]
    files: list[tuple[str, str, DatasetFile | None]]
    schemas: list[DatasetSchema]

    def __post_init__(self) -> None:
        """Reject references to transactions that are missing or come later, with a `ValueError`."""
        there: set[str] = set()
        for transaction in self.transactions:
            self._check(transaction.parent_rid, there)
            there.add(transaction.rid)
        for branch in self.branches:
            self._check(branch.transaction_rid, there)
            self._check(branch.committed_rid, there)
        for rid in [*(rid for rid, _, _ in self.files), *(schema.transaction_rid for schema in self.schemas)]:
            self._check(rid, there)

    @classmethod
    def of(cls, history: DatasetHistory) -> Self:
        """Return all records of a dataset."""
        files = [(rid, path, file) for rid, files in history.files.items() for path, file in files.items()]
        schemas = [schema for schemas in history.schemas.values() for schema in schemas]
        parts = list(history.branches.values()), list(history.transactions.values())
        return cls(history.dataset, *parts, files, schemas)

    def _check(self, rid: str | None, there: set[str]) -> None:
        if rid is not None and rid not in there:
            raise ValueError(f"the dataset {self.dataset.name!r} names the transaction {rid!r}, but does not have it")


class SavedStream(msgspec.Struct, frozen=True):
    """The data stream on one branch: the next offset of each partition, and the kept records from old to new.

    `published` is how many records were published to its view.
    """

    stream: DataStream
    ends: list[int]
    published: int
    records: list[StreamRecord]

    def __post_init__(self) -> None:
        """Reject offsets that do not end where the partitions do, with a `ValueError`."""
        if len(self.ends) != self.stream.options.partitions:
            raise ValueError(f"the stream {self.stream.label!r} must have {self.stream.options.partitions} ends")
        following = list(self.ends)
        for record in reversed(self.records):
            if not 0 <= record.partition < len(following) or record.offset != following[record.partition] - 1:
                raise ValueError(
                    f"the stream {self.stream.label!r} lacks the record before offset {record.offset + 1} of partition "
                    f"{record.partition}"
                )
            following[record.partition] = record.offset

    @classmethod
    def of(cls, log: StreamLog) -> Self:
        """Return all kept records of a data stream on one branch."""
        return cls(log.stream, list(log.ends), log.published, log.records())


class SavedState(msgspec.Struct, frozen=True):
    """Sessions in the order of their first opening, bindings and jobs from old to new; datasets and data streams."""

    sessions: list[SavedSession]
    apps: list[DeployedApp]
    jobs: list[Job]
    datasets: list[SavedDataset] = []
    streams: list[SavedStream] = []
    subscribers: list[Subscriber] = []

    def __post_init__(self) -> None:
        """Reject references to runtimes that are missing, with a `ValueError`."""
        there = {session.runtime.runtime_id for session in self.sessions}
        strays = ({app.runtime_id for app in self.apps} | {job.runtime_id for job in self.jobs}) - there
        if strays:
            raise ValueError(f"it has a job or a binding of runtime {min(strays)!r}, but not the runtime")


class SeededRuntime(msgspec.Struct, frozen=True):
    """A runtime whose session is open from the start; without a token of its own it gets a random one.

    `configuration` is that of its module, None if the file has none.
    """

    runtime_id: str
    module_auth_token: Token | None = None
    configuration: Configuration | None = None


class SeededApp(msgspec.Struct, frozen=True):
    """A deployed app's branch and the runtime that serves it; an inactive app is bound to no runtime."""

    deployed_app_rid: str
    runtime_id: str
    branch: str = DEFAULT_BRANCH
    display_name: str | None = None
    active: bool = True


class SeededFile(msgspec.Struct, frozen=True):
    """The file of a dataset, and the schema that fits it as JSON text."""

    path: str
    body: bytes
    fields: bytes
    reader: Reader


class SeededDataset(msgspec.Struct, frozen=True):
    """A dataset that exists from the start, with a file or empty; without a RID of its own it gets a random one."""

    name: str
    rid: str | None
    file: SeededFile | None


class SeededStream(msgspec.Struct, frozen=True):
    """A data stream that exists from the start, with the records that were published to it."""

    name: str
    rid: str | None
    schema: StreamSchema
    options: StreamOptions
    records: list[NewRecord]


class Seed(msgspec.Struct, frozen=True):
    """The initial state of an emulator: the contents of a seed file at `path`, or data that it was given.

    `settings` are those of the file, overridden by those that were given; `logins` are by bearer token; `runtimes`
    includes runtimes that only an app names.
    """

    path: str
    settings: dict[str, Any]
    runtimes: list[SeededRuntime]
    apps: list[SeededApp]
    logins: dict[Token, str]
    datasets: list[SeededDataset] = []
    streams: list[SeededStream] = []

    @property
    def has_data(self) -> bool:
        """Whether it has a dataset or a stream."""
        return bool(self.datasets or self.streams)

    def plants_the_same(self, other: Seed | None) -> bool:
        """Return whether another seed has the same sessions, bindings, tokens and data, from the same file."""
        return other is not None and msgspec.structs.replace(self, settings=other.settings) == other

    def check_tokens(self, sessions: Collection[SavedSession]) -> None:
        """Refuse a token that another runtime of a journal has: a token must identify one runtime."""
        theirs = {each.runtime.module_auth_token: each.runtime.runtime_id for each in sessions}
        theirs |= {replica.token: each.runtime.runtime_id for each in sessions for replica in each.replicas}
        names = set(theirs.values())
        for runtime in self.runtimes:
            holder = theirs.get(runtime.module_auth_token or "")
            if holder is not None and runtime.runtime_id not in names:
                raise SeedError(
                    f"{self.path}: runtime {runtime.runtime_id!r} has the module_auth_token of runtime {holder!r} in "
                    "the journal. Give it another one, or choose another journal."
                )
