"""`cmemu cancel`: cancel jobs of a running emulator."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cmemu_nb.arguments import JOB, add_cancel
from cmemu_nb.cli.discovery import add_where, find
from cmemu_nb.cli.parser import Commands, Parser, add_command, complain, does
from cmemu_nb.phrases import plural
from cmemu_nb.server.routes.tools import JOBS

if TYPE_CHECKING:
    import argparse

    from cmemu_nb.cli.remote import Remote


def add_commands(commands: Commands, parsers: dict[str | None, Parser]) -> None:
    """Add `cancel`."""
    parser = parsers["cancel"] = add_command(
        commands,
        "cancel",
        "Cancel a job, or all queued and running jobs of a function.",
        "  cmemu cancel a4c966\n  cmemu cancel add it takes too long\n  cmemu cancel all",
        "Functions in the cells of a notebook are interrupted where Python can do that.",
    )
    add_cancel(parser, f"{JOB}; a function's name for all of its jobs; or: all.".capitalize())
    add_where(parser)
    does(parser, _cancel)


def _cancel(_: Parser, options: argparse.Namespace) -> int:
    count = asyncio.run(_run(options))
    complain(f"Cancelled {plural(count, 'job')}." if count else "No such job is queued or running.")
    return 0


async def _run(options: argparse.Namespace) -> int:
    async with await find(options) as remote:
        return await cancel(remote, options.jobs, " ".join(options.reason) or "by 'cmemu cancel'")


async def cancel(remote: Remote, jobs: str, reason: str) -> int:
    """Cancel jobs by id, by the name of their function, or "all"; returns how many were queued or running."""
    answer = await remote.post(f"{JOBS}/cancel", {"jobs": jobs, "reason": reason})
    return int(answer["cancelled"])
