"""The public names and signatures are those of `public_names.txt`: what people have typed keeps working.

When a change of them is meant, write the file anew with `python tests/test_public_names.py` and commit both.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import cmemu_nb
from cmemu_nb import Emulator, Scaling, cli, errors, pytest_plugin, testing
from cmemu_nb.calls.handles import JobHandle, RuntimeHandle
from cmemu_nb.calls.streams import ItemStream
from cmemu_nb.engine.fault_injection import FaultInjection
from cmemu_nb.errors import WireError
from cmemu_nb.executors.cells.functions import Functions
from cmemu_nb.executors.modules.environment import ModuleEnvironment
from cmemu_nb.executors.modules.modules import LaunchedModule
from cmemu_nb.lifecycle.events import KINDS, Event
from cmemu_nb.notebook.commands import COMMANDS, parse_cell_line, parse_module_line, parser_of
from cmemu_nb.server.application import ROUTES
from cmemu_nb.server.faults import Faults
from cmemu_nb.settings import Settings
from cmemu_nb.testing import EmulatorForTests
from cmemu_nb.tokens import Token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES = Path(__file__).with_name("public_names.txt")
HELD = (
    *(Emulator, EmulatorForTests, RuntimeHandle, JobHandle, ItemStream, LaunchedModule, ModuleEnvironment),
    *(Faults, FaultInjection, Functions, Event, Token, Scaling),
)
ERRORS = tuple(
    each for _, each in sorted(vars(errors).items()) if isinstance(each, type) and issubclass(each, Exception)
)
PUBLIC = {*HELD, *ERRORS}
MADE = {Emulator, Scaling, *ERRORS}


def lines() -> Iterator[str]:
    """Write every public name as a line, from the code itself."""
    yield from heading("cmemu_nb", [*cmemu_nb.__all__])
    for kind in HELD:
        yield from heading(f"{kind.__name__}({', '.join(own_bases(kind))})", members(kind))
    yield from heading("settings", [*settings()])
    yield from heading("cmemu_nb.errors", of_errors())
    fixtures = [name for name in vars(pytest_plugin) if name.startswith("cmemu")]
    yield from heading("fixtures", sorted(fixtures))
    yield from heading(
        "cmemu_nb.testing", sorted(name for name, each in vars(testing).items() if is_own(each, testing))
    )
    yield from heading("%cmemu", [f"{name}{arguments(parser_of(name))}" for name in COMMANDS])
    yield from heading("cell magics", [described(parser_in(read)) for read in (parse_cell_line, parse_module_line)])
    parser, commands = cli._parsers()  # noqa: SLF001
    yield from heading("cmemu", [described(each) for each in (parser, *commands.values())])
    yield from heading("routes", [f"{route.method} {route.path}" for route in ROUTES])
    yield from heading("event kinds", KINDS)


def heading(title: str, names: Any) -> Iterator[str]:
    yield f"# {title}"
    yield from names
    yield ""


def own_bases(kind: type) -> list[str]:
    """Return the nearest classes that a class is one of, and that people can name: public ones and Python's own."""
    named = [each for each in kind.__mro__[1:-1] if each in PUBLIC or each.__module__ == "builtins"]
    return [each.__name__ for each in named if not any(issubclass(other, each) for other in named if other is not each)]


def members(kind: type) -> list[str]:
    """Return the public members that a class has, wherever they are written, but for those of its public bases.

    Of those that people make, how they are made is among them.
    """
    nearer = takewhile(lambda each: each is kind or each not in PUBLIC, kind.__mro__)
    owners = [each for each in nearer if each.__module__.startswith("cmemu_nb")]
    names = {name for owner in owners for name in vars(owner) if not name.startswith("_")}
    made = {"__init__"} & set(vars(kind)) if kind in MADE else set()
    return [f".{name}{shape(inspect.getattr_static(kind, name))}" for name in sorted(names | made)]


def shape(member: Any) -> str:
    if isinstance(member, property):
        return f": {returned(member.fget)}{', can be set' if member.fset else ''}"
    if isinstance(member, cached_property):
        return f": {returned(member.func)}"
    if isinstance(member, (classmethod, staticmethod)):
        return f"{inspect.signature(member.__func__)}  # {type(member).__name__}"
    return str(inspect.signature(member)) if inspect.isfunction(member) else ""


def returned(function: Any) -> str:
    return str(inspect.signature(function).return_annotation)


def settings() -> Iterator[str]:
    for name, trait in sorted(Settings.class_traits(config=True).items()):
        yield f"{name}: {type(trait).__name__} = {trait.default_value!r}"


def of_errors() -> Iterator[str]:
    for kind in ERRORS:
        on_wire = f" {kind.status} {kind.code}" if issubclass(kind, WireError) else ""
        yield f"{kind.__name__}({', '.join(own_bases(kind))}){on_wire}"
        yield from (each for each in members(kind) if each not in {".status", ".code"})


def is_own(thing: Any, module: Any) -> bool:
    return inspect.isclass(thing) and thing.__module__ == module.__name__ and not thing.__name__.startswith("_")


def parser_in(read: Callable[[str], Any]) -> argparse.ArgumentParser:
    """Return the parser that a function makes for itself."""
    seen: list[argparse.ArgumentParser] = []

    def parse_args(parser: argparse.ArgumentParser, _: Any) -> argparse.Namespace:
        seen.append(parser)
        return argparse.Namespace()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        read("")
    return seen[0]


def described(parser: argparse.ArgumentParser) -> str:
    return f"{parser.prog}{arguments(parser)}"


def arguments(parser: argparse.ArgumentParser) -> str:
    """Return what a parser takes: options with their values, positionals, and what may be chosen."""
    return "".join(f"\n    {argument(each)}" for each in parser._actions)  # noqa: SLF001


def argument(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or action.dest
    takes = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    many = f" nargs={action.nargs}" if action.nargs not in {None, 0} else ""
    chosen = f" of {', '.join(map(str, action.choices))}" if action.choices else ""
    return f"{name}{takes if action.option_strings else ''}{many}{chosen}{' required' if action.required else ''}"


def written() -> str:
    return "\n".join(lines())


def test_the_public_names_and_signatures_are_those_that_were_promised() -> None:
    promised, there = NAMES.read_text("utf-8").splitlines(), written().splitlines()
    difference = [each for each in difflib.ndiff(promised, there) if each.startswith(("- ", "+ "))]
    assert not difference, "\n".join(
        [
            "Public names or signatures are others than in tests/public_names.txt (-: there, +: in the code now).",
            "If that is meant, write it anew with `python tests/test_public_names.py`, and say it in the changelog.",
            *difference,
        ]
    )


if __name__ == "__main__":
    NAMES.write_text(written(), "utf-8")
