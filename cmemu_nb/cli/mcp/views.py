"""The tools that show an emulator's records, and those that end jobs by hand."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from cmemu_nb.arguments import JOB
from cmemu_nb.cli.cancel import cancel
from cmemu_nb.cli.mcp.output import shortened, with_times
from cmemu_nb.cli.mcp.tool import Tool, arguments, text
from cmemu_nb.cli.remote import runtime_path
from cmemu_nb.cli.show import jobs_view, result_or_error, runtimes_view, schemas_view, state_of
from cmemu_nb.cli.wait_line import diagnosis
from cmemu_nb.display.text import when
from cmemu_nb.lifecycle.records import NS_PER_MS, JobStatus
from cmemu_nb.server.routes.history import EVENTS
from cmemu_nb.server.routes.tools import JOBS
from cmemu_nb.wire.function_schemas import schema_in_words

if TYPE_CHECKING:
    from cmemu_nb.cli.remote import Remote

LAST = 20
MAX_LAST = 200
MAX_LOG = 5_000
COUNT = {"type": "integer", "minimum": 1, "maximum": MAX_LAST, "description": f"How many, the newest. Default: {LAST}"}


async def _list_runtimes(remote: Remote, _: dict[str, Any]) -> object:
    view = await runtimes_view(remote, argparse.Namespace())
    return [
        {name: value for name, value in with_times(each).items() if name != "module_auth_token"}
        for each in view.records[:MAX_LAST]
    ]


async def _list_functions(remote: Remote, given: dict[str, Any]) -> object:
    view = await schemas_view(remote, argparse.Namespace(runtime=given.get("runtime")))
    return [
        {
            "function_name": each["function_name"],
            "runtime_id": each["runtime_id"],
            "schema": schema_in_words(each["schema_payload"]),
        }
        for each in view.records[:MAX_LAST]
    ]


async def _list_jobs(remote: Remote, given: dict[str, Any]) -> object:
    options = argparse.Namespace(**{"status": None, "runtime": None, "job": None, "last": LAST, **given})
    return [_summary(each) for each in (await jobs_view(remote, options)).records]


def _summary(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "job_id": job["job_id"],
        "state": state_of(job),
        "query_type": job["query_type"],
        "runtime_id": job["runtime_id"],
        "queued_at": with_times(job)["queued_at"],
        "run_time_ms": job["run_time"],
        "result": shortened(result_or_error(job)),
    }


async def _one_job(remote: Remote, job: str) -> dict[str, Any]:
    options = argparse.Namespace(status=None, runtime=None, job=job, last=LAST)
    found: dict[str, Any] = (await jobs_view(remote, options)).records[0]
    return found


async def _show_job(remote: Remote, given: dict[str, Any]) -> object:
    job = await _one_job(remote, given["job"])
    why = await diagnosis(remote, job["job_id"])
    answered = {} if why is None else {"diagnosis": why.sentence, "explanation": why.explanation or None}
    printed = (await remote.get(f"{JOBS}/{job['job_id']}/log"))["log"]
    # The beginning of a long answer is shown, and a log's newest lines matter most.
    return {**with_times(job), **answered, "log": printed[-MAX_LOG:]}


async def _list_events(remote: Remote, given: dict[str, Any]) -> object:
    options = {name: given[name] for name in ("runtime", "job") if name in given}
    if "job" in options:
        options["job"] = (await _one_job(remote, options["job"]))["job_id"]
    answer = await remote.get(EVENTS, newest="true", limit=given.get("last", LAST), **options)
    return [
        {**event, "at": when(event["at"] * NS_PER_MS), "detail": shortened(event["detail"] or "")}
        for event in answer["events"]
    ]


async def _cancel_jobs(remote: Remote, given: dict[str, Any]) -> object:
    return {"cancelled": await cancel(remote, given["jobs"], given.get("reason", "by the agent"))}


async def _fail_job(remote: Remote, given: dict[str, Any]) -> object:
    job = await _one_job(remote, given["job"])
    path = f"{runtime_path(job['runtime_id'])}/jobs/{job['job_id']}/fail"
    await remote.change(path, {"reason": given["reason"]})
    return f"Job '{job['job_id']}' has failed: {given['reason']}"


_JOB = text(JOB.capitalize())
_RUNTIME = text("Only those of this runtime")
VIEWS = (
    Tool(
        "list_runtimes",
        "List the runtimes: whether each polls for jobs, its deployed apps and its numbers of jobs.",
        arguments({}),
        _list_runtimes,
        read_only=True,
    ),
    Tool(
        "list_functions",
        "List the functions that the runtimes serve, with their inputs and outputs.",
        arguments({}, runtime=_RUNTIME),
        _list_functions,
        read_only=True,
    ),
    Tool(
        "list_jobs",
        "List the newest jobs, oldest first, with the beginnings of their results or errors.",
        arguments(
            {}, status=text("Only jobs with this status", enum=[*map(str, JobStatus)]), runtime=_RUNTIME, last=COUNT
        ),
        _list_jobs,
        read_only=True,
    ),
    Tool(
        "show_job",
        "Show one job: its query, result or error, times, what its function printed, and why it has no result yet.",
        arguments({"job": _JOB}),
        _show_job,
        read_only=True,
    ),
    Tool(
        "list_events",
        "List the newest events, oldest first: what happened to runtimes and jobs, and what was refused.",
        arguments({}, runtime=_RUNTIME, job=text(f"Only those of this job: {JOB}"), last=COUNT),
        _list_events,
        read_only=True,
    ),
    Tool(
        "cancel_jobs",
        "Cancel queued and running jobs. They fail with a message that says so.",
        arguments(
            {"jobs": text(f"{JOB.capitalize()}; a function's name for all of its jobs; or: all")}, reason=text("Why")
        ),
        _cancel_jobs,
    ),
    Tool(
        "fail_job",
        "Fail a queued or running job by hand, to see how its callers handle that.",
        arguments({"job": _JOB, "reason": text("The job's error message", minLength=1)}),
        _fail_job,
    ),
)
