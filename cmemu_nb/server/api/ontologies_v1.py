"""Version 1 of the ontologies routes of Foundry's public API, which `foundry_sdk.v1` calls [foundry].

Calls are those of version 2. Types are described in other words: an array has an `itemType`, a map is a `map`, and each
parameter also has its type as text, such as `Array<Long>`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cmemu_nb.server.api import ontologies
from cmemu_nb.server.api.data_types import TOO_DEEP, unsupported
from cmemu_nb.server.api.functions import CALL_ANSWERS, CALL_ERROR_NAMES, find_described
from cmemu_nb.server.api.ontologies import PAGE_ANSWERS, PAGE_ERROR_NAMES, PARAMETERS
from cmemu_nb.server.api.pages import PAGE_OPTIONS
from cmemu_nb.server.api.queries import Query, query_record
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import schemas
from cmemu_nb.server.response import Response, json_response
from cmemu_nb.server.routing import Route
from cmemu_nb.wire.paths import ONTOLOGIES_V1

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request

# Types that only version 1 has.
_ONLY_HERE = frozenset(("any", "binary", "byte", "decimal", "short"))
_NOT_HERE = frozenset(("attachment", "null"))
_BASE_TYPES = {"date": "LocalDate", "array": "Array", "set": "Set", "map": "Map"}
_NULL = {"type": "null"}


def list_query_types(context: Context, request: Request) -> Response | Awaitable[Response]:
    """Answer with a page of the queries, by app and name. `nextPageToken` is for the next page, if there is one."""
    return ontologies.page_of_queries(context, request, _record)


def get_query_type(context: Context, request: Request) -> Response:
    """Answer with the description of a query: its names, parameters and output type."""
    return json_response(200, _record(ontologies.find_in_ontology(context, request, find_described)))


def _record(query: Query) -> dict[str, Any]:
    fields = query_record(replace(query, in_ontology=True))
    del fields["typeReferences"]
    parameters = {name: _parameter(each) for name, each in fields["parameters"].items()}
    return {**fields, "parameters": parameters, "output": _in_v1(fields["output"])}


def _parameter(fields: dict[str, Any]) -> dict[str, Any]:
    kind = _in_v1(fields["dataType"])
    return {"baseType": _base_type(kind), "dataType": kind, "required": fields["required"]}


def _in_v1(kind: dict[str, Any]) -> dict[str, Any]:
    try:
        return _converted(kind)
    except RecursionError:
        return unsupported(TOO_DEEP)


def _converted(kind: dict[str, Any]) -> dict[str, Any]:
    """Return a type of version 2 as version 1 describes it."""
    match kind["type"]:
        case "array" | "set":
            return {"type": kind["type"], "itemType": _converted(kind["subType"])}
        case "entrySet":
            return {"type": "map", "keyType": _converted(kind["keyType"]), "valueType": _converted(kind["valueType"])}
        case "union":
            return _converted(kind["unionTypes"][0])
        case "struct":
            return {"type": "struct", "fields": [_field(**each) for each in kind["fields"]]}
    return _scalar(kind)


def _scalar(kind: dict[str, Any]) -> dict[str, Any]:
    if kind.get("unsupportedType") in _ONLY_HERE:
        return {"type": kind["unsupportedType"]}
    return unsupported(kind["type"]) if kind["type"] in _NOT_HERE else kind


def _field(name: str, fieldType: dict[str, Any]) -> dict[str, Any]:  # noqa: N803 - members of the API
    required = _NULL not in fieldType.get("unionTypes", [])
    return {"name": name, "fieldType": _converted(fieldType), "required": required}


def _base_type(kind: dict[str, Any]) -> str:
    """Return a type of version 1 as text."""
    name = _BASE_TYPES.get(kind["type"], kind["type"][:1].upper() + kind["type"][1:])
    parts = [_base_type(kind[part]) for part in ("itemType", "keyType", "valueType") if part in kind]
    if kind["type"] == "struct":
        fields = ", ".join(f"{each['name']}: {_base_type(each['fieldType'])}" for each in kind["fields"])
        return f"Struct<{{ {fields} }}>"
    return f"{name}<{', '.join(parts)}>" if parts else name


routes = (
    Route(
        "GET",
        ONTOLOGIES_V1,
        ontologies.list_ontologies,
        Auth.BEARER,
        {200: "The list of ontologies, which has one"},
        "List the ontologies",
        answer=schemas.ONTOLOGIES,
    ),
    Route(
        "GET",
        f"{ONTOLOGIES_V1}/{{ontologyRid}}",
        ontologies.get_ontology,
        Auth.BEARER,
        {200: "The ontology"},
        "Describe the ontology",
        answer=schemas.ONTOLOGY,
    ),
    Route(
        "GET",
        f"{ONTOLOGIES_V1}/{{ontologyRid}}/queryTypes",
        list_query_types,
        Auth.BEARER,
        PAGE_ANSWERS,
        "List the queries of the ontology",
        answer=schemas.QUERY_TYPES_V1,
        error_names=PAGE_ERROR_NAMES,
        query=PAGE_OPTIONS,
    ),
    Route(
        "GET",
        f"{ONTOLOGIES_V1}/{{ontologyRid}}/queryTypes/{{queryApiName}}",
        get_query_type,
        Auth.BEARER,
        {200: "The query", 404: CALL_ANSWERS[404]},
        "Describe a query",
        answer=schemas.QUERY_TYPE_V1,
        error_names={404: CALL_ERROR_NAMES[404]},
    ),
    Route(
        "POST",
        f"{ONTOLOGIES_V1}/{{ontologyRid}}/queries/{{queryApiName}}/execute",
        ontologies.execute,
        Auth.BEARER,
        {200: "The value", **CALL_ANSWERS},
        "Call a function and wait for its value",
        body=PARAMETERS,
        answer=schemas.VALUE,
        error_names=CALL_ERROR_NAMES,
    ),
)
