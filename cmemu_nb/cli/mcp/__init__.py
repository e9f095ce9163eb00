"""`cmemu mcp`: the emulator as a server of the Model Context Protocol, for coding agents."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import os
from typing import TYPE_CHECKING

from cmemu_nb.arguments import add_seed
from cmemu_nb.cli.discovery import add_where, live_emulators
from cmemu_nb.cli.parser import Commands, Parser, add_command, does
from cmemu_nb.cli.serve import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.emulator import Emulator


def add_commands(commands: Commands, parsers: dict[str | None, Parser]) -> None:
    """Add `mcp`."""
    parser = parsers["mcp"] = add_command(
        commands,
        "mcp",
        "Serve the emulator's functions and records as tools to a coding agent, over stdin and stdout.",
        "  cmemu mcp\n  cmemu mcp --start --seed seed.yaml\n  claude mcp add cmemu -- cmemu mcp",
        "It speaks the Model Context Protocol, and ends when the agent closes stdin. It uses the emulator that runs\n"
        "here; if none runs, it starts one that ends with it. It needs the extra: pip install 'cmemu_nb[mcp]'",
    )
    parser.add_argument(
        "--start", action="store_true", help="Start an emulator that ends with this command, even if another one runs."
    )
    add_seed(parser, " It needs --start.")
    add_where(parser)
    does(parser, _mcp)


def _mcp(parser: Parser, options: argparse.Namespace) -> int:
    if importlib.util.find_spec("mcp") is None:
        parser.error("the package mcp is not installed. Type: pip install 'cmemu_nb[mcp]'")
    if options.start and (options.url or options.token):
        parser.error("--start starts an emulator, so it excludes --url and --token")
    if options.seed and not options.start:
        parser.error("--seed needs --start")
    from cmemu_nb.cli.mcp.server import serve  # noqa: PLC0415 - the package mcp is an extra

    with _started_if_needed(parser, options) as (named, emulator):
        asyncio.run(serve(named, emulator))
    return 0


@contextlib.contextmanager
def _started_if_needed(
    parser: Parser, options: argparse.Namespace
) -> Iterator[tuple[argparse.Namespace, Emulator | None]]:
    """Start an emulator if that was asked for or none runs here; give it with options that name it."""
    named = options.url or os.environ.get("CMEMU_URL")
    if not options.start and (named or asyncio.run(live_emulators())):
        yield options, None
        return
    with running(parser, options) as emulator:
        yield argparse.Namespace(**{**vars(options), "url": emulator.url, "token": emulator.token}), emulator
