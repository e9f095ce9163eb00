"""The emulators of this process by the names that the magics know them by: those of the notebook's variables."""

from __future__ import annotations

import sys
import time
import weakref
from typing import TYPE_CHECKING

from cmemu_nb.errors import HomeError
from cmemu_nb.eventloop.shell import cell_is_running

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from cmemu_nb.emulator import Emulator

USUAL_NAME = "emu"


def emulators() -> dict[str, Emulator]:
    """Return the registry itself. It is kept on `sys`, where neither a reload nor %autoreload wipes it."""
    registry: dict[str, Emulator] = sys.__dict__.setdefault("_cmemu_nb_emulators", {})
    return registry


def running_emulators() -> list[Emulator]:
    """Return those that run, each once."""
    return [each for each in dict.fromkeys(emulators().values()) if each.running]


def name_of(emulator: Emulator) -> str:
    """Return the variable that holds an emulator, for hints of what to type; `emu` for one that no name is known of."""
    return next((name for name, each in emulators().items() if each is emulator), USUAL_NAME)


def magic_line(emulator: Emulator, command: str) -> str:
    """Return a command of `%cmemu` for an emulator, for hints of what to type: with its name, unless that is `emu`."""
    name = name_of(emulator)
    return f"%cmemu {command}" if name == USUAL_NAME else f"%cmemu {command} --name {name}"


def forget(emulator: Emulator) -> None:
    """Take an emulator's names from it."""
    for name in [name for name, each in emulators().items() if each is emulator]:
        del emulators()[name]


def started_by_magics() -> weakref.WeakSet[Emulator]:
    """Return those that `%cmemu start` made; it is kept as the registry is."""
    started: weakref.WeakSet[Emulator] = sys.__dict__.setdefault("_cmemu_nb_started_by_magics", weakref.WeakSet())
    return started


def note_start(emulator: Emulator) -> None:
    """Note an emulator that was started in a cell, in which its variable may never get it: an interrupt is enough."""
    if cell_is_running():
        _started_in_cells().add(emulator)


def _started_in_cells() -> weakref.WeakSet[Emulator]:
    started: weakref.WeakSet[Emulator] = sys.__dict__.setdefault("_cmemu_nb_started_in_cells", weakref.WeakSet())
    return started


class Names:
    """Keeps the registry in step with a notebook's variables.

    An emulator keeps its name when the variable is deleted or holds something else: `%cmemu` still finds it.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._noted_at = time.monotonic_ns()

    def note(self, *_: object) -> None:
        """Register the running emulators that variables hold, and leave none that a cell has started without a name.

        One whose variable holds another emulator, which was started since this was called last, is stopped: a cell
        with `emu = Emulator().start()` was run again. Otherwise it gets another name. Either is printed.
        """
        before_last, self._noted_at = self._noted_at, time.monotonic_ns()
        since_last = self._noted_at - before_last
        held = self._held()
        for name, emulator in held.items():
            before = emulators().get(name)
            emulators()[name] = emulator
            if before is not None and before.running and before not in held.values():
                _replaced(before, name, stop=emulator.uptime < since_last)
        named = set(emulators().values())
        for emulator in [each for each in _started_in_cells() if each.running and each not in named]:
            emulators()[f"{USUAL_NAME}_{emulator.port}"] = emulator

    def _held(self) -> dict[str, Emulator]:
        """Return the running emulators that variables hold, by name; IPython's own variables begin with `_`."""
        from cmemu_nb.emulator import Emulator  # noqa: PLC0415 - which may have been reloaded

        found = {name: each for name, each in list(self._shell.user_ns.items()) if issubclass(type(each), Emulator)}
        return {name: each for name, each in found.items() if each.running and not name.startswith("_")}


def _replaced(emulator: Emulator, name: str, *, stop: bool) -> None:
    """Stop an emulator that no variable holds any more, or give it another name, and print which."""
    message = f"The emulator at {emulator.url} {{}}, because the variable {name!r} holds another one now."
    if stop:
        try:
            emulator.stop()
        except HomeError as error:
            print(error, file=sys.stderr)  # noqa: T201
        else:
            forget(emulator)
            print(message.format("was stopped"), "%cmemu start gives the same one whenever it is run.", file=sys.stderr)  # noqa: T201
            return
    other = f"{name}_{emulator.port}"
    emulators()[other] = emulator
    print(message.format(f"is now called {other!r}"), f"%cmemu stop --name {other} stops it.", file=sys.stderr)  # noqa: T201
