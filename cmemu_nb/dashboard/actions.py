"""The actions of the dashboard's buttons. They run on the board's thread and call the emulator's public methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.dashboard.curl import curl_command
from cmemu_nb.dashboard.timeline import peek
from cmemu_nb.errors import InvalidRequest
from cmemu_nb.wire.json_values import read_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.emulator import Emulator
    from cmemu_nb.executors.modules.modules import LaunchedModule

Fields = dict[str, Any]


def show_token(emulator: Emulator, _: Fields) -> str:
    """Return the bearer token, which only this answer sends to the browser: no saved notebook has it."""
    return str(emulator.token)


def reset_runtime(emulator: Emulator, fields: Fields) -> str:
    """Reset a runtime's session, and return a sentence that says what that discarded."""
    _, thrown_away = emulator.change(lambda lifecycle: lifecycle.reset_session(fields["runtime"]))
    return f"The session was reset, which discarded {thrown_away or 'nothing'}."


def restart(emulator: Emulator, fields: Fields) -> str:
    """Restart the programs that were launched for a runtime."""
    modules = emulator.modules.of(fields["runtime"])
    for module in modules:
        module.restart()
    return f"{_commands(modules)} was restarted." if modules else "No program is launched for this runtime any more."


def stop(emulator: Emulator, fields: Fields) -> str:
    """Stop the programs that were launched for a runtime, and its replicas on clusters."""
    modules, clusters = emulator.modules.of(fields["runtime"]), emulator.clusters.of(fields["runtime"])
    for module in modules:
        module.stop()
    for cluster in clusters:
        cluster.stop()
    stopped = [*([_commands(modules)] if modules else []), *(["the replicas on the cluster"] if clusters else [])]
    return f"Stopped: {' and '.join(stopped) or 'nothing, because nothing was running'}."


def _commands(modules: list[LaunchedModule]) -> str:
    return ", ".join(module.command for module in modules)


def copy_environment(emulator: Emulator, fields: Fields) -> str:
    """Return the environment of one more replica, as lines for a terminal."""
    return emulator.env(fields["runtime"]).export_lines


def run_again(emulator: Emulator, fields: Fields) -> str:
    """Submit a job's query, or the `query` that was typed in its place, by the same route; returns the new job's id."""
    job = emulator.lifecycle.job(fields["job"])
    query = _typed(emulator, job.runtime_id, job.query_type, fields) if "query" in fields else msgspec.Raw(job.query)
    if job.deployed_app_rid is None:
        return emulator.runtime(job.runtime_id).enqueue(job.query_type, query).id
    return emulator.submit(job.query_type, query, job.deployed_app_rid, job.deployed_app_branch).id


def copy_curl(emulator: Emulator, fields: Fields) -> str:
    """Return a curl command that submits a job's query again; only this answer has the token that is in it."""
    return curl_command(emulator.lifecycle.job(fields["job"]), emulator.url, str(emulator.token))


def cancel_job(emulator: Emulator, fields: Fields) -> str:
    """Cancel a job, and return a sentence that says whether it had ended already."""
    cancelled = emulator.job(fields["job"]).cancel("in the dashboard")
    return "The job was cancelled." if cancelled else "The job has ended already."


def fail_job(emulator: Emulator, fields: Fields) -> str:
    """Fail a job with the reason that was typed."""
    emulator.job(fields["job"]).fail(fields.get("reason") or "failed in the dashboard")
    return "The job failed."


def abort_transaction(emulator: Emulator, fields: Fields) -> str:
    """Abort an open transaction of a dataset, which discards its files."""
    rid, transaction = fields["dataset"], fields["transaction"]
    emulator.change(lambda lifecycle: lifecycle.abort_transaction(rid, transaction))
    return "The transaction was aborted, and its files are discarded."


def submit(emulator: Emulator, fields: Fields) -> str:
    """Submit the query of a form to its function; returns the job's id.

    If no app is bound to the runtime, the job is queued for the runtime directly.
    """
    runtime_id, function_name = fields["runtime"], fields["function"]
    query = _typed(emulator, runtime_id, function_name, fields)
    apps = emulator.lifecycle.apps_of(runtime_id)
    if not apps:
        return emulator.runtime(runtime_id).enqueue(function_name, query).id
    return emulator.submit(function_name, query, apps[0].deployed_app_rid, apps[0].branch).id


def _typed(emulator: Emulator, runtime_id: str, function_name: str, fields: Fields) -> msgspec.Raw:
    """Return the query that was typed, after checking it: that it is JSON, and on request against the schema."""
    query = _check_json(fields["query"])
    if fields.get("validate", True):
        emulator.check_query(runtime_id, function_name, query)
    return msgspec.Raw(fields["query"].encode())


def _check_json(text: str) -> object:
    def refuse(constant: str) -> object:
        raise InvalidRequest(f"The query can't be sent: {constant} is not JSON. Use null, a number or a string.")

    try:
        text.encode()  # raises an error for half a surrogate pair, which is not JSON
        return read_json(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The query can't be sent: it is not JSON ({error}). Correct the text.") from None


ACTIONS: dict[str, Callable[[Emulator, Fields], str]] = {
    "token": show_token,
    "peek": peek,
    "reset": reset_runtime,
    "restart": restart,
    "stop": stop,
    "environment": copy_environment,
    "run_again": run_again,
    "curl": copy_curl,
    "cancel": cancel_job,
    "fail": fail_job,
    "abort": abort_transaction,
    "submit": submit,
}
# These wait for the end of programs, so they run on threads of their own.
SLOW = frozenset({"restart", "stop"})
