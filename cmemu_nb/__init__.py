"""Prototype function executors for Foundry compute modules in a notebook.

`%load_ext cmemu_nb` and `%cmemu start` in a notebook, `with Emulator() as emu:` elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.emulator import Emulator
from cmemu_nb.version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Emulator", "__version__", "load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register `%cmemu` (`%load_ext cmemu_nb`). Starts nothing."""
    from cmemu_nb.notebook import magics  # noqa: PLC0415 - IPython is imported when there is one

    magics.load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Undo everything (`%unload_ext cmemu_nb`): the magic and the emulators that it started."""
    from cmemu_nb.notebook import magics  # noqa: PLC0415

    magics.unload(shell)
