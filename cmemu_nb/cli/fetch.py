"""`cmemu env` and `cmemu export`: a module's environment and an exported session, from a running emulator."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.arguments import add_env, add_export, given_configuration
from cmemu_nb.cli.discovery import add_where, find
from cmemu_nb.cli.parser import Commands, Parser, add_command, complain, does
from cmemu_nb.cli.remote import runtime_path
from cmemu_nb.server.routes.tools import EXPORT
from cmemu_nb.storage import session_file

if TYPE_CHECKING:
    import argparse

    from cmemu_nb.executors.modules.environment import ModuleEnvironment


def add_commands(commands: Commands, parsers: dict[str | None, Parser]) -> None:
    """Add `env` and `export`."""
    parser = parsers["env"] = add_command(
        commands,
        "env",
        "Print the environment variables for a module that you start yourself.",
        '  eval "$(cmemu env my-runtime)" && python app.py\n  sh -c "$(cmemu env my-runtime --docker my-image)"',
        "Each call adds a replica to the runtime, with a token of its own.",
    )
    add_env(parser)
    parser.add_argument("--json", action="store_true", help="Print a JSON object instead of 'export' lines.")
    add_where(parser)
    does(parser, _env)
    parser = parsers["export"] = add_command(
        commands,
        "export",
        "Write the whole session to a file, for Emulator.from_export().",
        "  cmemu export run.json\n  cmemu export - | gzip > run.json.gz",
        "The file has the jobs, queries, results, logs and events, and only the last four characters of each token.",
    )
    add_export(parser, "The file to write, such as run.json; - for stdout.")
    add_where(parser)
    does(parser, _export)


def _env(parser: Parser, options: argparse.Namespace) -> int:
    if options.json and options.docker:
        parser.error("--json and --docker exclude each other")
    environment = asyncio.run(_ask_for_environment(options))
    if options.json:
        print(msgspec.json.encode(dict(environment)).decode())
    else:
        print(environment.docker_line(options.docker) if options.docker else environment.export_lines)
    if not Path(environment["MODULE_AUTH_TOKEN"]).is_file():
        complain(
            "The files that the environment names are on the emulator's machine. Copy them to the same paths here."
        )
    return 0


async def _ask_for_environment(options: argparse.Namespace) -> ModuleEnvironment:
    from cmemu_nb.executors.modules.environment import ModuleEnvironment  # noqa: PLC0415 - for `cmemu env` only

    async with await find(options) as remote:
        # As plain text: the encoder of requests does not take a Token.
        fields = json.loads(json.dumps({"configuration": given_configuration(options)}))
        answer = await remote.post(f"{runtime_path(options.runtime)}/replicas", fields)
    environment = ModuleEnvironment(answer["environment"])
    environment.folder = answer["folder"]
    return environment


def _export(_: Parser, options: argparse.Namespace) -> int:
    asyncio.run(_download(options))
    return 0


async def _download(options: argparse.Namespace) -> None:
    async with await find(options) as remote:
        if options.path == "-":
            await remote.download(EXPORT, sys.stdout.buffer.write)
            return
        path = session_file.expanded(options.path)
        with session_file.replacing(path, overwrite=options.force) as file:
            await remote.download(EXPORT, file.write)
    complain(f"The session of {remote.url} is in {path}")
