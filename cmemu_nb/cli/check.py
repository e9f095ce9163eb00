"""`cmemu check`: whether a program, a Dockerfile, a folder or an image would deploy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.cli.parser import Commands, Parser, add_command, does
from cmemu_nb.display.text import visible
from cmemu_nb.wire.json_values import write_json

if TYPE_CHECKING:
    import argparse

BROKEN = 1


def add_commands(commands: Commands, parsers: dict[str | None, Parser]) -> None:
    """Add `check`."""
    parser = parsers["check"] = add_command(
        commands,
        "check",
        "Check whether a module would deploy: the documented rules of containers and functions.",
        "  cmemu check app.py\n  cmemu check .\n  cmemu check --json --strict my-module:0.1.0",
        "A program is imported in a process of its own, to see its functions. The exit code is 1 if there is an error.",
    )
    parser.add_argument(
        "target", metavar="PATH", help="A Python program, a Dockerfile, a folder with both, or the name of an image."
    )
    parser.add_argument("--json", action="store_true", help="Print the findings as JSON, one object per line.")
    parser.add_argument("--strict", action="store_true", help="The exit code is 1 also if there are only warnings.")
    does(parser, _run)


def _run(_parser: Parser, options: argparse.Namespace) -> int:
    from cmemu_nb.check.checker import check  # noqa: PLC0415 - no other command needs a parser of Dockerfiles

    report = check(options.target)
    if options.json:
        for finding in report.as_dicts():
            print(write_json(finding))
    else:
        print(visible(str(report), lines=True))
    return BROKEN if not report.ok or (options.strict and report.findings) else 0
