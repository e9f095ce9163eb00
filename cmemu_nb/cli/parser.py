"""What all commands share: help with an example, exit codes, and errors of one sentence."""

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

# The type that `add_subparsers` returns, which argparse does not export.
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
    errors.TooManyRequests: ABSENT,
    errors.TooManyRuntimes: ABSENT,
    errors.InvalidBearerToken: REFUSED,
}
EXIT_CODES = f"""\
exit codes:
  0  done
  {RAISED}  the function itself raised an exception, or 'cmemu check' found an error
  {WRONG}  the command line is wrong, or the request can't be fulfilled; the message says why
  {FAILED}  the job failed, or the launched program failed
  {LATE}  the time limit was reached
  {UNKNOWN}  there is no such function, app, runtime or job
  {ABSENT}  no emulator was found, or it has ended, or it is too busy
  {REFUSED}  the emulator rejected the token
  130  interrupted with Ctrl-C
'cmemu run' ends with the exit code of its program if the program ends by itself. If that is 0 although the
program has never polled for jobs, and is not a pipeline, the exit code is {FAILED}.
Results and JSON are written to stdout, messages to stderr."""


class Parser(argparse.ArgumentParser):
    """A parser whose help keeps its line breaks, and whose errors are one sentence."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **keywords})

    def error(self, message: str) -> NoReturn:
        """Exit with one sentence that says what is wrong and names the help, instead of the whole usage."""
        sentence = message if message.endswith(".") else f"{message}."
        self.exit(WRONG, f"{self.prog}: {visible(sentence)} See '{self.prog} --help'.\n")


def add_command(commands: Commands, name: str, does: str, example: str, more: str = "", **keywords: Any) -> Parser:
    """Add a command. `does` describes it in one sentence, `more` adds details, and `example` has lines to type."""
    parser: Parser = commands.add_parser(
        name,
        help=f"{does[0].lower()}{does[1:].rstrip('.')}",
        description=f"{does}\n{more}".rstrip(),
        epilog=f"for example:\n{example}\n\n{EXIT_CODES}",
        **keywords,
    )
    return parser


def does(parser: Parser, run: Callable[[Parser, argparse.Namespace], int]) -> None:
    """Set the function that carries out a command and returns the exit code."""
    parser.set_defaults(run=run)


def exit_code(parser: Parser, error: CmemuError) -> int:
    """Print an error to stderr, and return its exit code."""
    complain(f"{parser.prog}: {error}")
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), WRONG)


def complain(text: str) -> None:
    """Print a message to stderr, with control characters made visible so that a terminal does not interpret them."""
    try:
        print(visible(text, lines=True), file=sys.stderr, flush=True)
    except OSError:  # for instance a full disk; the exit code still reports the error
        drop(sys.stderr)


def drop(stream: TextIO) -> None:
    """Discard what a stream can't write; without this, the interpreter prints an error when it flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
