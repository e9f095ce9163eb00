"""The files of datasets in Foundry's public API: listing, reading, uploading and deleting them [foundry]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.errors import ApiError, PayloadTooLarge
from cmemu_nb.foundry.dataset_writes import upload as upload_in_transaction
from cmemu_nb.lifecycle.datasets import MASTER, DatasetFile, TransactionType, check_path
from cmemu_nb.server.api.dataset_transactions import TIME, page_of, transaction_type
from cmemu_nb.server.api.dataset_views import BRANCH_OPTION, NOT_FOUND, RANGE_OPTIONS, View, history_of
from cmemu_nb.server.api.pages import PAGE_OPTIONS, page
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import examples, schemas
from cmemu_nb.server.openapi.schemas import described, with_examples
from cmemu_nb.server.response import BYTES, Response, json_response
from cmemu_nb.server.routing import Route, query_options
from cmemu_nb.wire.paths import DATASETS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request
    from cmemu_nb.storage.journal import Journal


def list_files(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Answer with a page of the files of a branch's newest view, or of a range of transactions, by path."""
    options = query_options(request)
    prefix = options.get("pathPrefix", "")
    if prefix:
        check_path(prefix)
    files = View.asked(history_of(context, request), options).files
    found = [files[path] for path in sorted(files) if path.startswith(prefix)]
    return page(options, found, lambda file: file.path, DatasetFile.wire)


def get(context: Context, request: Request) -> Response:
    """Answer with the size and the time of a file."""
    return json_response(200, _file(context, request).wire())


def content(context: Context, request: Request) -> Response:
    """Answer with the bytes of a file."""
    return Response(200, _file(context, request).body, BYTES)


def _file(context: Context, request: Request) -> DatasetFile:
    return View.asked(history_of(context, request), query_options(request)).file(request.params["filePath"])


def upload(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Upload a file into an open transaction, or in a transaction of its own on a branch, which is committed."""
    return _upload(context, request) if context.journal is None else _upload_later(context.journal, context, request)


async def _upload_later(journal: Journal, context: Context, request: Request) -> Response:
    async with journal.contents([request.body]):
        return _upload(context, request)


def _upload(context: Context, request: Request) -> Response:
    history, options, path = history_of(context, request), query_options(request), request.params["filePath"]
    rid, transaction = history.dataset.rid, _transaction(options)
    if transaction is None:
        kind = transaction_type(options.get("transactionType", TransactionType.UPDATE))
        branch = options.get("branchName", MASTER)
        transaction = upload_in_transaction(context.lifecycle, history, path, request.body, kind, branch).rid
    else:
        context.lifecycle.put_file(rid, transaction, path, request.body)
    file = history.files[transaction][path]
    assert file is not None  # noqa: S101 - it was uploaded
    return json_response(200, file.wire())


def delete(context: Context, request: Request) -> Response:
    """Delete a file in an open transaction of type `DELETE`, or in one of its own. Earlier views have it."""
    history, options, path = history_of(context, request), query_options(request), request.params["filePath"]
    rid, transaction = history.dataset.rid, _transaction(options)
    if transaction is not None:
        context.lifecycle.delete_file(rid, transaction, path)
        return Response(204)
    branch = options.get("branchName", MASTER)
    View.asked(history, {"branchName": branch}).file(path)
    opened = context.lifecycle.open_transaction(rid, TransactionType.DELETE, branch).rid
    context.lifecycle.delete_file(rid, opened, path)
    context.lifecycle.commit_transaction(rid, opened)
    return Response(204)


def _transaction(options: Mapping[str, str]) -> str | None:
    """Return the open transaction that a request names; with it, it can't name a branch or a type of transaction."""
    given = [name for name in ("transactionRid", "branchName", "transactionType") if name in options]
    if "transactionRid" in options and len(given) > 1:
        message = f"{' and '.join(given)} can't be used together: a transaction has its branch and type already."
        valid = [["transactionRid"], ["branchName"], ["branchName", "transactionType"], ["transactionType"], []]
        raise ApiError(400, "InvalidParameterCombination", message, validCombinations=valid, providedParameters=given)
    return options.get("transactionRid")


# Routes

_FILE = schemas.members(
    {
        "path": described(schemas.TEXT, "The path of the file in the dataset"),
        "transactionRid": described(schemas.TEXT, "The transaction in which it was uploaded"),
        "sizeBytes": described(schemas.TEXT, "How many bytes it has"),
        "updatedTime": described(TIME, "When it was uploaded"),
    }
)
_ONE_FILE = with_examples(_FILE, examples.DATASET_FILE)
_NO_FILE = f"{NOT_FOUND}, or there is no such file"
_NOT_COMMITTED = "The transaction is not committed, or an option is invalid"
_OPEN = {"transactionRid": described(schemas.TEXT, "An open transaction; without it there is one of its own")}
_FILES = f"{DATASETS}/{{datasetRid}}/files"

routes = (
    Route(
        "GET",
        _FILES,
        list_files,
        Auth.DATA,
        {200: "A page of the files", 400: _NOT_COMMITTED, 404: NOT_FOUND},
        "List the files of a dataset",
        answer=page_of(_FILE, "files", examples.DATASET_FILE),
        denied="DatasetNotFound",
        error_names={400: "TransactionNotCommitted", 404: "BranchNotFound"},
        query={
            **RANGE_OPTIONS,
            **PAGE_OPTIONS,
            "pathPrefix": described(schemas.TEXT, "Only files whose paths begin with it"),
        },
    ),
    Route(
        "GET",
        f"{_FILES}/{{filePath}}",
        get,
        Auth.DATA,
        {200: "The file", 400: _NOT_COMMITTED, 404: _NO_FILE},
        "Describe a file of a dataset",
        answer=_ONE_FILE,
        denied="DatasetNotFound",
        error_names={400: "TransactionNotCommitted", 404: "FileNotFoundOnBranch"},
        query=RANGE_OPTIONS,
    ),
    Route(
        "DELETE",
        f"{_FILES}/{{filePath}}",
        delete,
        Auth.DATA,
        {
            204: "The file was deleted",
            400: "The transaction is not open or not of type DELETE",
            404: _NO_FILE,
            409: "The branch has an open transaction already",
        },
        "Delete a file of a dataset",
        denied="DeleteFilePermissionDenied",
        error_names={400: "InvalidTransactionType", 404: "FileNotFoundOnBranch", 409: "OpenTransactionAlreadyExists"},
        errors=(PayloadTooLarge,),
        query={**BRANCH_OPTION, **_OPEN},
    ),
    Route(
        "GET",
        f"{_FILES}/{{filePath}}/content",
        content,
        Auth.DATA,
        {200: "The bytes", 400: _NOT_COMMITTED, 404: _NO_FILE},
        "Read a file of a dataset",
        denied="GetFileContentPermissionDenied",
        error_names={400: "TransactionNotCommitted", 404: "FileNotFoundOnBranch"},
        query=RANGE_OPTIONS,
    ),
    Route(
        "POST",
        f"{_FILES}/{{filePath}}/upload",
        upload,
        Auth.DATA,
        {
            200: "The file",
            400: "The transaction is not open, or the path or an option is invalid",
            404: f"{NOT_FOUND}, or an APPEND would replace a file",
            409: "The branch has an open transaction already",
        },
        "Upload a file into a dataset",
        body=with_examples({}, examples.CSV_FILE),
        body_media=BYTES,
        answer=_ONE_FILE,
        denied="CreateTransactionPermissionDenied",
        error_names={400: "TransactionNotOpen", 404: "BranchNotFound", 409: "OpenTransactionAlreadyExists"},
        query={
            **BRANCH_OPTION,
            **_OPEN,
            "transactionType": described(
                schemas.one_of(TransactionType), "Of its own transaction, `UPDATE` by default"
            ),
        },
    ),
)
