"""Arguments that commands of the command line and of `%cmemu` have in common."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from traitlets import Bool, CaselessStrEnum, Float, Int, List

from cmemu_nb.lifecycle.records import JobStatus
from cmemu_nb.settings import SECRETS, Settings
from cmemu_nb.tokens import Token

if TYPE_CHECKING:
    from traitlets import TraitType


def add_settings(parser: argparse._ActionsContainer, *, notebook: bool) -> None:
    """Add an option for each setting of an emulator; without a `notebook` those that say nothing there are left out.

    Their names, kinds, help and defaults are those of `Settings`. One that is not given is not set; a list is given
    by repeating the option.
    """
    for name, trait in Settings.class_traits(config=True).items():
        if notebook or not trait.metadata.get("notebook_only"):
            flag = f"--{name.replace('_', '-')}"
            parser.add_argument(flag, default=argparse.SUPPRESS, help=_help_of(trait), **_kind_of(trait))


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given, by name."""
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
    """Read a whole number of at least 1."""
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return number


def add_job_filters(parser: argparse.ArgumentParser) -> None:
    """Add what chooses among jobs."""
    parser.add_argument("--status", choices=[str(status) for status in JobStatus], help="Only jobs of this status.")
    parser.add_argument("--runtime", help="Only jobs of this runtime.")


def add_app(parser: argparse.ArgumentParser) -> None:
    """Add which deployed app is called."""
    parser.add_argument("--app", help="The deployed app's RID; may be left out when only one is bound.")
    parser.add_argument(
        "--branch", help="The app's branch; master if left out, or the newest where there is no master."
    )


def add_launch(parser: argparse.ArgumentParser) -> None:
    """Add how a program is launched."""
    parser.add_argument("--runtime", help="The runtime's id; named after the program's file if left out.")
    parser.add_argument("--cwd", help="The directory to run in.")
    add_replicas(parser)


def add_replicas(parser: argparse.ArgumentParser) -> None:
    """Add how many copies of a module run."""
    parser.add_argument("--replicas", type=positive, default=1, help="How many processes. Default: 1.")
    add_tasks(parser)


def add_tasks(parser: argparse.ArgumentParser) -> None:
    """Add how much a copy of a module takes."""
    parser.add_argument(
        "--max-concurrent-tasks",
        type=positive,
        default=1,
        help="How many jobs a replica is handed at a time. Default: 1.",
    )


def add_env(parser: argparse.ArgumentParser) -> None:
    """Add what an environment is for."""
    parser.add_argument("runtime", help="The runtime's id.")
    parser.add_argument("--docker", metavar="IMAGE", help="One line that runs a container instead.")
    add_tasks(parser)


def add_export(parser: argparse.ArgumentParser, path: str) -> None:
    """Add where something is written to."""
    parser.add_argument("path", help=path)
    parser.add_argument("--force", action="store_true", help="Write over a file that exists.")
