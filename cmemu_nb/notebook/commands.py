"""The commands of `%cmemu`: their arguments, their help, and the reading of a line."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from IPython.core.error import UsageError

from cmemu_nb.arguments import (
    add_app,
    add_env,
    add_export,
    add_job_filters,
    add_launch,
    add_replicas,
    add_settings,
    positive,
)
from cmemu_nb.engine.fault_arguments import CHANCES
from cmemu_nb.notebook import topics
from cmemu_nb.phrases import closest
from cmemu_nb.wire.json_values import read_first, read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

JOB = "The job: its id, at least the last 4 characters of it, or a variable that holds it."


class Arguments(argparse.Namespace):
    """A command's parsed arguments; one that the command does not have is None."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        topic = self.prog.partition(" ")[2]
        raise UsageError(f"{self.prog}: {message}. Type: %cmemu help {topic}".rstrip())


@dataclass(frozen=True)
class Command:
    """One command: what it does, in a sentence, and its arguments."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    takes_query: bool = False


def _start(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, notebook=True)
    parser.add_argument("--seed", metavar="FILE", help="A YAML file to begin with: %%cmemu help seed.")
    thread: dict[str, Any] = {"action": "store_const", "dest": "home", "const": "thread", "default": argparse.SUPPRESS}
    parser.add_argument("--thread", help="The same as --home thread.", **thread)


def _nothing(_: argparse.ArgumentParser) -> None:
    pass


def _reset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runtime", nargs="?", help="Reset the session of this runtime only.")


def _jobs(parser: argparse.ArgumentParser) -> None:
    add_job_filters(parser)
    parser.add_argument("--function", help="Only calls of this function.")
    parser.add_argument("--limit", type=positive, help="Only the newest so many.")


def _timeline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=positive, default=200, help="Only the newest so many jobs; 200 if left out.")


def _events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=positive, help="Only the newest so many.")
    parser.add_argument("--all", action="store_true", help="Also the empty polls and the chunks of streams.")


def _submit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("function", help="The function's name, on the wire the query type.")
    parser.add_argument("query", nargs="?", help="Its input: JSON, or the name of a variable; {} if left out.")
    add_app(parser)


def _call(parser: argparse.ArgumentParser) -> None:
    _submit(parser)
    parser.add_argument("--timeout", type=float, help="Seconds to wait; as long as it takes if left out.")

    parser.add_argument("--echo", action="store_true", help="Show what the function prints, while it does.")
    parser.add_argument("--no-validate", action="store_true", help="Send any query, even of an unknown function.")
    parser.add_argument("--no-progress", action="store_true", help="Don't say why it waits.")


def _job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", help=JOB)


def _launch(parser: argparse.ArgumentParser) -> None:
    add_launch(parser)
    parser.add_argument("words", nargs="+", metavar="-- COMMAND", help="The program, such as: -- python app.py")


def _export(parser: argparse.ArgumentParser) -> None:
    add_export(parser, "The file to write, such as run.json.")


def _export_module(parser: argparse.ArgumentParser) -> None:
    add_export(parser, "The file to write, such as app.py.")


def _cancel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("jobs", help=f"{JOB} A function's name means all of its jobs; or: all.")
    parser.add_argument("reason", nargs="*", default=[], help="Why.")


def _fail(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", help=JOB)
    parser.add_argument("reason", nargs="*", default=[], help="Why.")


def _delay(value: str) -> float | tuple[float, float]:
    low, colon, high = value.partition(":")
    try:
        return (float(low), float(high)) if colon else float(low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is neither seconds nor LOW:HIGH") from None


def _faults(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--off", action="store_true", help="End all faults.")
    parser.add_argument("--runtime", help="Only towards this runtime.")
    parser.add_argument("--function", help="Only in jobs of this function.")
    parser.add_argument("--delay", type=_delay, metavar="SECONDS", help="Hold answers back: 0.5, or 0.1:0.5.")
    for name in CHANCES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="CHANCE", help=CHANCES[name])
    parser.add_argument("--seed", type=int, help="The same seed strikes the same jobs; random if left out.")


def _help(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "topic", nargs="?", choices=[*topics.names(), *COMMANDS], help="A command, or one of the longer documents."
    )


COMMANDS = {
    "start": Command("Start the emulator, or show the one that runs.", _start),
    "stop": Command("Stop the emulator.", _nothing),
    "status": Command("Show the emulator.", _nothing),
    "reset": Command("Forget every runtime, or reset the session of one.", _reset),
    "dashboard": Command("Show everything live, with buttons, forms and charts.", _nothing),
    "timeline": Command("A chart of who ran which job, and when.", _timeline),
    "latency": Command("Histograms of how long the jobs waited and ran.", _nothing),
    "runtimes": Command("The runtimes, as a DataFrame.", _nothing),
    "jobs": Command("The jobs, as a DataFrame.", _jobs),
    "schemas": Command("The function schemas, as a DataFrame.", _nothing),
    "apps": Command("The deployed apps and who serves them, as a DataFrame.", _nothing),
    "events": Command("What happened, as a DataFrame.", _events),
    "functions": Command("The functions that this notebook serves.", _nothing),
    "launch": Command("Launch a program with an official SDK as a runtime's module.", _launch),
    "env": Command("Print the environment for a module that you start yourself.", add_env),
    "submit": Command("Submit a job and return its handle.", _submit, takes_query=True),
    "call": Command("Run a function and return its value.", _call, takes_query=True),
    "logs": Command("Print what a job's function has printed and logged.", _job),
    "cancel": Command("Cancel a job, or all queued and running jobs of a function.", _cancel),
    "fail": Command("Fail a queued or running job by hand.", _fail),
    "faults": Command("Let the platform misbehave, end that, or show which faults are on.", _faults),
    "export": Command("Write the whole session to a file, for Emulator.from_export().", _export),
    "export-module": Command("Write the served functions as a module for the official SDK.", _export_module),
    "url": Command("Print the emulator's URL.", _nothing),
    "help": Command("Show this, the arguments of a command, or a longer document.", _help),
}


def parse(line: str, namespace: Mapping[str, Any]) -> tuple[str, Arguments]:
    """Read a line as a command and its arguments; what is wrong with it is a `UsageError`."""
    name, _, rest = line.strip().partition(" ")
    if name in ("", "-h", "--help"):
        name = "help"
    if name not in COMMANDS:
        similar = closest(name, COMMANDS)
        raise UsageError(f"%cmemu has no command {name!r}.{similar} Its commands: {', '.join(COMMANDS)}.")
    query, rest = _cut_out_json(rest) if COMMANDS[name].takes_query else (None, rest)
    words = _words(f"%cmemu {name}", rest)
    if words in (["-h"], ["--help"]):
        name, words = "help", [name]
    given = _read(parser_of(name), words)
    if query is not None:
        given.query = query[0]
    elif given.query is not None:
        given.query = _plain_query(given.query, namespace)
    return name, given


def _words(magic: str, line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise UsageError(f"{magic}: the line can't be read ({error}). Close the quotes.") from None


def parse_cell_line(line: str) -> Arguments:
    """Read the line of `%%cmemu_functions`."""
    parser = _Parser(prog="%%cmemu_functions", add_help=False, allow_abbrev=False)
    parser.add_argument("runtime", nargs="?")
    parser.add_argument("--echo", action="store_true")
    parser.add_argument("--name")
    return _read(parser, _words(parser.prog, line))


def parse_module_line(line: str) -> Arguments:
    """Read the line of `%%compute_module`."""
    parser = _Parser(prog="%%compute_module", add_help=False, allow_abbrev=False)
    parser.add_argument("module", metavar="NAME")
    parser.add_argument("--language", choices=("python", "node"), default="python")
    add_replicas(parser)
    parser.add_argument("--name")
    return _read(parser, _words(parser.prog, line))


def describe(name: str | None = None) -> str:
    """Describe all commands, or the arguments of one."""
    if name is not None:
        return parser_of(name).format_help()
    lines = [f"    %cmemu {key:<13} {command.help}" for key, command in COMMANDS.items()]
    return "\n".join(
        [
            "The compute-module emulator in this kernel.",
            "",
            *lines,
            "",
            "%%cmemu_functions [RUNTIME] [--echo] serves every function that its cell defines.",
            "%%compute_module NAME [--language python|node] launches its cell as a module with an official SDK.",
            "Every command takes --name NAME for an emulator that was started under another name than 'emu'.",
            "%cmemu help COMMAND shows a command's arguments.",
            f"%cmemu help TOPIC shows a longer document: {', '.join(topics.names())}.",
        ]
    )


def options_of(name: str) -> list[str]:
    """Return the options of a command, such as `--name`."""
    return [option for action in parser_of(name)._actions for option in action.option_strings]  # noqa: SLF001


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return what reads the arguments of a command."""
    parser = _Parser(prog=f"%cmemu {name}", description=COMMANDS[name].help, add_help=False, allow_abbrev=False)
    COMMANDS[name].add_arguments(parser)
    parser.add_argument("--name", help="The variable that holds the emulator, if it is not 'emu'.")
    return parser


def _read(parser: argparse.ArgumentParser, words: list[str]) -> Arguments:
    # Not into an Arguments from the start: it seems to have every attribute, and argparse would set no defaults.
    return Arguments(**vars(parser.parse_args(words)))


def _cut_out_json(text: str) -> tuple[tuple[Any] | None, str]:
    """Take the first JSON object or array out of a line, whether it is quoted or not."""
    starts = [position for position in (text.find("{"), text.find("[")) if position >= 0]
    if not starts:
        return None, text
    start = min(starts)
    try:
        value, end = read_first(text, start)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The query is not JSON: {error}. Write it as in JSON, with double quotes.") from None
    before, after = text[:start], text[end:]
    if before.endswith("'") and after.startswith("'"):
        before, after = before[:-1], after[1:]
    return (value,), before + after


def _plain_query(text: str, namespace: Mapping[str, Any]) -> Any:
    if text in namespace:
        return namespace[text]
    try:
        return read_json(text)
    except (ValueError, RecursionError):
        raise UsageError(f"The query {text!r} is neither JSON nor the name of a variable.") from None
