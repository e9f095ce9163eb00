"""The datasets routes of Foundry's public API: datasets, their schemas and their tables [foundry]."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import msgspec

from cmemu_nb.errors import ApiError, InvalidRequest
from cmemu_nb.foundry.field_schemas import FieldType, read_fields, write_fields
from cmemu_nb.lifecycle.datasets import MASTER, Reader
from cmemu_nb.phrases import quoted
from cmemu_nb.server.api.dataset_views import (
    BRANCH_OPTION,
    END_OPTION,
    NOT_FOUND,
    RANGE_OPTIONS,
    View,
    history_of,
    streams_of,
)
from cmemu_nb.server.api.functions import PREVIEW
from cmemu_nb.server.api.tables import as_arrow, as_csv
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import examples, schemas
from cmemu_nb.server.openapi.schemas import described, with_examples
from cmemu_nb.server.response import StreamResponse, json_response
from cmemu_nb.server.routing import Route, query_options
from cmemu_nb.wire.json_input import Fields, decode
from cmemu_nb.wire.paths import DATASETS

if TYPE_CHECKING:
    from cmemu_nb.lifecycle.datasets import DatasetHistory
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request
    from cmemu_nb.server.response import Response

FORMATS = ("ARROW", "CSV")
MAX_BATCH = 1000
# On the platform more rows can be read of Parquet files only.
MAX_ROWS_OF_OTHERS = 1_000_000


def create(context: Context, request: Request) -> Response:
    """Create an empty dataset with a branch `master`. Its name must be new, whatever the folder [ours]."""
    fields = Fields(request.body, "Creating a dataset")
    name, folder = fields.required_text("name"), fields.required_text("parentFolderRid")
    context.tokens.check_reach(request, "CreateDatasetPermissionDenied", name=name, parentFolderRid=folder)
    return json_response(200, context.lifecycle.create_dataset(name, folder).wire())


def get(context: Context, request: Request) -> Response:
    """Answer with the name and the folder of a dataset, which may be of the type stream."""
    streams = streams_of(context, request)
    wire = streams[0].dataset_wire() if streams else history_of(context, request).dataset.wire()
    return json_response(200, wire)


# Schemas


def get_schema(context: Context, request: Request) -> Response:
    """Answer with the schema that is valid for a transaction, by default the newest committed one of the branch."""
    history, options = history_of(context, request), query_options(request)
    return json_response(200, View.asked(history, options).schema(options.get("versionId")).wire())


def get_schema_batch(context: Context, request: Request) -> Response:
    """Answer with the schemas of several datasets, by RID. Those without one, or out of reach, are left out."""
    what = "Getting the schemas of datasets"
    wanted = decode(request.body, list[msgspec.Raw], what)
    if not 1 <= len(wanted) <= MAX_BATCH:
        raise InvalidRequest(f"{what}: the body must be an array of 1 to {MAX_BATCH} elements.")
    found = {}
    for each in wanted:
        fields = Fields(each, what)
        rid = fields.required_text("datasetRid")
        if not context.tokens.reaches(request, rid):
            continue
        given = {name: fields.text(name) for name in ("branchName", "endTransactionRid", "versionId")}
        options = {name: text for name, text in given.items() if text is not None}
        try:
            found[rid] = View.asked(context.lifecycle.dataset(rid), options).schema(options.get("versionId")).wire()
        except ApiError:
            continue
    return json_response(200, {"data": found})


def put_schema(context: Context, request: Request) -> Response:
    """Set the schema of a dataset from a transaction on, by default the newest committed one of the branch."""
    history, fields = history_of(context, request), Fields(request.body, "Putting a schema")
    branch = fields.text("branchName") or MASTER
    end = fields.text("endTransactionRid") or _newest(history, branch)
    reader = fields.text("dataframeReader") or Reader.PARQUET
    if reader not in Reader.__members__:
        raise InvalidRequest(f"Putting a schema: dataframeReader must be one of {', '.join(Reader)}.")
    given = fields.required_object("schema").get("fieldSchemaList", msgspec.Raw(b"null"))
    text = write_fields(read_fields(bytes(given)))
    rid = history.dataset.rid
    return json_response(200, context.lifecycle.set_dataset_schema(rid, end, branch, text, Reader(reader)).wire())


def _newest(history: DatasetHistory, branch: str) -> str:
    end = history.branch(branch).committed_rid
    if end is None:
        message = (
            f"The dataset {quoted(history.dataset.name)} has no committed transaction on the branch {quoted(branch)}, "
            "so there is no view to put a schema on. Upload a file before."
        )
        raise ApiError(404, "DatasetViewNotFound", message, datasetRid=history.dataset.rid, branch=branch)
    return end


# Tables


async def read_table(context: Context, request: Request) -> StreamResponse:
    """Answer with the rows of a dataset, as a stream of Arrow's IPC format or as CSV.

    The files are Parquet, CSV or Avro. The dataset must have a schema. CSV has no nested columns and no binary ones.
    """
    history, options = history_of(context, request), query_options(request)
    form, limit = options.get("format"), _row_limit(options.get("rowLimit"))
    if form not in FORMATS:
        raise InvalidRequest("Reading a table: the query option 'format' must be ARROW or CSV.")
    view = View.asked(history, options)
    columns = parse_qs(request.query).get("columns")
    table = await context.tables.read(history.dataset.rid, view.files, view.schema(), columns)
    if limit is not None:
        table = table.slice(0, limit)
    _check_rows(history, view, len(table))
    return await as_arrow(table) if form == "ARROW" else as_csv(history.dataset.rid, table)


def _row_limit(given: str | None) -> int | None:
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) <= 18):  # noqa: PLR2004 - of 64 bits
        raise InvalidRequest("Reading a table: 'rowLimit' must be a whole number, 0 or more.")
    return int(given)


def _check_rows(history: DatasetHistory, view: View, count: int) -> None:
    if count > MAX_ROWS_OF_OTHERS and any(file.body[:4] != b"PAR1" for file in view.files.values()):
        message = (
            f"The table has {count:,} rows, and of files that are not Parquet at most {MAX_ROWS_OF_OTHERS:,} can be "
            "read. Set a rowLimit, or write Parquet."
        )
        raise ApiError(400, "ReadTableRowLimitExceeded", message, datasetRid=history.dataset.rid)


# Routes

_RID = described(schemas.TEXT, "The RID of the dataset")
_NAME = described(schemas.TEXT, "The name of the dataset")
_FOLDER = described(schemas.TEXT, "The RID of the folder; any is accepted")
DATASET = with_examples(schemas.members({"rid": _RID, "name": _NAME, "parentFolderRid": _FOLDER}), examples.DATASET)
_FIELD: schemas.Schema = {
    "type": "object",
    "required": ["type", "nullable"],
    "properties": {
        "type": described(schemas.one_of(FieldType.__args__), "The type"),  # type: ignore[attr-defined]
        "name": described(schemas.MAYBE_TEXT, "The name of a column or of a member of a struct"),
        "nullable": described(schemas.FLAG, "Whether a value may be null"),
    },
}
_SCHEMA = schemas.members(
    {"fieldSchemaList": described(schemas.array(_FIELD), "The columns; nested types have further members")}
)
_READER = described({"enum": [*map(str, Reader), None]}, "The format of the files, `PARQUET` by default")
_FOUND_SCHEMA = schemas.members(
    {
        "branchName": described(schemas.TEXT, "The branch"),
        "endTransactionRid": described(schemas.TEXT, "The transaction from which on the schema is valid"),
        "schema": described(_SCHEMA, "The schema"),
        "versionId": described(schemas.TEXT, "The version of the schema"),
    }
)
_GIVEN_SCHEMA: schemas.Schema = {
    "type": "object",
    "required": ["fieldSchemaList"],
    "properties": {"fieldSchemaList": described(schemas.array(_FIELD), "The columns")},
}
_BATCH = {
    "type": "array",
    "minItems": 1,
    "maxItems": MAX_BATCH,
    "items": {
        "type": "object",
        "required": ["datasetRid"],
        "properties": {
            "datasetRid": described({"type": "string", "minLength": 1, "pattern": r"\S"}, "The RID of the dataset"),
            "branchName": described(schemas.MAYBE_TEXT, f"The branch, `{MASTER}` by default"),
            "endTransactionRid": described(schemas.MAYBE_TEXT, "The transaction, the newest by default"),
            "versionId": described(schemas.MAYBE_TEXT, "The version of the schema, the newest by default"),
        },
    },
}
_NOT_BLANK = {"type": "string", "minLength": 1, "pattern": r"\S"}
_VERSION = {"versionId": described(schemas.TEXT, "The version of the schema, the newest by default")}
_NO_SCHEMA = f"{NOT_FOUND}, or there is no schema"

routes = (
    Route(
        "POST",
        DATASETS,
        create,
        Auth.DATA,
        {200: "The dataset", 400: "The name can't be used", 409: "There is a dataset of this name already"},
        "Create a dataset",
        body=with_examples(
            {
                "type": "object",
                "required": ["name", "parentFolderRid"],
                "properties": {"name": _NOT_BLANK | _NAME, "parentFolderRid": _NOT_BLANK | _FOLDER},
            },
            examples.NEW_DATASET,
        ),
        answer=DATASET,
        error_names={400: "InvalidDisplayName", 409: "ResourceNameAlreadyExists"},
    ),
    Route(
        "POST",
        f"{DATASETS}/getSchemaBatch",
        get_schema_batch,
        Auth.DATA,
        {200: "The schemas that were found"},
        "Describe the columns of several datasets",
        body=with_examples(_BATCH, examples.SCHEMA_BATCH),
        answer=with_examples(
            schemas.members(
                {"data": {"type": "object", "additionalProperties": _FOUND_SCHEMA, "description": "By RID"}}
            ),
            examples.FOUND_SCHEMAS,
        ),
    ),
    Route(
        "GET",
        f"{DATASETS}/{{datasetRid}}",
        get,
        Auth.DATA,
        {200: "The dataset", 404: "The dataset does not exist"},
        "Describe a dataset",
        answer=DATASET,
        denied="DatasetNotFound",
        error_names={404: "DatasetNotFound"},
    ),
    Route(
        "GET",
        f"{DATASETS}/{{datasetRid}}/getSchema",
        get_schema,
        Auth.DATA,
        {200: "The schema", 400: "The transaction is not committed", 404: _NO_SCHEMA},
        "Describe the columns of a dataset",
        answer=with_examples(_FOUND_SCHEMA, examples.FOUND_SCHEMA),
        denied="GetDatasetSchemaPermissionDenied",
        error_names={400: "TransactionNotCommitted", 404: "SchemaNotFound"},
        query={**BRANCH_OPTION, **END_OPTION, **_VERSION, **PREVIEW},
    ),
    Route(
        "PUT",
        f"{DATASETS}/{{datasetRid}}/putSchema",
        put_schema,
        Auth.DATA,
        {200: "The schema", 400: "The schema is not valid", 404: f"{NOT_FOUND}, or there is no view"},
        "Set the columns of a dataset",
        body=with_examples(
            {
                "type": "object",
                "required": ["schema"],
                "properties": {
                    "schema": described(_GIVEN_SCHEMA, "The schema"),
                    "branchName": described(schemas.MAYBE_TEXT, f"The branch, `{MASTER}` by default"),
                    "endTransactionRid": described(schemas.MAYBE_TEXT, "The transaction, the newest by default"),
                    "dataframeReader": _READER,
                },
            },
            examples.NEW_SCHEMA,
        ),
        answer=with_examples(_FOUND_SCHEMA, examples.FOUND_SCHEMA),
        denied="PutDatasetSchemaPermissionDenied",
        error_names={400: "InvalidSchema", 404: "DatasetViewNotFound"},
        query=PREVIEW,
    ),
    Route(
        "GET",
        f"{DATASETS}/{{datasetRid}}/readTable",
        read_table,
        Auth.DATA,
        {
            200: "The rows",
            400: "The table can't be read as it was asked for",
            404: _NO_SCHEMA,
            500: "A file of the dataset can't be read",
        },
        "Read a dataset as a table",
        denied="ReadTableDatasetPermissionDenied",
        error_names={400: "ColumnTypesNotSupported", 404: "SchemaNotFound", 500: "ReadTableError"},
        query={
            **RANGE_OPTIONS,
            "format": with_examples(described(schemas.one_of(FORMATS), "The format; it must be given"), "ARROW"),
            "columns": described(schemas.array(schemas.TEXT), "The columns, all by default"),
            "rowLimit": described(schemas.COUNT, "The most rows, all by default"),
        },
    ),
)
