"""The arguments that commands of the command line and of `%cmemu` share."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from traitlets import Bool, CaselessStrEnum, Float, Int, List

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.lifecycle.configuration import Configuration
from cmemu_nb.lifecycle.records import JobStatus, Mode
from cmemu_nb.settings import SECRETS, Settings
from cmemu_nb.tokens import Token

if TYPE_CHECKING:
    from traitlets import TraitType

    from cmemu_nb.lifecycle.scaling import Scaling


JOB = "a job's id, or at least its last 4 characters"


def add_settings(parser: argparse._ActionsContainer, *, notebook: bool) -> None:
    """Add an option for each setting of an emulator; without a `notebook`, only those that apply outside notebooks.

    Names, types, help and defaults come from `Settings`. An option that is not given leaves its setting alone; an
    option whose setting is a list may be repeated.
    """
    for name, trait in Settings.class_traits(config=True).items():
        if notebook or not trait.metadata.get("notebook_only"):
            flag = f"--{name.replace('_', '-')}"
            parser.add_argument(flag, default=argparse.SUPPRESS, help=_help_of(trait), **_kind_of(trait))


def add_seed(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Add the option for a seed file; `more` follows its help."""
    parser.add_argument(
        "--seed", metavar="FILE", help=f"A YAML file with the sessions and settings to start with.{more}"
    )


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given as options, by name."""
    return {name: value for name, value in vars(options).items() if name in Settings.class_trait_names(config=True)}


def _help_of(trait: TraitType[Any, Any]) -> str:
    text = f"{trait.help}".replace("%", "%%")
    if isinstance(trait, List):
        return f"{text} May be repeated."
    default = trait.default_value
    if isinstance(trait, Bool):
        return f"{text} Default: on." if default else text
    shown = f"{default:g}" if isinstance(default, float) else default
    return f"{text} Default: {shown}." if default else text


def _kind_of(trait: TraitType[Any, Any]) -> dict[str, Any]:
    if isinstance(trait, Bool):
        return {"action": argparse.BooleanOptionalAction if trait.default_value else "store_true"}
    if isinstance(trait, CaselessStrEnum):
        return {"choices": [str(value) for value in trait.values or ()]}
    if isinstance(trait, Int):
        return {"type": int, "metavar": "N"}
    if isinstance(trait, Float):
        return {"type": float, "metavar": "SECONDS"}
    kind = {"type": Token if trait.name in (*SECRETS, "tokens") else str}
    kind["metavar"] = trait.metadata.get("metavar", "TEXT")
    return {**kind, "action": "append"} if isinstance(trait, List) else kind


def positive(value: str) -> int:
    """Parse a whole number of at least 1."""
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return number


def add_job_filters(parser: argparse.ArgumentParser) -> None:
    """Add the options that select jobs."""
    parser.add_argument("--status", choices=[str(status) for status in JobStatus], help="Only jobs with this status.")
    parser.add_argument("--runtime", help="Only jobs of this runtime.")


def add_function_and_query(parser: argparse.ArgumentParser, query: str) -> None:
    """Add the function to call, its query, whose help is `query`, and the deployed app."""
    parser.add_argument("function", help="The function's name; it is the query type on the wire.")
    parser.add_argument("query", nargs="?", help=query)
    parser.add_argument("--app", help="The deployed app's RID. It may be omitted when only one app is bound.")
    parser.add_argument(
        "--branch", help="The app's branch. Default: master, or the newest branch of an app without master."
    )


def add_call_options(parser: argparse.ArgumentParser) -> None:
    """Add how a call waits, and whether its query is checked."""
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="Seconds to wait. Default: no limit.")
    parser.add_argument(
        "--no-validate", action="store_true", help="Don't check the function's name and the query before the call."
    )
    parser.add_argument(
        "--no-progress",
        action="store_true",
        help="Don't show why the call is waiting. It is not shown either where the variable CI is set.",
    )


def add_cancel(parser: argparse.ArgumentParser, jobs: str) -> None:
    """Add the jobs to cancel, whose help is `jobs`, and the reason."""
    parser.add_argument("jobs", metavar="ID|FUNCTION|all", help=jobs)
    parser.add_argument(
        "reason", nargs="*", default=[], help="The reason, which the clients that wait for the jobs receive."
    )


def add_launch(parser: argparse.ArgumentParser) -> None:
    """Add how a program is launched as a module."""
    parser.add_argument("--runtime", help="The runtime's id. Default: the name of the program's file.")
    parser.add_argument(
        "--image",
        help="Run a container of this image, such as orders:0.1.0, where Docker or podman is there. The program is "
        "that of the image; what is given in its place are its arguments.",
    )
    parser.add_argument("--cwd", help="The program's working directory.")
    add_mode(parser)
    parser.add_argument(
        "--openapi",
        metavar="FILE",
        help="The program is an HTTP server without an SDK, and FILE the OpenAPI document of its functions.",
    )
    parser.add_argument(
        "--server-port", type=positive, metavar="N", help="The port of that server. Default: the one in its document."
    )
    parser.add_argument(
        "--no-restart",
        action="store_true",
        help="Leave a replica that exits as it is. By default it is started again, at most five times in ten minutes.",
    )
    add_replicas(parser)
    parser.add_argument(
        "--scaling",
        type=scaling,
        metavar="NAME=VALUE,...",
        help="Scale the module by its load, in place of --replicas: min=0,max=4,speedup=60. The names are those of a "
        "module's scaling, see 'Configuring a module'.",
    )
    parser.add_argument(
        "--max-lifetime",
        type=float,
        metavar="SECONDS",
        help="Replace a replica by a new one after so many seconds. By default, replicas live as long as the program.",
    )
    add_configuration(parser)


def add_mode(parser: argparse.ArgumentParser) -> None:
    """Add the execution mode of a module."""
    parser.add_argument(
        "--mode",
        choices=[*map(str, Mode)],
        default=argparse.SUPPRESS,
        help="The execution mode: a program in 'pipeline' mode takes no jobs and need not poll. Default: function.",
    )


def scaling(text: str) -> Scaling:
    """Parse a module's scaling, such as `min=0,max=4`."""
    pairs = [each.partition("=") for each in text.split(",")]
    try:
        given = {name.strip(): json.loads(value) for name, _, value in pairs}
        read = Configuration().changed({"scaling": given}).scaling
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form min=0,max=4,speedup=60") from None
    except InvalidRequest as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    assert read is not None  # noqa: S101 - it was given
    return read


def add_replicas(parser: argparse.ArgumentParser) -> None:
    """Add the number of a module's replicas, and the number of tasks of each."""
    parser.add_argument(
        "--replicas", type=positive, metavar="N", default=argparse.SUPPRESS, help="Number of processes. Default: 1."
    )
    add_tasks(parser)


def add_tasks(parser: argparse.ArgumentParser) -> None:
    """Add the number of jobs that a replica runs at a time."""
    parser.add_argument(
        "--max-concurrent-tasks",
        type=positive,
        metavar="N",
        default=argparse.SUPPRESS,
        help="Number of jobs that a replica receives at a time. Default: 1.",
    )


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """Add the file of a module's configuration."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="A YAML or JSON file with the module's configuration: sources, aliases, client and so on. Options take "
        "precedence over it.",
    )


def given_configuration(options: argparse.Namespace) -> dict[str, Any]:
    """Return the keys of a module's configuration that the file of `--config` and the options give."""
    given: dict[str, Any] = {}
    if options.config is not None:
        from cmemu_nb.storage import configuration_file  # noqa: PLC0415 - YAML is imported only for such a file

        given = configuration_file.read(options.config)
    names = ("mode", "replicas", "scaling", "max_lifetime", "max_concurrent_tasks")
    keys = {name: getattr(options, name, None) for name in names}
    server = {"openapi": getattr(options, "openapi", None), "port": getattr(options, "server_port", None)}
    if any(value is not None for value in server.values()):
        keys["server"] = {**(given.get("server") or {}), **{name: value for name, value in server.items() if value}}
    return given | {name: value for name, value in keys.items() if value is not None}


def add_env(parser: argparse.ArgumentParser) -> None:
    """Add the runtime whose environment is printed, and its form."""
    parser.add_argument("runtime", help="The runtime's id.")
    parser.add_argument("--docker", metavar="IMAGE", help="Print one line that runs a container of this image instead.")
    add_tasks(parser)
    add_configuration(parser)


def add_export(parser: argparse.ArgumentParser, path: str) -> None:
    """Add the file to write to."""
    parser.add_argument("path", help=path)
    parser.add_argument("--force", action="store_true", help="Overwrite an existing file.")
