"""The registry of the emulators of this process, by the names of the notebook's variables that hold them."""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING

from cmemu_nb.eventloop.shell import cell_is_running

if TYPE_CHECKING:
    from cmemu_nb.emulator import Emulator

USUAL_NAME = "emu"


def emulators() -> dict[str, Emulator]:
    """Return the registry itself. It is stored on `sys`, where neither a reload nor %autoreload deletes it."""
    registry: dict[str, Emulator] = sys.__dict__.setdefault("_cmemu_nb_emulators", {})
    return registry


def running_emulators() -> list[Emulator]:
    """Return the emulators that run, each once."""
    return [each for each in dict.fromkeys(emulators().values()) if each.running]


def name_of(emulator: Emulator) -> str:
    """Return the name of the variable that holds an emulator, for hints of what to type; `emu` if none is known."""
    return next((name for name, each in emulators().items() if each is emulator), USUAL_NAME)


def magic_line(name: str, command: str) -> str:
    """Return a `%cmemu` command for the emulator with this name, for hints of what to type."""
    return f"%cmemu {command}" if name == USUAL_NAME else f"%cmemu {command} --name {name}"


def forget(emulator: Emulator) -> None:
    """Remove an emulator from the registry."""
    for name in [name for name, each in emulators().items() if each is emulator]:
        del emulators()[name]


def started_by_magics() -> weakref.WeakSet[Emulator]:
    """Return the emulators that `%cmemu start` created; the set is stored like the registry."""
    started: weakref.WeakSet[Emulator] = sys.__dict__.setdefault("_cmemu_nb_started_by_magics", weakref.WeakSet())
    return started


def note_start(emulator: Emulator) -> None:
    """Remember an emulator started in a cell: after an interrupt of the cell no variable may hold it."""
    if cell_is_running():
        started_in_cells().add(emulator)


def started_in_cells() -> weakref.WeakSet[Emulator]:
    """Return the emulators that were started in cells; the set is stored like the registry."""
    started: weakref.WeakSet[Emulator] = sys.__dict__.setdefault("_cmemu_nb_started_in_cells", weakref.WeakSet())
    return started
