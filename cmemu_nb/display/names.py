"""The emulators of this process by the names that the magics know them by: those of the notebook's variables."""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING

from cmemu_nb.eventloop.shell import cell_is_running

if TYPE_CHECKING:
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


def magic_line(name: str, command: str) -> str:
    """Return a command of `%cmemu` for the emulator of a name, for hints of what to type."""
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
        started_in_cells().add(emulator)


def started_in_cells() -> weakref.WeakSet[Emulator]:
    """Return those that were started in cells; it is kept as the registry is."""
    started: weakref.WeakSet[Emulator] = sys.__dict__.setdefault("_cmemu_nb_started_in_cells", weakref.WeakSet())
    return started
