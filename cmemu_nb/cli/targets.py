"""Which runtime a call reaches, found out from the deployed apps and schemas of a running emulator."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.calls.calls import choose_app
from cmemu_nb.cli.remote import Remote, runtime_path
from cmemu_nb.errors import MAX_NAMES, InvalidRequest, NotFound, not_served
from cmemu_nb.lifecycle.records import why_unknown
from cmemu_nb.lifecycle.state import DEFAULT_BRANCH
from cmemu_nb.wire.json_values import read_json
from cmemu_nb.wire.query_check import check_query

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable


async def submit(remote: Remote, options: argparse.Namespace, query: bytes) -> str:
    """Submit the job of `cmemu call` and return its id. The query is checked first, unless `--no-validate` is given."""
    if options.runtime is not None:
        answer = await remote.get(runtime_path(options.runtime))
        _check(options, answer["runtime"], _by_name(answer["schemas"]), query)
        fields = {"queryType": options.function, "query": msgspec.Raw(query)}
        job_id: str = (await remote.post(f"{runtime_path(options.runtime)}/jobs", fields))["jobId"]
        return job_id
    runtimes = [each for each in await remote.runtimes() if each["deployed_apps"]]
    apps = [app for each in runtimes for app in each["deployed_apps"]]
    # Those of the others are needed only to choose an app.
    asked = [each for each in runtimes if options.app in (None, *_rids(each))]
    functions = {each["runtime_id"]: await _functions_if_any(remote, each) for each in asked}
    rid = options.app or _app_of(options.function, runtimes, functions)
    runtime_id = _bound_to(rid, options.branch, apps)
    if runtime_id is not None:
        runtime = next(each for each in runtimes if each["runtime_id"] == runtime_id)
        _check(options, runtime, functions[runtime_id], query)
    return await remote.contour.submit(rid, options.branch, options.function, query)


def _rids(runtime: dict[str, Any]) -> list[str]:
    return [app["deployed_app_rid"] for app in runtime["deployed_apps"]]


async def _functions_if_any(remote: Remote, runtime: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas of a listed runtime's functions; none where it was deleted meanwhile."""
    if runtime["last_schema_post_at"]:
        with contextlib.suppress(NotFound):
            return _by_name((await remote.get(runtime_path(runtime["runtime_id"])))["schemas"])
    return {}


def _by_name(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    return {each["function_name"]: each["schema_payload"] for each in schemas}


def _app_of(function: str, runtimes: list[dict[str, Any]], functions: dict[str, dict[str, Any]]) -> str:
    apps = [app for each in runtimes for app in each["deployed_apps"]]
    bound = {app["deployed_app_rid"] for app in apps}
    serving = {app["deployed_app_rid"] for app in apps if function in functions[app["runtime_id"]]}
    if chosen := choose_app(bound, serving):
        return chosen
    names = {name for each in functions.values() for name in each}
    if not bound:
        raise NotFound("No deployed app is bound, so there is none to call. --runtime ID calls a runtime directly.")
    if names and not serving:
        raise _unknown(function, names, runtimes)
    which = sorted(serving or bound)
    more = f" or one of {len(which) - MAX_NAMES:,} others" if len(which) > MAX_NAMES else ""
    choice = f"{' or '.join(which[:MAX_NAMES])}{more}"
    raise NotFound(f"{len(bound)} deployed apps are bound. Choose one with --app {choice}.")


def _bound_to(rid: str, branch: str | None, apps: list[dict[str, Any]]) -> str | None:
    """Return the runtime that serves an app, as the emulator chooses it; None if there is none."""
    branches = {app["branch"]: app["runtime_id"] for app in apps if app["deployed_app_rid"] == rid}
    if branch is None and DEFAULT_BRANCH not in branches:
        newest = max((app for app in apps if app["deployed_app_rid"] == rid), key=_bound_at, default=None)
        return None if newest is None else str(newest["runtime_id"])
    return branches.get(branch or DEFAULT_BRANCH)


def _bound_at(app: dict[str, Any]) -> int:
    return int(app["bound_at"])


def _check(options: argparse.Namespace, runtime: dict[str, Any], functions: dict[str, Any], query: bytes) -> None:
    # A runtime without posted schemas may serve any function.
    if options.no_validate or not functions:
        return
    if options.function not in functions:
        raise _unknown(options.function, functions, [runtime])
    try:
        check_query(options.function, functions[options.function], read_json(query))
    except InvalidRequest as error:
        raise InvalidRequest(str(error).replace("validate=False", "--no-validate")) from None


def _unknown(function: str, names: Iterable[str], runtimes: list[dict[str, Any]]) -> NotFound:
    why = "".join(why_unknown(each["runtime_id"], each["import_error"] or "") for each in runtimes)
    return NotFound(f"{not_served(function, names)} --no-validate sends anything.{why}")
