"""What every command has: its help with an example, its exit codes, and one sentence when it is used wrongly."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from cmemu_nb import errors
from cmemu_nb.display.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.errors import CmemuError

# What `add_subparsers` returns.
Commands = Any

RAISED, WRONG, FAILED, LATE, UNKNOWN, ABSENT, REFUSED = 1, 2, 3, 4, 5, 6, 7
_CODES: dict[type[CmemuError], int] = {
    errors.FunctionError: RAISED,
    errors.JobFailed: FAILED,
    errors.LaunchFailed: FAILED,
    errors.JobTimeout: LATE,
    errors.NotFound: UNKNOWN,
    errors.NotRunning: ABSENT,
    errors.TooBusy: ABSENT,
    errors.QueueFull: ABSENT,
    errors.TooManyRuntimes: ABSENT,
    errors.InvalidBearerToken: REFUSED,
}
EXIT_CODES = f"""\
exit codes:
  0  done
  {RAISED}  the function itself raised
  {WRONG}  used wrongly, or what was asked for can't be done; the message says why
  {FAILED}  the job failed, or the program that was launched
  {LATE}  the time is over
  {UNKNOWN}  there is no such function, app, runtime or job
  {ABSENT}  no emulator was found, or it went away, or it is too busy
  {REFUSED}  the emulator refused the token
  130  interrupted with Ctrl-C
'cmemu run' ends with its program's own exit code when that ended by itself.
Results and JSON are written to stdout, messages to stderr."""


class Parser(argparse.ArgumentParser):
    """A parser whose help keeps its lines, and that complains in one sentence."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **keywords})

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one sentence, and where to look, instead of the whole usage."""
        sentence = message if message.endswith(".") else f"{message}."
        self.exit(WRONG, f"{self.prog}: {visible(sentence)} See '{self.prog} --help'.\n")


def add_command(commands: Commands, name: str, does: str, example: str, more: str = "", **keywords: Any) -> Parser:
    """Add a command: `does` is one sentence, `more` what else there is to say, `example` lines to type."""
    parser: Parser = commands.add_parser(
        name,
        help=f"{does[0].lower()}{does[1:].rstrip('.')}",
        description=f"{does}\n{more}".rstrip(),
        epilog=f"for example:\n{example}\n\n{EXIT_CODES}",
        **keywords,
    )
    return parser


def does(parser: Parser, run: Callable[[Parser, argparse.Namespace], int]) -> None:
    """Let a command do something; what it returns is the exit code."""
    parser.set_defaults(run=run)


def exit_code(parser: Parser, error: CmemuError) -> int:
    """Say an error on stderr, and return the exit code that it has."""
    complain(f"{parser.prog}: {error}")
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), WRONG)


def complain(text: str) -> None:
    """Write a message to stderr, if that can be; what a terminal would obey in it is shown instead."""
    try:
        print(visible(text, lines=True), file=sys.stderr, flush=True)
    except OSError:  # a full disk: the exit code says what there is to say
        drop(sys.stderr)


def drop(stream: TextIO) -> None:
    """Throw away what a stream can't write; else the interpreter would complain when it flushes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
