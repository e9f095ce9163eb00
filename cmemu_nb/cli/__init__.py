"""The command line, `cmemu` or `python -m cmemu_nb`."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING

from cmemu_nb.cli import call, cancel, check, discovery, fetch, journal, mcp, run, serve, show, ui
from cmemu_nb.cli.lab import start_lab
from cmemu_nb.cli.parser import EXIT_CODES, WRONG, Parser, add_command, complain, drop, exit_code
from cmemu_nb.errors import CmemuError
from cmemu_nb.version import __version__

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["main"]

GROUPS = (serve, ui, run, check, call, cancel, show, fetch, discovery, journal, mcp)
INTERRUPTED = 130
# JSON that the emulator just accepts is nested more deeply in its answer, and is parsed here below more stack frames.
MAX_DEPTH = 3_000
# A full disk, a quota, a limit on file size, a device that fails.
CANT_WRITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; `cmemu --help` explains the exit codes."""
    _open_closed_streams()
    sys.setrecursionlimit(max(sys.getrecursionlimit(), MAX_DEPTH))
    try:
        try:
            return _main(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed stdout
        drop(sys.stdout)
        return 0
    except OSError as error:
        if error.errno not in CANT_WRITE or error.filename is not None:
            raise
        drop(sys.stdout)
        complain(f"cmemu: The output can't be written: {error.strerror}. Free some space, or write it elsewhere.")
        return WRONG


def _main(argv: Sequence[str] | None) -> int:
    arguments, program = _split(sys.argv[1:] if argv is None else list(argv))
    parser, commands = _parsers()
    options, rest = parser.parse_known_args(arguments)
    if options.command == "lab":
        return start_lab([*rest, *([] if program is None else ["--", *program])])
    if options.command is None and not rest:
        parser.print_help()
        return 0
    used: Parser = commands.get(options.command, parser)
    if rest:
        used.error(f"unknown arguments: {' '.join(rest)}{_hint_about_program(options.command, program)}")
    if program is not None and options.command != "run":
        used.error("only 'cmemu run' takes a program after '--'")
    options.program = program
    return _run(used, options)


def _open_closed_streams() -> None:
    """Replace a closed stdout or stderr, which a shell makes with `>&-`, by the null device."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - as long as the process


def _run(parser: Parser, options: argparse.Namespace) -> int:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal may be ASCII only
    try:
        code: int = options.run(parser, options)
    except CmemuError as error:
        return exit_code(parser, error)
    except KeyboardInterrupt:
        complain("Interrupted.")
        return INTERRUPTED
    return code


def _hint_about_program(command: str | None, program: list[str] | None) -> str:
    missing = command == "run" and program is None
    return ". Write '--' before the program: cmemu run -- python app.py" if missing else ""


def _split(arguments: list[str]) -> tuple[list[str], list[str] | None]:
    """Cut off the arguments after the first '--', which argparse would parse too."""
    if "--" not in arguments:
        return arguments, None
    position = arguments.index("--")
    return arguments[:position], arguments[position + 1 :]


def _parsers() -> tuple[Parser, dict[str | None, Parser]]:
    parser = Parser(prog="cmemu", description="An emulator of the compute-module runtime lifecycle.", epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"cmemu_nb {__version__}")
    added = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    commands: dict[str | None, Parser] = {}
    for group in GROUPS:
        group.add_commands(added, commands)
    add_command(
        added,
        "lab",
        "Open JupyterLab with the first tutorial.",
        "  cmemu lab\n  cmemu lab mine.ipynb --port 9999",
        "The first argument may be another notebook; all others are passed to 'jupyter lab'.",
        usage="cmemu lab [-h] [NOTEBOOK] [ARGUMENT ...]",
    )
    return parser, commands
