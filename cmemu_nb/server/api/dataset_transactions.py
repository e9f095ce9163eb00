"""The branches and transactions of datasets in Foundry's public API [foundry].

A branch has one open transaction at a time, and readers see committed ones only. A transaction that a module has opened
stays open after its end, until somebody commits or aborts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmemu_nb.errors import ApiError, InvalidRequest, known
from cmemu_nb.lifecycle.datasets import MASTER, Branch, Transaction, TransactionStatus, TransactionType
from cmemu_nb.phrases import quoted
from cmemu_nb.server.api.dataset_views import BRANCH_OPTION, history_of, streams_of
from cmemu_nb.server.api.functions import PREVIEW
from cmemu_nb.server.api.pages import PAGE_OPTIONS, page
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import examples, schemas
from cmemu_nb.server.openapi.schemas import described, with_examples
from cmemu_nb.server.response import Response, json_response
from cmemu_nb.server.routing import Route, query_options
from cmemu_nb.wire.json_input import Fields
from cmemu_nb.wire.paths import DATASETS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request


# Branches


def list_branches(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Answer with a page of the branches of a dataset, in the order in which they were created."""
    branches = _branches_of_stream(context, request) or list(history_of(context, request).branches.values())
    return page(query_options(request), branches, lambda branch: branch.name, Branch.wire)


def create_branch(context: Context, request: Request) -> Response:
    """Create a branch that begins with a committed transaction, or empty."""
    fields = Fields(request.body, "Creating a branch")
    name, transaction = fields.string("name"), fields.text("transactionRid")
    context.tokens.check_reach(request, "CreateBranchPermissionDenied", branchName=name)
    history = history_of(context, request)
    return json_response(200, context.lifecycle.create_branch(history.dataset.rid, name, transaction).wire())


def get_branch(context: Context, request: Request) -> Response:
    """Answer with a branch and its newest open or committed transaction; that of a stream has none."""
    name, of_stream = request.params["branchName"], _branches_of_stream(context, request)
    if not of_stream:
        return json_response(200, history_of(context, request).branch(name).wire())
    found = next((each for each in of_stream if each.name == name), None)
    if found is None:
        message = f"The stream has no branch {quoted(name)}. {known([each.name for each in of_stream], 'branches')}"
        raise ApiError(404, "BranchNotFound", message, datasetRid=request.params["datasetRid"], branchName=name)
    return json_response(200, found.wire())


def _branches_of_stream(context: Context, request: Request) -> list[Branch]:
    return [Branch(each.branch) for each in streams_of(context, request)]


def delete_branch(context: Context, request: Request) -> Response:
    """Delete a branch. Its open transaction, if there is one, is aborted before [ours]."""
    context.lifecycle.delete_branch(history_of(context, request).dataset.rid, request.params["branchName"])
    return Response(204)


# Transactions


def list_transactions(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Answer with a page of the transactions of a dataset, the newest first."""
    return _page(request, reversed(list(history_of(context, request).transactions.values())))


def list_transactions_of_branch(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Answer with a page of the transactions of a branch, the newest first; without those that were aborted."""
    history = history_of(context, request)
    return _page(request, history.chain(history.branch(request.params["branchName"]).transaction_rid))


def _page(request: Request, transactions: Iterable[Transaction]) -> Response | Awaitable[Response]:
    return page(query_options(request), transactions, lambda each: each.rid, Transaction.wire)


def create_transaction(context: Context, request: Request) -> Response:
    """Open a transaction on a branch."""
    history, branch = history_of(context, request), query_options(request).get("branchName", MASTER)
    kind = transaction_type(Fields(request.body, "Opening a transaction").required_text("transactionType"))
    return json_response(200, context.lifecycle.open_transaction(history.dataset.rid, kind, branch).wire())


def transaction_type(given: str) -> TransactionType:
    """Return the type of a transaction; `InvalidRequest` for an unknown one."""
    if given not in TransactionType.__members__:
        raise InvalidRequest(f"'transactionType' must be one of {', '.join(TransactionType)}.")
    return TransactionType(given)


def get_transaction(context: Context, request: Request) -> Response:
    """Answer with the type, the status and the times of a transaction."""
    return json_response(200, history_of(context, request).transaction(request.params["transactionRid"]).wire())


def commit(context: Context, request: Request) -> Response:
    """Commit an open transaction: from now on readers see what it changed."""
    rid, transaction = history_of(context, request).dataset.rid, request.params["transactionRid"]
    return json_response(200, context.lifecycle.commit_transaction(rid, transaction).wire())


def abort(context: Context, request: Request) -> Response:
    """Abort an open transaction, and discard its files."""
    rid, transaction = history_of(context, request).dataset.rid, request.params["transactionRid"]
    return json_response(200, context.lifecycle.abort_transaction(rid, transaction).wire())


# Routes

_RID = described(schemas.TEXT, "The RID of the transaction")
_NEXT_PAGE = described(schemas.TEXT, "The token of the next page; absent if this is the last one")
_BRANCH = schemas.members(
    {
        "name": described(schemas.TEXT, "The name of the branch"),
        "transactionRid": described(schemas.TEXT, "Its newest open or committed transaction; absent before the first"),
    },
    ("transactionRid",),
)
_TYPE = described(schemas.one_of(TransactionType), "What it does to the files of its branch")
TIME: schemas.Schema = {"type": "string", "format": "date-time"}
_TRANSACTION = schemas.members(
    {
        "rid": _RID,
        "transactionType": _TYPE,
        "status": described(schemas.one_of(TransactionStatus), "The status"),
        "createdTime": described(TIME, "When it was opened"),
        "closedTime": described(TIME, "When it was committed or aborted; absent before"),
    },
    ("closedTime",),
)


def page_of(record: schemas.Schema, what: str, example: Any) -> schemas.Schema:
    """Return the schema of a page of records."""
    of_records = described(schemas.array(record), f"The {what} of this page")
    return with_examples(
        schemas.members({"data": of_records, "nextPageToken": _NEXT_PAGE}, ("nextPageToken",)), {"data": [example]}
    )


_TRANSACTIONS = page_of(_TRANSACTION, "transactions", examples.TRANSACTION)
_ONE_TRANSACTION = with_examples(_TRANSACTION, examples.TRANSACTION)
_ONE_BRANCH = with_examples(_BRANCH, examples.DATASET_BRANCH)
_OF_PAGES = {400: "The page size or the page token is invalid"}
_NO_DATASET = "The dataset does not exist"
_NO_BRANCH = "The dataset or the branch does not exist"
_NO_TRANSACTION = "The dataset or the transaction does not exist"
_ONE = f"{DATASETS}/{{datasetRid}}"

routes = (
    Route(
        "GET",
        f"{_ONE}/branches",
        list_branches,
        Auth.DATA,
        {200: "A page of the branches", 404: _NO_DATASET, **_OF_PAGES},
        "List the branches of a dataset",
        answer=page_of(_BRANCH, "branches", examples.DATASET_BRANCH),
        denied="DatasetNotFound",
        error_names={400: "InvalidPageSize", 404: "DatasetNotFound"},
        query=PAGE_OPTIONS,
    ),
    Route(
        "POST",
        f"{_ONE}/branches",
        create_branch,
        Auth.DATA,
        {
            200: "The branch",
            400: "The name can't be used, or the transaction is not committed",
            404: _NO_TRANSACTION,
            409: "There is a branch of this name already",
        },
        "Create a branch of a dataset",
        body=with_examples(
            {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": described(schemas.TEXT, "The name; not empty, and not like a RID or a UUID"),
                    "transactionRid": described(
                        schemas.MAYBE_TEXT, "The committed transaction with which it begins; none for an empty branch"
                    ),
                },
            },
            examples.NEW_BRANCH,
        ),
        answer=_ONE_BRANCH,
        error_names={400: "InvalidBranchName", 404: "TransactionNotFound", 409: "BranchAlreadyExists"},
    ),
    Route(
        "GET",
        f"{_ONE}/branches/{{branchName}}",
        get_branch,
        Auth.DATA,
        {200: "The branch", 404: _NO_BRANCH},
        "Describe a branch of a dataset",
        answer=_ONE_BRANCH,
        denied="BranchNotFound",
        error_names={404: "BranchNotFound"},
    ),
    Route(
        "DELETE",
        f"{_ONE}/branches/{{branchName}}",
        delete_branch,
        Auth.DATA,
        {204: "The branch does not exist any more", 404: _NO_BRANCH},
        "Delete a branch of a dataset",
        denied="DeleteBranchPermissionDenied",
        error_names={404: "BranchNotFound"},
    ),
    Route(
        "GET",
        f"{_ONE}/branches/{{branchName}}/transactions",
        list_transactions_of_branch,
        Auth.DATA,
        {200: "A page of the transactions", 404: _NO_BRANCH, **_OF_PAGES},
        "List the transactions of a branch",
        answer=_TRANSACTIONS,
        denied="GetBranchTransactionHistoryPermissionDenied",
        error_names={400: "InvalidPageSize", 404: "BranchNotFound"},
        query={**PAGE_OPTIONS, **PREVIEW},
    ),
    Route(
        "GET",
        f"{_ONE}/transactions",
        list_transactions,
        Auth.DATA,
        {200: "A page of the transactions", 404: _NO_DATASET, **_OF_PAGES},
        "List the transactions of a dataset",
        answer=_TRANSACTIONS,
        denied="DatasetNotFound",
        error_names={400: "InvalidPageSize", 404: "DatasetNotFound"},
        query={**PAGE_OPTIONS, **PREVIEW},
    ),
    Route(
        "POST",
        f"{_ONE}/transactions",
        create_transaction,
        Auth.DATA,
        {200: "The transaction", 404: _NO_BRANCH, 409: "The branch has an open transaction already"},
        "Open a transaction of a dataset",
        body=with_examples(
            {"type": "object", "required": ["transactionType"], "properties": {"transactionType": _TYPE}},
            examples.NEW_TRANSACTION,
        ),
        answer=with_examples(_TRANSACTION, examples.OPENED_TRANSACTION),
        denied="CreateTransactionPermissionDenied",
        error_names={404: "BranchNotFound", 409: "OpenTransactionAlreadyExists"},
        query=BRANCH_OPTION,
    ),
    Route(
        "GET",
        f"{_ONE}/transactions/{{transactionRid}}",
        get_transaction,
        Auth.DATA,
        {200: "The transaction", 404: _NO_TRANSACTION},
        "Describe a transaction of a dataset",
        answer=_ONE_TRANSACTION,
        denied="TransactionNotFound",
        error_names={404: "TransactionNotFound"},
    ),
    *(
        Route(
            "POST",
            f"{_ONE}/transactions/{{transactionRid}}/{handler.__name__}",
            handler,
            Auth.DATA,
            {200: "The transaction", 400: "The transaction is not open any more", 404: _NO_TRANSACTION},
            f"{handler.__name__.capitalize()} a transaction of a dataset",
            answer=_ONE_TRANSACTION,
            denied=f"{handler.__name__.capitalize()}TransactionPermissionDenied",
            error_names={400: "TransactionNotOpen", 404: "TransactionNotFound"},
        )
        for handler in (commit, abort)
    ),
)
