"""The ontologies routes of Foundry's public API, by which the OSDK and the platform SDKs call functions [foundry].

There is one ontology. Every function is a query of it, and it has no objects, links or actions. Its RID and API name
are settings, but a request may have any others.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.errors import ApiError
from cmemu_nb.phrases import quoted
from cmemu_nb.server.api.calls import arguments_of, check_version, refuse_transaction
from cmemu_nb.server.api.functions import (
    CALL_ANSWERS,
    CALL_ERROR_NAMES,
    MAX_BATCH,
    PREVIEW,
    TRANSACTION,
    VERSION_OR_RANGE,
    find_described,
    requested,
)
from cmemu_nb.server.api.jobs import call
from cmemu_nb.server.api.pages import PAGE_OPTIONS, key_of, page_size, token_after
from cmemu_nb.server.api.queries import Query, all_queries, find_by_rids, find_query, query_record
from cmemu_nb.server.api.versions import VERSION, includes_version
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.listing import MAX_RECORDS_OF_A_TURN, listing
from cmemu_nb.server.openapi import examples, schemas
from cmemu_nb.server.openapi.schemas import described, with_examples
from cmemu_nb.server.response import Response, json_response
from cmemu_nb.server.routing import Route, query_options
from cmemu_nb.wire.json_input import Fields
from cmemu_nb.wire.paths import ONTOLOGIES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cmemu_nb.lifecycle.state import State
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.openapi.schemas import Schema
    from cmemu_nb.server.request import Request

# The ontology


def list_ontologies(context: Context, _: Request) -> Response:
    """Answer with the only ontology."""
    return json_response(200, {"data": [_ontology(context)]})


def get_ontology(context: Context, _: Request) -> Response:
    """Answer with the only ontology, by whatever RID or name the request calls it."""
    return json_response(200, _ontology(context))


async def get_full_metadata(context: Context, request: Request) -> Response:
    """Answer with the ontology and all its queries, by name and version. There are no objects, links or actions.

    A large answer is made in turns, so that other requests are served in between.
    """
    query_types = {}
    for number, query in enumerate(all_queries(context.lifecycle, query_options(request).get("branch")), 1):
        query_types[f"{query.api_name}:{VERSION}"] = msgspec.Raw(msgspec.json.encode(_record(query)))
        if number % MAX_RECORDS_OF_A_TURN == 0:
            await asyncio.sleep(0)
    return json_response(
        200,
        {
            "ontology": _ontology(context),
            "queryTypes": query_types,
            **{name: {} for name in schemas.EMPTY_IN_ONTOLOGY},
        },
    )


def _ontology(context: Context) -> dict[str, str]:
    return {
        "apiName": context.ontology_api_name,
        "displayName": context.ontology_api_name,
        "description": "The functions of the compute modules that this emulator serves.",
        "rid": context.ontology_rid,
    }


# Its queries


def list_query_types(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Answer with a page of the queries, by app and name. `nextPageToken` is for the next page, if there is one."""
    return page_of_queries(context, request, _record)


def page_of_queries(
    context: Context, request: Request, record: Callable[[Query], dict[str, Any]]
) -> Response | Awaitable[Response]:
    """Answer with a page of the queries, each as `record` describes it."""
    options = query_options(request)
    size = page_size(options.get("pageSize"))
    found = _queries_from(context.lifecycle, options.get("branch"), options.get("pageToken"), size + 1)
    page = found[:size]
    fields = {"nextPageToken": _token_after(page[-1])} if len(found) > size else {}
    return listing(fields, "data", page, record)


def _queries_from(state: State, branch: str | None, token: str | None, most: int) -> list[Query]:
    after = None if token is None else key_of(token, tuple[str, str])
    return [query for query, _ in zip(all_queries(state, branch, after), range(most), strict=False)]


def _token_after(query: Query) -> str:
    return token_after((query.deployed_app_rid, query.name))


def get_query_type(context: Context, request: Request) -> Response:
    """Answer with the description of a query: its names, parameters and output type."""
    return json_response(200, query_record(find_in_ontology(context, request, find_described)))


async def get_query_types_by_rid_batch(context: Context, request: Request) -> Response:
    """Answer with the descriptions of the requested queries. RIDs that no function has are left out."""
    what = "Getting query types by their RIDs"
    wanted = requested(Fields(request.body, what).raw("requests", b"null"), what)
    rids = [fields.required_text("queryTypeRid") for fields in wanted]
    queries = await find_by_rids(context.lifecycle, rids, query_options(request).get("branch"))
    found = []
    for rid, fields in zip(rids, wanted, strict=True):
        version = fields.text("functionVersion")
        if rid in queries and (version is None or includes_version(version)):
            found.append(_record(queries[rid]))
    return json_response(200, {"data": found})


def _record(query: Query) -> dict[str, Any]:
    return query_record(replace(query, in_ontology=True))


def find_in_ontology(
    context: Context, request: Request, find: Callable[[State, str, str | None], Query] = find_query
) -> Query:
    """Return the query that a request names, at its `branch` and `version`. Raises the errors of the API."""
    name, options = request.params["queryApiName"], query_options(request)
    for label in ("branch", "version"):
        context.lifecycle.check_label(label, options.get(label))
    try:
        query = find(context.lifecycle, name, options.get("branch"))
    except ApiError as error:
        if error.code != "QueryNotFound":
            raise
        # The ontologies API has another name for this parameter than the functions API.
        raise ApiError(error.status, error.code, str(error), query=name, message=str(error)) from None
    check_version(query, options.get("version"), None, prerelease=None)
    return replace(query, in_ontology=True)


# Calls


async def execute(context: Context, request: Request) -> Response:
    """Call a function and answer with its value. The options of generated SDKs have no effect."""
    given = Fields(request.body, "Executing a query").required_object("parameters")
    query, options = find_in_ontology(context, request), query_options(request)
    refuse_transaction(query, options)
    scenario = options.get("scenarioRid")
    if scenario is not None:
        message = f"There is no scenario {quoted(scenario)}: the emulator has none. Leave scenarioRid out."
        raise ApiError(404, "OntologyScenarioNotFound", message, scenarioRid=scenario)
    value = await call(context, request, query, arguments_of(query, given))
    return json_response(200, {"value": msgspec.Raw(value)})


# Routes

_OF_SDK = "Accepted without effect: the package of a generated SDK"
_BRANCH: Schema = {"branch": described(schemas.TEXT, "The branch; if omitted, each app's `master` or newest branch")}
_QUERY_OPTIONS: Schema = {
    **_BRANCH,
    "version": described(schemas.TEXT, VERSION_OR_RANGE),
    "sdkPackageRid": described(schemas.TEXT, _OF_SDK),
    "sdkVersion": described(schemas.TEXT, f"{_OF_SDK}, its version"),
}
_SCENARIO = described(schemas.TEXT, "Refused: the emulator has no scenarios")
PAGE_ANSWERS = {200: "A page of the queries", 400: "The page size or the page token is invalid"}
PAGE_ERROR_NAMES = {400: "InvalidPageSize"}
PARAMETERS: Schema = with_examples(
    {
        "type": "object",
        "required": ["parameters"],
        "properties": {
            "parameters": {
                "type": "object",
                "description": "The values of the function's inputs, by name; maps are entry sets",
            }
        },
    },
    examples.PARAMETERS,
)
_BATCH_BODY = with_examples(
    {
        "type": "object",
        "required": ["requests"],
        "properties": {
            "requests": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_BATCH,
                "description": "The queries",
                "items": {
                    "type": "object",
                    "required": ["queryTypeRid"],
                    "properties": {
                        "queryTypeRid": {"type": "string", "minLength": 1, "description": "The function's RID"},
                        "functionVersion": {"type": ["string", "null"], "description": VERSION_OR_RANGE},
                    },
                },
            }
        },
    },
    examples.QUERY_TYPE_RIDS,
)

routes = (
    Route(
        "GET",
        ONTOLOGIES,
        list_ontologies,
        Auth.BEARER,
        {200: "The list of ontologies, which has one"},
        "List the ontologies",
        answer=schemas.ONTOLOGIES,
    ),
    Route(
        "GET",
        f"{ONTOLOGIES}/{{ontology}}",
        get_ontology,
        Auth.BEARER,
        {200: "The ontology"},
        "Describe the ontology",
        answer=schemas.ONTOLOGY,
    ),
    Route(
        "GET",
        f"{ONTOLOGIES}/{{ontology}}/fullMetadata",
        get_full_metadata,
        Auth.BEARER,
        {200: "The ontology and its queries"},
        "Describe the ontology with all its queries",
        answer=schemas.FULL_METADATA,
        query={
            **_BRANCH,
            **PREVIEW,
            "includeActionTypeFullMetadata": described(schemas.FLAG, "Accepted without effect: there are no actions"),
        },
    ),
    Route(
        "GET",
        f"{ONTOLOGIES}/{{ontology}}/queryTypes",
        list_query_types,
        Auth.BEARER,
        PAGE_ANSWERS,
        "List the queries of the ontology",
        answer=schemas.QUERY_TYPES,
        error_names=PAGE_ERROR_NAMES,
        query={**_BRANCH, **PAGE_OPTIONS},
    ),
    Route(
        "POST",
        f"{ONTOLOGIES}/{{ontology}}/queryTypes/getByRidBatch",
        get_query_types_by_rid_batch,
        Auth.BEARER,
        {200: "The requested queries that exist"},
        "Describe queries by their RIDs",
        body=_BATCH_BODY,
        answer=schemas.QUERY_TYPE_BATCH,
        query={**_BRANCH, **PREVIEW},
    ),
    Route(
        "GET",
        f"{ONTOLOGIES}/{{ontology}}/queryTypes/{{queryApiName}}",
        get_query_type,
        Auth.BEARER,
        {200: "The query", 404: CALL_ANSWERS[404]},
        "Describe a query",
        answer=schemas.QUERY_TYPE,
        error_names={404: CALL_ERROR_NAMES[404]},
        query=_QUERY_OPTIONS,
    ),
    Route(
        "POST",
        f"{ONTOLOGIES}/{{ontology}}/queries/{{queryApiName}}/execute",
        execute,
        Auth.BEARER,
        {200: "The value", **CALL_ANSWERS},
        "Call a function and wait for its value",
        body=PARAMETERS,
        answer=schemas.VALUE,
        error_names=CALL_ERROR_NAMES,
        query={**_QUERY_OPTIONS, **TRANSACTION, "scenarioRid": _SCENARIO},
    ),
)
