"""Every public name explains itself, and what it shows as an example is what happens.

The examples have an emulator `emu` that serves `add` and `words`, and `app.py` beside them; `Emulator(port=0)` makes
another one on a free port.
"""

from __future__ import annotations

import asyncio
import doctest
import importlib
import inspect
import pkgutil
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import cmemu_nb
from cmemu_nb import Emulator, errors, pytest_plugin
from cmemu_nb.calls.handles import JobHandle, RuntimeHandle
from cmemu_nb.calls.streams import ItemStream
from cmemu_nb.engine.fault_injection import FaultInjection
from cmemu_nb.executors.cells.functions import Functions
from cmemu_nb.executors.modules.environment import ModuleEnvironment
from cmemu_nb.executors.modules.forwarders import Forwarders
from cmemu_nb.executors.modules.modules import Launch, LaunchedModule
from cmemu_nb.notebook import topics
from cmemu_nb.server.faults import Faults
from cmemu_nb.settings import LISTS, SECONDS, Settings
from cmemu_nb.tokens import Token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cmemu_nb.testing import EmulatorForTests

pytestmark = pytest.mark.long_lived

HELD = [
    *(Emulator, RuntimeHandle, JobHandle, ItemStream, LaunchedModule, ModuleEnvironment),
    *(Faults, FaultInjection, Functions),
]
NOT_IMPORTED = ("__main__", "nanny")  # programs
MEMBERS = (property, cached_property, classmethod, staticmethod)
EXAMPLES = 25


SERVED = """
from collections.abc import Iterable
from dataclasses import dataclass

@dataclass
class Numbers:
    x: int
    y: int = 1

@dataclass
class Words:
    text: str

@emu.function
def add(context, event: Numbers) -> int:
    print("adding", event)
    return event.x + event.y

@emu.function(streaming=True)
def words(context, event: Words) -> Iterable[str]:
    yield from event.text.split()
"""


def modules() -> list[Any]:
    names = [each.name for each in pkgutil.walk_packages(cmemu_nb.__path__, "cmemu_nb.")]
    return [cmemu_nb, *(importlib.import_module(name) for name in names if name.split(".")[-1] not in NOT_IMPORTED)]


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for module in modules() for test in finder.find(module, module.__name__) if test.examples]
    assert len(found) >= EXAMPLES
    return found


def public_members(kind: type) -> Iterator[tuple[str, Any]]:
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, MEMBERS)):
            yield name, member


def explained(thing: Any) -> bool:
    """Tell whether something has a docstring of its own, which is a sentence or more."""
    own = thing.fget if isinstance(thing, property) else getattr(thing, "func", getattr(thing, "__func__", thing))
    return str(own.__doc__ or "").strip().partition("\n")[0].endswith((".", ":"))


# Docstrings


@pytest.mark.parametrize("kind", HELD, ids=lambda kind: kind.__name__)
def test_every_public_member_explains_itself(kind: type) -> None:
    assert explained(kind)
    unexplained = [name for name, member in public_members(kind) if not explained(member)]
    assert [name for name in unexplained if not hasattr(dict, name)] == []


def test_every_name_of_the_package_and_every_fixture_explains_itself() -> None:
    names = {name: getattr(cmemu_nb, name) for name in cmemu_nb.__all__ if name != "__version__"}
    assert [name for name, thing in names.items() if not explained(thing)] == []
    assert [name for name, thing in vars(pytest_plugin).items() if name.startswith("cmemu") and not thing.__doc__] == []


def test_every_error_explains_itself() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    kinds += [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Warning)]
    assert [kind.__name__ for kind in kinds if not explained(kind)] == []
    assert [kind.__name__ for kind in kinds if kind.__name__ not in str(errors.__doc__)] == []


def test_what_an_object_holds_is_in_its_classs_words(names: dict[str, Any]) -> None:
    emu = names["emu"]
    runtime = emu.open_runtime("my-runtime")
    job = runtime.enqueue("f")
    with emu.faults(error_rate=1) as faults:
        held = [Emulator(port=0), runtime, job, job.stream(), faults, emu.faults, emu.functions]
    held.append(LaunchedModule(emu, Forwarders(emu, lambda _: None), runtime.id, Launch(["python", "app.py"])))
    for thing in held:
        attributes = [name for name in vars(thing) if not name.startswith("_") and name not in dir(type(thing))]
        assert [name for name in attributes if f"`{name}`" not in str(type(thing).__doc__)] == [], type(thing)


@pytest.mark.parametrize("kind", HELD, ids=lambda kind: kind.__name__)
def test_every_time_has_a_unit(kind: type) -> None:
    for name, member in public_members(kind):
        if inspect.isfunction(member) and "timeout" in inspect.signature(member).parameters:
            text = str(member.__doc__)
            assert "seconds" in text or f"`{name[1:]}()`" in text, name


def test_every_setting_has_help_with_a_unit_and_is_in_the_emulators_words() -> None:
    for name, trait in Settings.class_traits(config=True).items():
        assert trait.help.endswith("."), name
        assert f"`{name}`" in str(Emulator.__doc__), name
        assert name not in SECONDS or trait.help.startswith("Seconds"), name
        assert not name.endswith("bytes") or "bytes" in trait.help, name
    assert set(LISTS) | set(SECONDS) <= set(Settings.class_trait_names(config=True))


def test_the_emulators_words_name_every_member_of_it() -> None:
    unnamed = [name for name, _ in public_members(Emulator) if f"`{name}`" not in str(Emulator.__doc__)]
    assert unnamed == []


def test_every_error_that_a_docstring_names_exists() -> None:
    known = {name for module in modules() for name in vars(module)}
    for kind in HELD:
        for name, member in public_members(kind):
            named = {word.strip("`.,;") for word in str(member.__doc__).split() if word.startswith("`")}
            wrong = {word for word in named if word.isidentifier() and word[0].isupper() and word not in known}
            assert wrong <= {"True", "False", "None", "CI", "GET"}, name


# Examples


@pytest.fixture(scope="module")
def _served() -> Iterator[EmulatorForTests]:
    from cmemu_nb.testing import EmulatorForTests  # noqa: PLC0415

    with EmulatorForTests(port=0, home="thread") as emulator:
        yield emulator
        emulator.clear()


@pytest.fixture
def names(_served: EmulatorForTests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the examples may use; the emulator is empty but for two functions."""
    monkeypatch.chdir(tmp_path)
    code = topics.read("testing").partition("# app.py\n")[2].partition("```")[0]
    (tmp_path / "app.py").write_text(code, "utf-8")
    _served.clear()
    names = {each.__name__: each for each in (asyncio, Emulator, ModuleEnvironment, Token)} | {"emu": _served}
    # Without this file's __future__, which the SDK could not read.
    exec(compile(SERVED, "served", "exec", dont_inherit=True), names)
    return names


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_every_example_is_true(example: doctest.DocTest, names: dict[str, Any]) -> None:
    example.globs = names
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    with pd.option_context("display.width", 120):
        runner.run(example, out=said.append)
    assert not said, "".join(said)
