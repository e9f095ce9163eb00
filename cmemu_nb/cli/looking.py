"""`cmemu jobs`, `cmemu runtimes` and `cmemu schemas`: what a running emulator holds."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from cmemu_nb.arguments import add_job_filters, positive
from cmemu_nb.cli.finding import add_where, find
from cmemu_nb.cli.parsing import Commands, Parser, add_command, does
from cmemu_nb.cli.remote import Remote, runtime_path
from cmemu_nb.cli.watching import View, show_once, watch
from cmemu_nb.dialect import schema_in_words
from cmemu_nb.notebook.words import MISSING, ago, duration, when
from cmemu_nb.results import STATES, column_of, error_for_people, function_error
from cmemu_nb.server.runtime_routes import RUNTIMES
from cmemu_nb.server.tool_routes import LARGEST_PAGE
from cmemu_nb.tokens import last_four

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    Fetch = Callable[[Remote, argparse.Namespace], Awaitable[View]]

DEFAULT_LAST = 50
MOST_OF_A_RESULT = 40
NS_PER_MS = 1_000_000


def add_commands(commands: Commands, parsers: dict[str | None, Parser]) -> None:
    """Add `jobs`, `runtimes` and `schemas`."""
    jobs = _add(
        commands,
        parsers,
        "jobs",
        "Show the newest jobs, oldest first.",
        "  cmemu jobs --status failed --last 10",
        _jobs,
    )
    add_job_filters(jobs)
    jobs.add_argument(
        "--last", type=positive, metavar="N", default=DEFAULT_LAST, help=f"Only the newest so many; {DEFAULT_LAST}."
    )
    _add(commands, parsers, "runtimes", "Show the runtimes, and who polls.", "  cmemu runtimes --watch", _runtimes)
    schemas = _add(commands, parsers, "schemas", "Show the functions that are served.", "  cmemu schemas", _schemas)
    schemas.add_argument("--runtime", help="Only functions of this runtime.")


def _add(
    commands: Commands, parsers: dict[str | None, Parser], name: str, does_what: str, example: str, fetch: Fetch
) -> Parser:
    parser = parsers[name] = add_command(commands, name, does_what, f"{example}\n  cmemu {name} --json --watch")
    parser.add_argument("--json", action="store_true", help="JSON, with all fields, one object on a line.")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="Go on until Ctrl-C: drawn again on a terminal, else whatever is new or has changed.",
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


async def _jobs(remote: Remote, options: argparse.Namespace) -> View:
    ids = [options.runtime] if options.runtime else [each["runtime_id"] for each in await _all_runtimes(remote)]
    found, more = [], False
    for runtime_id in ids:
        answer = await remote.get(
            f"{runtime_path(runtime_id)}/jobs",
            status=options.status,
            newest="true",
            limit=min(options.last, LARGEST_PAGE),
        )
        found += answer["jobs"]
        more = more or answer["more"]
    found.sort(key=lambda job: job["queued_at"])
    note = f"Older ones are not shown: --last {options.last * 10}" if more or len(found) > options.last else ""
    found = found[-options.last :]
    headings = ["state", "function", "runtime", "queued (UTC)", "queue time", "run time", "result", "job"]
    return View(headings, [_job_row(job) for job in found], found, "There are no jobs.", note)


def _job_row(job: dict[str, Any]) -> list[str]:
    said = job["error_message"] or job["result_body_utf8"] or ""
    error = function_error((job["result_body_utf8"] or "").encode())
    return [
        job["outcome"] or job["status"],
        job["query_type"],
        job["runtime_id"],
        _moment(job["queued_at"]),
        _took(job["queue_time"]),
        _took(job["run_time"]),
        _beginning(error_for_people(error) if error else said),
        job["job_id"],
    ]


def _moment(milliseconds: int) -> str:
    """Say when something was, in seconds; the day only if it was another one."""
    day, _, clock = when(milliseconds * NS_PER_MS)[:19].partition(" ")
    return clock if day == when(time.time_ns())[:10] else f"{day} {clock}"


def _beginning(text: str) -> str:
    # So that what comes after it is seen on most terminals.
    return text if len(text) <= MOST_OF_A_RESULT else f"{text[:MOST_OF_A_RESULT]}…"


def _took(milliseconds: float | None) -> str:
    return duration(None if milliseconds is None else round(milliseconds * NS_PER_MS))


# Runtimes and schemas


async def _all_runtimes(remote: Remote) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await remote.get(RUNTIMES))["runtimes"]
    return [_without_token(each) for each in found]


def _without_token(runtime: dict[str, Any]) -> dict[str, Any]:
    shown = {"module_auth_token": last_four(runtime["module_auth_token"])} if "module_auth_token" in runtime else {}
    return {**runtime, **shown}


async def _runtimes(remote: Remote, _: argparse.Namespace) -> View:
    found = await _all_runtimes(remote)
    headings = ["runtime", "connected", "last poll", *STATES, "deployed apps"]
    nothing = "There are no runtimes. Whoever opens a session makes one: cmemu run -- python app.py"
    return View(headings, [_runtime_row(each) for each in found], found, nothing, volatile="last_poll_at")


def _runtime_row(runtime: dict[str, Any]) -> list[str]:
    last_poll = runtime["last_poll_at"]
    apps = [f"{app['deployed_app_rid']} ({app['branch']})" for app in runtime["deployed_apps"]]
    return [
        runtime["runtime_id"],
        "yes" if runtime["connected"] else "no",
        ago(last_poll and last_poll * NS_PER_MS, time.time_ns()),
        *(str(runtime["job_counts"][column_of(state)]) for state in STATES),
        ", ".join(apps) or MISSING,
    ]


async def _schemas(remote: Remote, options: argparse.Namespace) -> View:
    ids = [options.runtime] if options.runtime else [each["runtime_id"] for each in await _all_runtimes(remote)]
    found = [schema for each in ids for schema in (await remote.get(runtime_path(each)))["schemas"]]
    rows = [
        [each["function_name"], each["runtime_id"], schema_in_words(each["schema_payload"]) or MISSING]
        for each in found
    ]
    return View(["function", "runtime", "schema"], rows, found, "No function is served.")
