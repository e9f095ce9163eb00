"""The commands of `%cmemu`: their arguments, their help, and the reading of a line."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from IPython.core.error import UsageError

from cmemu_nb.arguments import (
    JOB,
    add_call_options,
    add_cancel,
    add_configuration,
    add_env,
    add_export,
    add_function_and_query,
    add_job_filters,
    add_launch,
    add_mode,
    add_replicas,
    add_seed,
    add_settings,
    positive,
)
from cmemu_nb.engine.fault_arguments import CHANCES
from cmemu_nb.lifecycle.records import NOTEBOOK
from cmemu_nb.notebook import topics
from cmemu_nb.phrases import closest
from cmemu_nb.wire.json_values import read_first, read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

JOB_OR_VARIABLE = f"{JOB}, or a variable that holds the job".capitalize()


class Arguments(argparse.Namespace):
    """A command's parsed arguments. An argument that the command does not have is None."""

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
    """A command: its help, in one sentence, and its arguments."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    takes_query: bool = False


def _start(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, notebook=True)
    add_seed(parser, " See %%cmemu help seed.")
    thread: dict[str, Any] = {"action": "store_const", "dest": "home", "const": "thread", "default": argparse.SUPPRESS}
    parser.add_argument("--thread", help="The same as --home thread.", **thread)


def _nothing(_: argparse.ArgumentParser) -> None:
    pass


def _reset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runtime", nargs="?", help="Reset the session of this runtime only.")


def _jobs(parser: argparse.ArgumentParser) -> None:
    add_job_filters(parser)
    parser.add_argument("--function", help="Only calls of this function.")
    parser.add_argument("--limit", type=positive, metavar="N", help="Only the newest N jobs.")


def _timeline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=positive, metavar="N", default=200, help="Only the newest N jobs. Default: 200."
    )


def _events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=positive, metavar="N", help="Only the newest N events.")
    parser.add_argument("--all", action="store_true", help="Include empty polls, chunks of streams and the like.")


def _submit(parser: argparse.ArgumentParser) -> None:
    add_function_and_query(parser, "Its input: JSON, or the name of a variable. Default: {}.")


def _call(parser: argparse.ArgumentParser) -> None:
    _submit(parser)
    add_call_options(parser)
    parser.add_argument("--echo", action="store_true", help="Show what the function prints, as it prints it.")


def _job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", help=f"{JOB_OR_VARIABLE}.")


def _launch(parser: argparse.ArgumentParser) -> None:
    add_launch(parser)
    parser.add_argument(
        "words", nargs="*", metavar="-- COMMAND", help="The program and its arguments, such as: -- python app.py"
    )


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", metavar="FILE", help="A YAML or JSON file with the configuration. See %%cmemu help configuration."
    )
    parser.add_argument("--runtime", default=NOTEBOOK, help="The runtime's id. Default: notebook.")


def _export(parser: argparse.ArgumentParser) -> None:
    add_export(parser, "The file to write, such as run.json.")
    parser.add_argument(
        "--max-data-bytes",
        type=int,
        metavar="N",
        help="Leave out datasets and streams that do not fit into N bytes. Default: 268435456 (256 MiB).",
    )


def _export_module(parser: argparse.ArgumentParser) -> None:
    add_export(parser, "The file to write, such as app.py; or a folder, such as orders/, for a whole project.")


def _check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path",
        nargs="?",
        help="A Python program, a Dockerfile, a folder or the name of an image. Default: the functions in cells.",
    )


def _cancel(parser: argparse.ArgumentParser) -> None:
    add_cancel(parser, f"{JOB_OR_VARIABLE}; a function's name for all of its jobs; or: all.")


def _fail(parser: argparse.ArgumentParser) -> None:
    _job(parser)
    parser.add_argument("reason", nargs="*", default=[], help="The reason, which becomes the job's error message.")


def _delay(value: str) -> float | tuple[float, float]:
    low, colon, high = value.partition(":")
    try:
        return (float(low), float(high)) if colon else float(low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is neither a number of seconds nor LOW:HIGH") from None


def _faults(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--off", action="store_true", help="End all faults.")
    parser.add_argument("--runtime", help="Only for this runtime.")
    parser.add_argument("--function", help="Only for jobs of this function.")
    parser.add_argument("--delay", type=_delay, metavar="SECONDS", help="Delay answers: by 0.5, or by 0.1:0.5.")
    for name in CHANCES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="CHANCE", help=CHANCES[name])
    parser.add_argument(
        "--seed", type=int, help="With the same seed the faults hit the same jobs. Default: a random seed."
    )


def _help(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "topic", nargs="?", choices=[*topics.names(), *COMMANDS], help="A command, or the name of a longer document."
    )


COMMANDS = {
    "start": Command("Start the emulator, or show the running one.", _start),
    "stop": Command("Stop the emulator.", _nothing),
    "status": Command("Show the emulator.", _nothing),
    "reset": Command("Delete every runtime, or reset the session of one.", _reset),
    "dashboard": Command("Show everything live, with buttons, forms and charts.", _nothing),
    "timeline": Command("Show a chart of which executor ran which job, and when.", _timeline),
    "latency": Command("Show histograms of how long the jobs waited and ran.", _nothing),
    "runtimes": Command("Return the runtimes as a DataFrame.", _nothing),
    "jobs": Command("Return the jobs as a DataFrame.", _jobs),
    "schemas": Command("Return the function schemas as a DataFrame.", _nothing),
    "apps": Command("Return the deployed apps and the runtimes that serve them as a DataFrame.", _nothing),
    "datasets": Command("Return the datasets as a DataFrame, with their sizes and transactions.", _nothing),
    "streams": Command("Return the data streams as a DataFrame, with their records and offsets.", _nothing),
    "events": Command("Return the events as a DataFrame.", _events),
    "functions": Command("Show the functions in cells and those of launched modules.", _nothing),
    "launch": Command("Launch a program with an official SDK as the module of a runtime.", _launch),
    "configure": Command("Give a runtime's module sources, aliases, a client and so on, from a file.", _configure),
    "env": Command("Print the environment variables for a module that you start yourself.", add_env),
    "submit": Command("Submit a job and return its handle.", _submit, takes_query=True),
    "call": Command("Run a function and return its value.", _call, takes_query=True),
    "logs": Command("Print what the function of a job has printed and logged.", _job),
    "cancel": Command("Cancel a job, or all queued and running jobs of a function.", _cancel),
    "fail": Command("Fail a queued or running job manually.", _fail),
    "faults": Command("Inject faults, end them, or show which ones are active.", _faults),
    "export": Command("Write the whole session to a file, for Emulator.from_export().", _export),
    "export-module": Command(
        "Write the served functions as a module for the official SDK, or as a whole project.", _export_module
    ),
    "check": Command("Check whether a program, a folder, an image or the functions in cells would deploy.", _check),
    "url": Command("Print the emulator's URL.", _nothing),
    "help": Command("Show this, the arguments of a command, or a longer document.", _help),
}


def parse(line: str, namespace: Mapping[str, Any]) -> tuple[str, Arguments]:
    """Parse a line into a command and its arguments. Raises `UsageError` for a line that is not valid."""
    name, _, rest = line.strip().partition(" ")
    if name in ("", "-h", "--help"):
        name = "help"
    if name not in COMMANDS:
        similar = closest(name, COMMANDS)
        raise UsageError(f"%cmemu has no command {name!r}.{similar} Its commands: {', '.join(COMMANDS)}.")
    query, rest = _cut_out_json(rest) if COMMANDS[name].takes_query else (None, rest)
    arguments = _split(f"%cmemu {name}", rest)
    if arguments in (["-h"], ["--help"]):
        name, arguments = "help", [name]
    given = _read(parser_of(name), arguments)
    if query is not None:
        given.query = query[0]
    elif given.query is not None:
        given.query = _plain_query(given.query, namespace)
    return name, given


def _split(magic: str, line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise UsageError(f"{magic}: the line can't be parsed ({error}). Close the quotes.") from None


def parse_cell_line(line: str) -> Arguments:
    """Parse the line of `%%cmemu_functions`."""
    parser = _Parser(prog="%%cmemu_functions", add_help=False, allow_abbrev=False)
    parser.add_argument("runtime", nargs="?")
    parser.add_argument("--echo", action="store_true")
    parser.add_argument("--name")
    return _read(parser, _split(parser.prog, line))


def parse_module_line(line: str) -> Arguments:
    """Parse the line of `%%compute_module`."""
    parser = _Parser(prog="%%compute_module", add_help=False, allow_abbrev=False)
    parser.add_argument("module", metavar="NAME")
    parser.add_argument("--language", choices=("python", "node"), default="python")
    add_mode(parser)
    add_replicas(parser)
    add_configuration(parser)
    parser.add_argument("--name")
    return _read(parser, _split(parser.prog, line))


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
            "%%compute_module NAME [--language python|node] [--mode pipeline] launches its cell as a module.",
            "Every command takes --name NAME, for an emulator whose variable is not called 'emu'.",
            "%cmemu help COMMAND shows a command's arguments.",
            f"%cmemu help TOPIC shows a longer document: {', '.join(topics.names())}.",
        ]
    )


def options_of(name: str) -> list[str]:
    """Return the options of a command, such as `--name`."""
    return [option for action in parser_of(name)._actions for option in action.option_strings]  # noqa: SLF001


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command's arguments."""
    parser = _Parser(prog=f"%cmemu {name}", description=COMMANDS[name].help, add_help=False, allow_abbrev=False)
    COMMANDS[name].add_arguments(parser)
    parser.add_argument("--name", help="The variable that holds the emulator, if it is not 'emu'.")
    return parser


def _read(parser: argparse.ArgumentParser, arguments: list[str]) -> Arguments:
    # argparse sets a default only where the namespace lacks the attribute, and an Arguments seems to have every one.
    return Arguments(**vars(parser.parse_args(arguments)))


def _cut_out_json(text: str) -> tuple[tuple[Any] | None, str]:
    """Cut the first JSON object or array out of a line, whether it is quoted or not."""
    starts = [position for position in (text.find("{"), text.find("[")) if position >= 0]
    if not starts:
        return None, text
    start = min(starts)
    try:
        value, end = read_first(text, start)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The query is not JSON: {error}. JSON needs double quotes.") from None
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
