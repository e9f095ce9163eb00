"""The emulators that this process's magics started, by name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmemu_nb.emulator import Emulator


def emulators() -> dict[str, Emulator]:
    """Return the registry itself. It is kept on `sys`, where neither a reload nor %autoreload wipes it."""
    registry: dict[str, Emulator] = sys.__dict__.setdefault("_cmemu_nb_emulators", {})
    return registry
