"""Settings as options of the command line: their names, kinds, help and defaults are those of `Settings`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from traitlets import Bool, CaselessStrEnum, Float, Int, List

from cmemu_nb.settings import SECRETS, Settings
from cmemu_nb.tokens import Token

if TYPE_CHECKING:
    from traitlets import TraitType

# Where there are no cells these say nothing.
OF_NOTEBOOKS = frozenset({"home", "interrupt", "max_concurrent_tasks"})
FLAGS = {"tokens": "--further-token", "local_hostnames": "--local-hostname"}
METAVARS = {
    **dict.fromkeys(("token", "tokens", "client_id", "client_secret"), "TEXT"),
    "host": "ADDRESS",
    "local_hostnames": "NAME",
    "journal": "FILE",
}


def names() -> list[str]:
    """Return the settings that can be options."""
    return [name for name in Settings.class_trait_names(config=True) if name not in OF_NOTEBOOKS]


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add an option for each setting; those that are not given are not set."""
    group = parser.add_argument_group("settings of the emulator")
    for name in names():
        trait = Settings.class_traits()[name]
        flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
        group.add_argument(flag, dest=name, default=argparse.SUPPRESS, help=_help(trait), **_kind(name, trait))


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given."""
    return {name: value for name, value in vars(options).items() if name in names()}


def _help(trait: TraitType[Any, Any]) -> str:
    text = f"{trait.help}".replace("%", "%%")
    plain = trait.default_value and not isinstance(trait, Bool | List)
    return f"{text} Default: {trait.default_value}." if plain else text


def _kind(name: str, trait: TraitType[Any, Any]) -> dict[str, Any]:
    if isinstance(trait, Bool):
        return {"action": "store_true"}
    if isinstance(trait, CaselessStrEnum):
        return {"choices": [str(value) for value in trait.values or ()]}
    if isinstance(trait, Int):
        return {"type": int, "metavar": "N"}
    if isinstance(trait, Float):
        return {"type": float, "metavar": "SECONDS"}
    kind = {"type": Token} if name in (*SECRETS, "tokens") else {}
    return {**kind, **({"action": "append"} if isinstance(trait, List) else {}), "metavar": METAVARS[name]}
