"""`cmemu list`: the emulators that run here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.cli.discovery import NONE_RUNS, as_table, live_emulators
from cmemu_nb.cli.parser import Commands, Parser, add_command, complain, does

if TYPE_CHECKING:
    import argparse


def add_commands(commands: Commands, parsers: dict[str | None, Parser]) -> None:
    """Add `list`."""
    parser = parsers["list"] = add_command(
        commands, "list", "List the emulators that run here.", "  cmemu list\n  cmemu list --json"
    )
    parser.add_argument("--json", action="store_true", help="One JSON object for each, without its token.")
    does(parser, _list)


def _list(_: Parser, options: argparse.Namespace) -> int:
    found = asyncio.run(live_emulators())
    if options.json:
        for each in found:
            fields = msgspec.structs.asdict(each)
            del fields["token"]
            print(msgspec.json.encode(fields).decode())
    elif found:
        print(as_table(found))
    else:
        complain(NONE_RUNS)
    return 0
