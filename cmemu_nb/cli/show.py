"""`cmemu jobs`, `runtimes`, `schemas`, `datasets` and `streams`: the records of a running emulator."""

from __future__ import annotations

import asyncio
import textwrap
import time
from typing import TYPE_CHECKING, Any

from cmemu_nb.arguments import JOB, add_job_filters, positive
from cmemu_nb.cli.discovery import add_where, find
from cmemu_nb.cli.parser import Commands, Parser, add_command, does
from cmemu_nb.cli.remote import Remote, runtime_path
from cmemu_nb.cli.wait_line import diagnosis
from cmemu_nb.cli.watch import View, show_once, watch
from cmemu_nb.display.job_search import MAX_CANDIDATES, candidate, none_ends_in, several_end_in
from cmemu_nb.display.text import MISSING, ago, clock, duration, offsets_in_words, size_in_words
from cmemu_nb.errors import InvalidRequest, NotFound
from cmemu_nb.lifecycle.records import NS_PER_MS, STATES, Outcome, column_of, polling
from cmemu_nb.server.routes.data import LISTED_DATASETS, LISTED_STREAMS
from cmemu_nb.server.routes.tools import MAX_PAGE
from cmemu_nb.tokens import last_four
from cmemu_nb.wire.function_schemas import schema_in_words
from cmemu_nb.wire.job_ids import ending_of
from cmemu_nb.wire.json_values import write_json
from cmemu_nb.wire.results import error_for_people, function_error

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from cmemu_nb.calls.diagnosis import Diagnosis

    Fetch = Callable[[Remote, argparse.Namespace], Awaitable[View]]

DEFAULT_LAST = 50
MAX_RESULT = 40
WIDTH = 80
JOB_HEADINGS = ["state", "function", "runtime", "queued (UTC)", "queue time", "run time", "result", "job"]


def add_commands(commands: Commands, parsers: dict[str | None, Parser]) -> None:
    """Add `jobs`, `runtimes`, `schemas`, `datasets` and `streams`."""
    jobs = _add(
        commands,
        parsers,
        "jobs",
        "Show the newest jobs, oldest first.",
        "  cmemu jobs --status failed --last 10\n  cmemu jobs a4c966",
        jobs_view,
    )
    jobs.add_argument("job", nargs="?", metavar="ID", help=f"Show one job with all of its fields: {JOB}.")
    add_job_filters(jobs)
    jobs.add_argument(
        "--last",
        type=positive,
        metavar="N",
        default=DEFAULT_LAST,
        help=f"Show only the newest N jobs. Default: {DEFAULT_LAST}.",
    )
    _add(
        commands, parsers, "runtimes", "Show the runtimes and when they last polled.", "  cmemu runtimes", runtimes_view
    )
    schemas = _add(commands, parsers, "schemas", "Show the functions that are served.", "  cmemu schemas", schemas_view)
    schemas.add_argument("--runtime", help="Only functions of this runtime.")
    _add(commands, parsers, "datasets", "Show the datasets behind modules.", "  cmemu datasets", datasets_view)
    _add(commands, parsers, "streams", "Show the data streams behind modules.", "  cmemu streams", streams_view)


def _add(
    commands: Commands, parsers: dict[str | None, Parser], name: str, does_what: str, example: str, fetch: Fetch
) -> Parser:
    parser = parsers[name] = add_command(commands, name, does_what, f"{example}\n  cmemu {name} --json --watch")
    parser.add_argument("--json", action="store_true", help="Print JSON with all fields, one object per line.")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="Continue until Ctrl-C: redraw the table on a terminal, or else print what is new or has changed.",
    )
    add_where(parser)

    async def run(options: argparse.Namespace) -> int:
        async with await find(options) as remote:
            if options.watch:
                return await watch(lambda: fetch(remote, options), as_json=options.json)
            show_once(await fetch(remote, options), as_json=options.json)
        return 0

    does(parser, lambda _, options: asyncio.run(run(options)))
    return parser


# Jobs


async def jobs_view(remote: Remote, options: argparse.Namespace) -> View:
    """Return the newest jobs that match the options, or the only one whose id ends with `options.job`."""
    ids = (
        [options.runtime]
        if options.runtime
        else [each["runtime_id"] for each in await remote.runtimes() if any(each["job_counts"].values())]
    )
    found, more = [], False
    for runtime_id in ids:
        answer = await _of_one(
            remote,
            options,
            f"{runtime_path(runtime_id)}/jobs",
            status=options.status,
            id=options.job and ending_of(options.job),
            newest="true",
            limit=min(options.last, MAX_PAGE),
        )
        if answer is None:
            continue
        found += answer["jobs"]
        more = more or answer["more"]
    found.sort(key=lambda job: job["queued_at"])
    if options.job is not None:
        return await _one_job(remote, options, found)
    cut = more or len(found) > options.last
    note = f"Older jobs are not shown. To see more: --last {options.last * 10}" if cut else ""
    found = found[-options.last :]
    return View(JOB_HEADINGS, [_job_row(job) for job in found], found, "There are no jobs.", note)


async def _of_one(remote: Remote, options: argparse.Namespace, path: str, **filters: Any) -> Any:
    """Return what a route of one runtime answers; None where that was listed, and deleted meanwhile."""
    try:
        return await remote.get(path, **filters)
    except NotFound:
        if options.runtime:
            raise
        return None


async def _one_job(remote: Remote, options: argparse.Namespace, found: list[dict[str, Any]]) -> View:
    """Return all fields of the only job that was found. Raises an error with candidates for several jobs or none."""
    if len(found) == 1:
        (job,) = found
        why = await diagnosis(remote, job["job_id"]) if job["outcome"] in {None, Outcome.FUNCTION_ERROR} else None
        return View(["job", job["job_id"]], _details(job, why), found, "")
    ending, options.job = repr(options.job), None
    if found:
        raise InvalidRequest(several_end_in(ending, len(found), _candidates(found)))
    newest = (await jobs_view(remote, options)).records
    raise NotFound(none_ends_in(ending, _candidates(newest)))


def _candidates(jobs: list[dict[str, Any]]) -> list[str]:
    now = time.time_ns()
    newest = jobs[: -MAX_CANDIDATES - 1 : -1]
    return [
        candidate(job["job_id"], job["query_type"], state_of(job), job["queued_at"] * NS_PER_MS, now) for job in newest
    ]


def _details(job: dict[str, Any], why: Diagnosis | None) -> list[list[str]]:
    """Return a job's fields, one row for each of their lines, with the reason why it has no result, or no value."""
    fields = dict(zip(JOB_HEADINGS, _job_row(job), strict=True))
    explanation = why.explanation if why is not None else ""
    fields |= {"query": write_json(job["query"], ensure_ascii=False), "result": explanation or result_or_error(job)}
    del fields["job"]
    if why is not None and job["outcome"] is None:
        fields["diagnosis"] = textwrap.fill(why.sentence, WIDTH)
    lines = [(name, position, line) for name, text in fields.items() for position, line in enumerate(text.split("\n"))]
    return [["" if position else name, line] for name, position, line in lines]


def _job_row(job: dict[str, Any]) -> list[str]:
    return [
        state_of(job),
        job["query_type"],
        job["runtime_id"],
        clock(job["queued_at"] * NS_PER_MS, time.time_ns()),
        _took(job["queue_time"]),
        _took(job["run_time"]),
        _beginning(result_or_error(job)),
        job["job_id"],
    ]


def state_of(job: dict[str, Any]) -> str:
    """Return a job's outcome, or its status while it has none."""
    return str(job["outcome"] or job["status"])


def result_or_error(job: dict[str, Any]) -> str:
    """Return a job's result, or the error that it ended with; empty if it has neither."""
    error = function_error((job["result_body_utf8"] or "").encode())
    return error_for_people(error) if error else job["error_message"] or job["result_body_utf8"] or ""


def _beginning(text: str) -> str:
    # Short enough for the column behind it to be visible on most terminals.
    return text if len(text) <= MAX_RESULT else f"{text[:MAX_RESULT]}…"


def _took(milliseconds: float | None) -> str:
    return duration(None if milliseconds is None else round(milliseconds * NS_PER_MS))


# Runtimes and schemas


async def _all_runtimes(remote: Remote) -> list[dict[str, Any]]:
    return [_without_token(each) for each in await remote.runtimes()]


def _without_token(runtime: dict[str, Any]) -> dict[str, Any]:
    shown = {"module_auth_token": last_four(runtime["module_auth_token"])} if "module_auth_token" in runtime else {}
    return {**runtime, **shown}


async def runtimes_view(remote: Remote, _: argparse.Namespace) -> View:
    """Return all runtimes."""
    found = await _all_runtimes(remote)
    headings = ["runtime", "state", "last poll", *STATES, "deployed apps"]
    nothing = "There are no runtimes. A runtime opens when a program starts: cmemu run -- python app.py"
    return View(headings, [_runtime_row(each) for each in found], found, nothing, volatile="last_poll_at")


def _runtime_row(runtime: dict[str, Any]) -> list[str]:
    last_poll = runtime["last_poll_at"]
    apps = [f"{app['deployed_app_rid']} ({app['branch']})" for app in runtime["deployed_apps"]]
    return [
        runtime["runtime_id"],
        polling(runtime["mode"], connected=runtime["connected"]),
        ago(last_poll and last_poll * NS_PER_MS, time.time_ns()),
        *(str(runtime["job_counts"][column_of(state)]) for state in STATES),
        ", ".join(apps) or MISSING,
    ]


async def schemas_view(remote: Remote, options: argparse.Namespace) -> View:
    """Return the functions of all runtimes, or of one."""
    ids = (
        [options.runtime]
        if options.runtime
        else [each["runtime_id"] for each in await remote.runtimes() if each["last_schema_post_at"] is not None]
    )
    answers = [await _of_one(remote, options, runtime_path(each)) for each in ids]
    found = [schema for each in answers if each is not None for schema in each["schemas"]]
    rows = [
        [each["function_name"], each["runtime_id"], schema_in_words(each["schema_payload"]) or MISSING]
        for each in found
    ]
    return View(["function", "runtime", "schema"], rows, found, "No function is served.")


# Datasets and streams


async def datasets_view(remote: Remote, _: argparse.Namespace) -> View:
    """Return the datasets."""
    answer = await remote.get(LISTED_DATASETS, limit=MAX_PAGE)
    found = answer["datasets"]
    headings = ["dataset", "rows", "files", "size", "branches", "committed", "open transactions", "schema", "RID"]
    nothing = "There are no datasets. A program creates one by the public API, a notebook by its emulator's datasets."
    return View(headings, [_dataset_row(each) for each in found], found, nothing, _older(answer))


def _dataset_row(dataset: dict[str, Any]) -> list[str]:
    return [
        dataset["name"],
        MISSING if dataset["rows"] is None else f"{dataset['rows']:,}",
        f"{dataset['files']:,}",
        size_in_words(dataset["bytes"]),
        ", ".join(dataset["branches"]),
        _ago(dataset["committed_at"]),
        ", ".join(dataset["open_transactions"]) or MISSING,
        _beginning(dataset["schema"]) or MISSING,
        dataset["rid"],
    ]


async def streams_view(remote: Remote, _: argparse.Namespace) -> View:
    """Return the streams on each of their branches."""
    answer = await remote.get(LISTED_STREAMS, limit=MAX_PAGE)
    found = answer["streams"]
    headings = ["stream", "branch", "records", "size", "end offsets", "newest record", "schema", "RID"]
    nothing = "There are no streams. A program creates one by the public API, a notebook by its emulator's streams."
    return View(headings, [_stream_row(each) for each in found], found, nothing, _older(answer))


def _stream_row(stream: dict[str, Any]) -> list[str]:
    return [
        stream["name"],
        stream["branch"],
        f"{stream['records']:,}",
        size_in_words(stream["bytes"]),
        offsets_in_words(stream["end_offsets"]),
        _ago(stream["published_at"]),
        _beginning(stream["schema"]) or MISSING,
        stream["rid"],
    ]


def _ago(milliseconds: int | None) -> str:
    return ago(milliseconds and milliseconds * NS_PER_MS, time.time_ns())


def _older(answer: dict[str, Any]) -> str:
    return f"Only the newest {MAX_PAGE:,} are shown." if answer["more"] else ""
