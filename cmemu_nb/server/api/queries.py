"""The functions of Foundry's public API: which one a name means, and how the API describes it [foundry].

A function is called by its API name, `com.<namespace>.computemodules.<Name>`, or by its name alone.
"""

from __future__ import annotations

import asyncio
import functools
import uuid
from bisect import bisect_left
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from cmemu_nb.errors import ApiError, NotFound, known
from cmemu_nb.phrases import closest, quoted
from cmemu_nb.server.api.data_types import data_type, of_json_schema
from cmemu_nb.server.api.versions import VERSION
from cmemu_nb.wire.api_names import COM, MODULES, name_in_api, namespace_of, normal_namespace, possible_functions
from cmemu_nb.wire.function_schemas import get_in, inputs_of, type_name
from cmemu_nb.wire.json_values import read_exactly

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from cmemu_nb.lifecycle.records import DeployedApp, Job
    from cmemu_nb.lifecycle.state import State

MAX_QUERIES_OF_A_TURN = 500
# A name in which `.computemodules.` occurs more often is not split any further.
MAX_SPLITS = 8


@dataclass(frozen=True)
class Query:
    """One function of one bound app, as the public API sees it. `payload` is None if the runtime posted no schema.

    `in_ontology` says whether it is called or described as a query of an ontology, where maps are entry sets.
    """

    deployed_app_rid: str
    branch: str
    runtime_id: str
    name: str
    payload: bytes | None = None
    in_ontology: bool = False

    @functools.cached_property
    def schema(self) -> Any:
        """The posted schema; None if there is none, and {} if it can't be read."""
        return None if self.payload is None else _decoded(self.payload)

    @property
    def api_name(self) -> str:
        """The full name of the function; it ends with the function's own name if the rules allow no API name."""
        return prefix(self.deployed_app_rid) + (name_in_api(self.name) or self.name)

    @functools.cached_property
    def rid(self) -> str:
        """The RID of the function, which depends only on the app and the name of the function."""
        return _rid(self.deployed_app_rid, self.name)

    @functools.cached_property
    def inputs(self) -> dict[str, tuple[Any, bool]]:
        """The parameters by name, each with its type and whether it is required; empty if they are not known."""
        return inputs_of(self.schema) or {}

    @property
    def output(self) -> Any:
        """The type of the result; None if it is not known."""
        return get_in(self.schema, "output", "single", "dataType")

    @property
    def ids(self) -> dict[str, Any]:
        """The parameters that errors have to identify the function."""
        return {"functionRid": self.rid, "functionVersion": VERSION}


def _rid(deployed_app_rid: str, name: str) -> str:
    own = uuid.uuid5(uuid.NAMESPACE_URL, f"{deployed_app_rid}/{name}")
    return f"ri.function-registry.main.function.{own}"


def prefix(deployed_app_rid: str) -> str:
    """Return the prefix of the API names of an app's functions."""
    return f"{COM}{namespace_of(deployed_app_rid)}{MODULES}"


def find_query(state: State, api_name: str, branch: str | None = None) -> Query:
    """Return the function that an API name means, on a branch, or else on each app's `master` or newest branch.

    A runtime that has posted no schemas may serve any function. Raises an `ApiError` that lists the known functions,
    or the candidates if the name is ambiguous.
    """
    splits = list(islice(_splits(api_name), MAX_SPLITS))
    named = {rid: None for namespace, _ in splits for rid in state.app_rids(namespace)}
    runtimes = [each for name in possible_functions(api_name) for each in state.runtimes_serving(name)]
    serving = [app for each in runtimes for app in state.apps_of(each)]
    apps = _bound(state, branch, {**named, **dict.fromkeys(app.deployed_app_rid for app in serving)})
    found = [query for app in apps for query in _called(state, app, [api_name, *_names_in(app, splits)])]
    if not found:
        # A name with a namespace can only mean a function of that app; a name without one may be of any app.
        apps = _bound(state, branch, named if splits else state.app_rids())
        silent = [app for app in apps if not state.count_schemas(app.runtime_id)]
        found = [_perhaps(app, name) for app in silent for name in (_names_in(app, splits) if splits else [api_name])]
    if len(found) == 1:
        return found[0]
    raise _ambiguous(api_name, found) if found else _unknown(state, api_name, branch)


async def find_by_rids(state: State, rids: Collection[str], branch: str | None = None) -> dict[str, Query]:
    """Return the functions that have one of the RIDs, by RID. It compares the RIDs of all functions, in turns."""
    wanted, found = set(rids), dict[str, Query]()
    for number, query in enumerate(all_queries(state, branch), 1):
        if query.rid in wanted:
            found.setdefault(query.rid, query)
            if len(found) == len(wanted):
                break
        if number % MAX_QUERIES_OF_A_TURN == 0:
            await asyncio.sleep(0)
    return found


def query_of(state: State, job: Job) -> Query:
    """Return the function that a job calls."""
    rid, branch = job.deployed_app_rid or job.runtime_id, job.deployed_app_branch or ""
    return _query(state, rid, branch, job.runtime_id, job.query_type)


def _splits(api_name: str) -> Iterator[tuple[str, str]]:
    """Yield each possible namespace in a name, and the rest; both the namespace and the rest may contain dots.

    Special characters in the namespace are ignored, so `my-app` is the namespace of the app `my-app`, which is `myapp`.
    """
    start = api_name.find(MODULES) if api_name.startswith(COM) else -1
    while start >= 0:
        yield normal_namespace(api_name[len(COM) : start]), api_name[start + len(MODULES) :]
        start = api_name.find(MODULES, start + 1)


def _bound(state: State, branch: str | None, rids: Iterable[str]) -> Iterator[DeployedApp]:
    for rid in rids:
        try:
            yield state.resolve_app(rid, branch)
        except NotFound:
            continue


def _called(state: State, app: DeployedApp, names: list[str]) -> Iterator[Query]:
    for called in names:
        for name in possible_functions(called):
            if state.find_schema(app.runtime_id, name):
                yield _query(state, app.deployed_app_rid, app.branch, app.runtime_id, name)
                break


def _names_in(app: DeployedApp, splits: list[tuple[str, str]]) -> list[str]:
    return [name for namespace, name in splits if name and namespace == app.namespace]


def _perhaps(app: DeployedApp, name: str) -> Query:
    return Query(app.deployed_app_rid, app.branch, app.runtime_id, name)


def _query(state: State, rid: str, branch: str, runtime_id: str, name: str) -> Query:
    posted = state.find_schema(runtime_id, name)
    return Query(rid, branch, runtime_id, name, posted.schema_payload if posted else None)


def _decoded(payload: bytes) -> Any:
    try:
        return read_exactly(payload)
    except (ValueError, RecursionError):
        return {}


def all_queries(state: State, branch: str | None = None, after: tuple[str, str] | None = None) -> Iterator[Query]:
    """Yield the functions of all apps by RID and name, on a branch, or else on each app's `master` or newest branch.

    A page begins behind the RID and the name `after`.
    """
    rids = sorted(state.app_rids())
    first, last_name = after or ("", "")
    for app in _bound(state, branch, rids[bisect_left(rids, first) :]):
        try:
            schemas = state.schemas(app.runtime_id)
        except NotFound:  # the runtime was deleted between two turns
            continue
        for schema in schemas:
            name, payload = schema.function_name, schema.schema_payload
            if app.deployed_app_rid != first or name > last_name:
                yield Query(app.deployed_app_rid, app.branch, app.runtime_id, name, payload)


def _unknown(state: State, api_name: str, branch: str | None) -> ApiError:
    queries = list(all_queries(state, branch))
    where = "" if branch is None else f" on branch {quoted(branch)}"
    similar = closest(api_name.rpartition(MODULES)[2], {query.name for query in queries})
    names = known({query.api_name for query in queries}, "functions")
    return not_found(f"No function {quoted(api_name)} is served{where}.{similar} {names}", api_name)


def not_found(message: str, api_name: str) -> ApiError:
    """Return the API's error for an unknown function; the message is repeated as the SDK shows only parameters."""
    return ApiError(404, "QueryNotFound", message, queryApiName=api_name, message=message)


def _ambiguous(api_name: str, found: list[Query]) -> ApiError:
    names = sorted({query.api_name for query in found})
    if len(names) > 1:
        message = f"'{api_name}' is served by {len(found)} deployed apps. Call {' or '.join(map(repr, names))}."
    else:
        apps = " and ".join(repr(query.deployed_app_rid) for query in found)
        message = (
            f"'{api_name}' may mean a function of two deployed apps, {apps}. Bind one of them under a RID with another "
            "last part."
        )
    return ApiError(400, "QueryApiNameAmbiguous", message, queryApiName=api_name, candidates=names)


# Descriptions


def query_record(query: Query) -> dict[str, Any]:
    """Return the API's record of a function, made from the schema that its runtime posted.

    A schema of another dialect is read as the JSON Schema of an object: its properties are the parameters. The record
    in an ontology also has the types to which others refer, of which a posted schema has none.
    """
    parameters = {name: _parameter(query, kind, required=required) for name, (kind, required) in query.inputs.items()}
    description = get_in(query.schema, "description")
    return {
        "apiName": query.api_name,
        **({"description": description} if isinstance(description, str) else {}),
        "displayName": query.name,
        "parameters": parameters or of_json_schema(query.schema),
        "output": data_type(query.output, in_ontology=query.in_ontology),
        "rid": query.rid,
        "version": VERSION,
        **({"typeReferences": {}} if query.in_ontology else {}),
    }


def _parameter(query: Query, kind: Any, *, required: bool) -> dict[str, Any]:
    return {
        "dataType": data_type(kind, in_ontology=query.in_ontology),
        "required": required and type_name(kind) != "optionalType",
    }
