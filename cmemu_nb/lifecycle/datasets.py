"""Datasets: their branches, transactions, files and schemas, as Foundry keeps them [foundry].

A dataset is a set of files. Every change of it belongs to a transaction on one of its branches, and readers see the
files of committed transactions only. The view of a transaction is what its files and those of the transactions before
it amount to, back to the newest `SNAPSHOT`.

The records never change: a new record is put in the place of the old one.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.errors import ApiError, InvalidRequest, UnknownData, known
from cmemu_nb.lifecycle.records import iso_time
from cmemu_nb.phrases import closest, quoted
from cmemu_nb.wire.labels import checked_text, size_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cmemu_nb.lifecycle.data_changes import DataChanges
    from cmemu_nb.lifecycle.snapshot import SavedDataset

MASTER = "master"
# The folder of datasets that were made in the notebook; a request may name any other.
FOLDER = "ri.compass.main.folder.cmemu"
MAX_NAME_CHARACTERS = 700
MAX_PATH_CHARACTERS = 1000
# About what a record takes in memory beside the bytes of files and schemas.
RECORD_BYTES = 500


class TransactionType(StrEnum):
    """What a transaction does to the files of its branch [foundry].

    A `SNAPSHOT` replaces all of them, an `APPEND` adds files, an `UPDATE` adds files and replaces those of the same
    path, a `DELETE` removes files.
    """

    APPEND = "APPEND"
    UPDATE = "UPDATE"
    SNAPSHOT = "SNAPSHOT"
    DELETE = "DELETE"


class TransactionStatus(StrEnum):
    """The status of a transaction [foundry]."""

    OPEN = "OPEN"
    COMMITTED = "COMMITTED"
    ABORTED = "ABORTED"


class Reader(StrEnum):
    """The format of the files to which a schema belongs [foundry]."""

    PARQUET = "PARQUET"
    CSV = "CSV"
    AVRO = "AVRO"
    DATASOURCE = "DATASOURCE"


class Dataset(msgspec.Struct, frozen=True, gc=False):
    """A dataset, by its RID and its name. No two datasets of an emulator have the same name [ours]."""

    rid: str
    name: str
    folder_rid: str
    created_at: int

    def wire(self) -> dict[str, Any]:
        """Return the record as Foundry's public API shows it [foundry]."""
        return {"rid": self.rid, "name": self.name, "parentFolderRid": self.folder_rid}


class Branch(msgspec.Struct, frozen=True, gc=False):
    """A branch of a dataset.

    `transaction_rid` is its newest open or committed transaction, `committed_rid` its newest committed one; they are
    None before the first.
    """

    name: str
    transaction_rid: str | None = None
    committed_rid: str | None = None

    def wire(self) -> dict[str, Any]:
        """Return the record as Foundry's public API shows it [foundry]."""
        return {"name": self.name} | ({"transactionRid": self.transaction_rid} if self.transaction_rid else {})


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """A transaction; `parent_rid` is the committed transaction on which it is based, None for the first of a branch."""

    rid: str
    branch: str
    kind: TransactionType
    created_at: int
    parent_rid: str | None
    status: TransactionStatus = TransactionStatus.OPEN
    closed_at: int | None = None

    def wire(self) -> dict[str, Any]:
        """Return the record as Foundry's public API shows it [foundry]."""
        closed = {} if self.closed_at is None else {"closedTime": iso_time(self.closed_at)}
        return {
            "rid": self.rid,
            "transactionType": self.kind,
            "status": self.status,
            "createdTime": iso_time(self.created_at),
            **closed,
        }


class DatasetFile(msgspec.Struct, frozen=True, gc=False):
    """A file of a dataset, in the transaction in which it was uploaded."""

    path: str
    transaction_rid: str
    updated_at: int
    body: bytes

    @property
    def size(self) -> int:
        """How many bytes the file has."""
        return len(self.body)

    def wire(self) -> dict[str, Any]:
        """Return the record as Foundry's public API shows it [foundry]; a `long` is a string there."""
        return {
            "path": self.path,
            "transactionRid": self.transaction_rid,
            "sizeBytes": str(self.size),
            "updatedTime": iso_time(self.updated_at),
        }


class DatasetSchema(msgspec.Struct, frozen=True, gc=False):
    """A version of the schema of a dataset, valid from a transaction on; `fields` is JSON text, `fieldSchemaList`."""

    version_id: str
    branch: str
    transaction_rid: str
    reader: Reader
    fields: bytes

    def wire(self) -> dict[str, Any]:
        """Return the record as Foundry's public API shows it [foundry]."""
        return {
            "branchName": self.branch,
            "endTransactionRid": self.transaction_rid,
            "schema": {"fieldSchemaList": msgspec.Raw(self.fields)},
            "versionId": self.version_id,
        }


class DataSize:
    """How many bytes all datasets of one emulator take."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0


class DatasetHistory:
    """Everything that belongs to one dataset. Any thread may read it; only `Lifecycle` changes it.

    `branches` are by name, `transactions` by RID in the order in which they were opened. `files` are by transaction and
    path; a file that a transaction deleted is None there. `schemas` are the versions of each transaction, old to new.
    `size` is how many bytes all of it takes, which count in the `total` of the emulator. `changes` are what a journal
    has not written yet.
    """

    __slots__ = ("branches", "changes", "dataset", "files", "schemas", "size", "total", "transactions")

    def __init__(self, dataset: Dataset, total: DataSize, changes: DataChanges) -> None:
        self.dataset = dataset
        self.changes = changes
        self.branches: dict[str, Branch] = {}
        self.transactions: dict[str, Transaction] = {}
        self.files: dict[str, dict[str, DatasetFile | None]] = {}
        self.schemas: dict[str, tuple[DatasetSchema, ...]] = {}
        self.total = total
        self.size = 0
        self._grow(RECORD_BYTES + size_of(dataset.name) + size_of(dataset.folder_rid))
        changes.put(dataset.rid, "dataset")

    # Reading

    def branch(self, name: str) -> Branch:
        """Return a branch; the error of the platform if there is none."""
        found = self.branches.get(name)
        if found is None:
            about = f"The dataset {quoted(self.dataset.name)} has no branch {quoted(name)}."
            raise self._not_found("BranchNotFound", f"{about} {known(self.branches, 'branches')}", branchName=name)
        return found

    def transaction(self, rid: str) -> Transaction:
        """Return a transaction; the error of the platform if there is none."""
        found = self.transactions.get(rid)
        if found is None:
            message = f"The dataset {quoted(self.dataset.name)} has no transaction {quoted(rid)}."
            raise self._not_found("TransactionNotFound", message, transactionRid=rid)
        return found

    def chain(self, end: str | None) -> Iterator[Transaction]:
        """Yield a transaction and those on which it is based, back to the first of its branch."""
        while end is not None:
            transaction = self.transactions[end]
            yield transaction
            end = transaction.parent_rid

    def view(self, end: str | None, start: str | None = None) -> dict[str, DatasetFile]:
        """Return the files of the view of a transaction, by path; with `start`, of the transactions from that on."""
        steps = []
        for transaction in self.chain(end):
            steps.append(transaction)
            if transaction.kind == TransactionType.SNAPSHOT or transaction.rid == start:
                break
        files: dict[str, DatasetFile] = {}
        for transaction in reversed(steps):
            for path, file in list(self.files.get(transaction.rid, {}).items()):
                if file is None:
                    files.pop(path, None)
                else:
                    files[path] = file
        return files

    def find_file(self, path: str, end: str | None, start: str | None = None) -> DatasetFile | None:
        """Return a file of such a view, or None, without looking at the others."""
        for transaction in self.chain(end):
            files = self.files.get(transaction.rid, {})
            if path in files or transaction.kind == TransactionType.SNAPSHOT or transaction.rid == start:
                return files.get(path)
        return None

    def schema(self, end: str | None, version_id: str | None = None) -> DatasetSchema | None:
        """Return the newest schema that is valid for a transaction, or a version of it; None if there is none."""
        for transaction in self.chain(end):
            for schema in reversed(self.schemas.get(transaction.rid, ())):
                if version_id in (None, schema.version_id):
                    return schema
        return None

    def open_transactions(self) -> list[Transaction]:
        """Return the transactions that are open, at most one of each branch."""
        heads = [self.transactions.get(branch.transaction_rid or "") for branch in list(self.branches.values())]
        return [head for head in heads if head is not None and head.status == TransactionStatus.OPEN]

    def superseded(self) -> list[str]:
        """Return the transactions whose files are in no branch's view any more, the oldest first."""
        needed = {transaction.rid for transaction in self.open_transactions()}
        for branch in self.branches.values():
            needed |= {file.transaction_rid for file in self.view(branch.committed_rid).values()}
        return [rid for rid, files in self.files.items() if rid not in needed and any(files.values())]

    # Changing, which only Lifecycle does

    def _grow(self, size: int) -> None:
        self.size += size
        self.total.size += size

    def leave(self) -> None:
        """Count no more in the total: the dataset is deleted."""
        self.total.size -= self.size
        self.changes.remove_everything(self.dataset.rid)

    def hold_branch(self, branch: Branch) -> None:
        """Add a branch, or put a new record of it in the place of the old one."""
        self._grow(0 if branch.name in self.branches else RECORD_BYTES + size_of(branch.name))
        self.branches[branch.name] = branch
        self.changes.put(self.dataset.rid, "branch", branch.name)

    def drop_branch(self, name: str) -> None:
        """Remove a branch; its transactions stay readable by their RIDs."""
        del self.branches[name]
        self._grow(-RECORD_BYTES - size_of(name))
        self.changes.remove(self.dataset.rid, "branch", name)

    def hold_transaction(self, transaction: Transaction) -> None:
        """Add a transaction, or put a new record of it in the place of the old one."""
        self._grow(0 if transaction.rid in self.transactions else RECORD_BYTES)
        self.transactions[transaction.rid] = transaction
        self.changes.put(self.dataset.rid, "transaction", transaction.rid)

    def hold_file(self, transaction_rid: str, path: str, file: DatasetFile | None) -> None:
        """Put a file into a transaction, or None for a deletion, in the place of what it had under this path."""
        files = self.files.setdefault(transaction_rid, {})
        if path in files:
            self._grow(-_size(path, files[path]))
        self._grow(_size(path, file))
        files[path] = file
        self.changes.put(self.dataset.rid, "file", transaction_rid, path)

    def drop_files(self, transaction_rid: str) -> None:
        """Remove all files of a transaction."""
        for path, file in self.files.pop(transaction_rid, {}).items():
            self._grow(-_size(path, file))
            self.changes.remove(self.dataset.rid, "file", transaction_rid, path)

    def hold_schema(self, schema: DatasetSchema) -> None:
        """Add a version of the schema."""
        rid = schema.transaction_rid
        self.schemas[rid] = (*self.schemas.get(rid, ()), schema)
        self._grow(RECORD_BYTES + len(schema.fields))
        self.changes.put(self.dataset.rid, "schema", rid, schema.version_id)

    def restore(self, saved: SavedDataset) -> None:
        """Adopt the records of another process, in a history that is empty."""
        for branch in saved.branches:
            self.hold_branch(branch)
        for transaction in saved.transactions:
            self.hold_transaction(transaction)
        for transaction_rid, path, file in saved.files:
            self.hold_file(transaction_rid, path, file)
        for schema in saved.schemas:
            self.hold_schema(schema)

    def note_everything(self) -> None:
        """Note every record as a change, for a journal that has none of them."""
        rid, changes = self.dataset.rid, self.changes
        changes.put(rid, "dataset")
        for name in self.branches:
            changes.put(rid, "branch", name)
        for transaction in self.transactions:
            changes.put(rid, "transaction", transaction)
        for transaction, files in self.files.items():
            for path in files:
                changes.put(rid, "file", transaction, path)
        for transaction, schemas in self.schemas.items():
            for schema in schemas:
                changes.put(rid, "schema", transaction, schema.version_id)

    # Errors of the platform

    def _not_found(self, name: str, message: str, **parameters: str) -> ApiError:
        return ApiError(404, name, message, datasetRid=self.dataset.rid, **parameters)

    def check_new_branch(self, name: str) -> None:
        """Refuse a branch that exists, or whose name can't be used, with the platform's errors."""
        check_branch_name(name)
        if name in self.branches:
            message = f"The dataset {quoted(self.dataset.name)} has a branch {quoted(name)} already."
            raise ApiError(409, "BranchAlreadyExists", message, datasetRid=self.dataset.rid, branchName=name)

    def committed(self, rid: str) -> Transaction:
        """Return a transaction that is committed; the platform's error for any other."""
        transaction = self.transaction(rid)
        if transaction.status != TransactionStatus.COMMITTED:
            raise self._of_status("TransactionNotCommitted", transaction, "is not committed. Commit it first")
        return transaction

    def opened(self, rid: str) -> Transaction:
        """Return a transaction that is open; the platform's error for any other."""
        transaction = self.transaction(rid)
        if transaction.status != TransactionStatus.OPEN:
            raise self._of_status("TransactionNotOpen", transaction, "is not open any more. Open a new one")
        return transaction

    def _of_status(self, name: str, transaction: Transaction, what: str) -> ApiError:
        message = f"The transaction {transaction.rid} of the dataset {quoted(self.dataset.name)} {what}: its status is "
        ids = {"datasetRid": self.dataset.rid, "transactionRid": transaction.rid}
        return ApiError(400, name, f"{message}{transaction.status}.", **ids, transactionStatus=transaction.status)

    def check_can_open(self, branch: Branch) -> None:
        """Refuse a second open transaction of a branch with the platform's error."""
        if branch.transaction_rid != branch.committed_rid:
            message = (
                f"The branch {quoted(branch.name)} of the dataset {quoted(self.dataset.name)} has an open transaction "
                f"already, {branch.transaction_rid}. Commit or abort it first; if the module that opened it has ended, "
                "abort it."
            )
            ids = {"datasetRid": self.dataset.rid, "branchName": branch.name}
            raise ApiError(409, "OpenTransactionAlreadyExists", message, **ids)

    def check_upload(self, transaction: Transaction, path: str) -> None:
        """Refuse a file that a transaction can't have, with the platform's errors."""
        check_path(path)
        ids = {"datasetRid": self.dataset.rid, "transactionRid": transaction.rid}
        if transaction.kind == TransactionType.DELETE:
            message = f"A DELETE transaction takes no files, so {quoted(path)} was not uploaded. Use an UPDATE."
            raise ApiError(400, "InvalidTransactionType", message, **ids, transactionType=transaction.kind)
        if transaction.kind == TransactionType.APPEND and self.find_file(path, transaction.rid):
            message = f"An APPEND transaction can't replace {quoted(path)}, which exists. Use an UPDATE, or a new path."
            raise ApiError(404, "FileAlreadyExists", message, **ids, path=path)

    def check_delete(self, transaction: Transaction, path: str) -> None:
        """Refuse to delete a file that does not exist, or in another transaction than a DELETE."""
        ids = {"datasetRid": self.dataset.rid, "transactionRid": transaction.rid}
        if transaction.kind != TransactionType.DELETE:
            message = f"{quoted(path)} can be deleted in a DELETE transaction only; this is of type {transaction.kind}."
            raise ApiError(400, "InvalidTransactionType", message, **ids, transactionType=transaction.kind)
        if self.find_file(path, transaction.rid) is None:
            message = f"The dataset {quoted(self.dataset.name)} has no file {quoted(path)}, so it can't be deleted."
            raise self._not_found(
                "FileNotFoundOnTransactionRange", message, endTransactionRid=transaction.rid, path=path
            )


def _size(path: str, file: DatasetFile | None) -> int:
    return RECORD_BYTES + size_of(path) + (0 if file is None else file.size)


def dataset_not_found(wanted: str, names: Iterable[str]) -> UnknownData:
    """Return the error for a dataset that does not exist; it lists the known ones."""
    listed = list(names)
    message = f"There is no dataset {quoted(wanted)}.{closest(wanted, listed)} {known(listed, 'datasets')}"
    return UnknownData(404, "DatasetNotFound", message, datasetRid=wanted)


_LIKE_AN_ID = re.compile(r"ri\..*|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.DOTALL)


def check_branch_name(name: str) -> None:
    """Refuse an empty name and one that looks like a RID or a UUID, with the platform's error."""
    if not checked_text("name of a branch", name).strip() or _LIKE_AN_ID.fullmatch(name):
        message = f"{quoted(name)} can't be the name of a branch: it must not be empty or look like a RID or a UUID."
        raise ApiError(400, "InvalidBranchName", message, branchName=name)


def check_dataset_name(name: str) -> None:
    """Refuse a name that no resource can have, with the platform's error."""
    if name.strip() in ("", ".", "..") or "/" in name or len(name) > MAX_NAME_CHARACTERS:
        message = (
            f"{quoted(name)} can't be the name of a dataset: it must have 1 to {MAX_NAME_CHARACTERS} characters "
            "without '/', and not be '.' or '..'."
        )
        raise ApiError(400, "InvalidDisplayName", message, displayName=name[:MAX_NAME_CHARACTERS])


_RID = re.compile(r"ri\.[a-z][a-z0-9-]*\.([a-z0-9][a-z0-9-]*)?\.[a-z][a-z0-9-]*\.[a-zA-Z0-9._-]+")


def check_rid(rid: str) -> None:
    """Refuse a text that is no RID with an `InvalidRequest`."""
    if not _RID.fullmatch(checked_text("RID of a dataset", rid)):
        raise InvalidRequest(f"{quoted(rid)} is no RID. Write it as the platform does: ri.foundry.main.dataset....")


def check_path(path: str) -> None:
    """Refuse a path that no file can have, with the platform's error."""
    if not checked_text("path of a file", path) or path.startswith("/") or len(path) > MAX_PATH_CHARACTERS:
        message = f"{quoted(path)} can't be the path of a file: it must not be empty, very long or begin with '/'."
        raise ApiError(400, "InvalidFilePath", message, filePath=path[:MAX_PATH_CHARACTERS])
