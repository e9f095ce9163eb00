"""Prototype function executors for Foundry compute modules in a notebook.

`%load_ext cmemu_nb` and `%cmemu start` in a notebook, `with Emulator() as emu:` elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from cmemu_nb.emulator import Emulator
    from cmemu_nb.lifecycle.scaling import Scaling

__all__ = ["Emulator", "Scaling", "__version__", "load_ipython_extension", "unload_ipython_extension"]


if not TYPE_CHECKING:  # type checkers would otherwise accept every misspelt name

    def __getattr__(name: str) -> object:
        """Import a class at its first use: the pytest plugin imports this package in every run of pytest."""
        if name == "Emulator":
            from cmemu_nb.emulator import Emulator as found  # noqa: N813, PLC0415
        elif name == "Scaling":
            from cmemu_nb.lifecycle.scaling import Scaling as found  # noqa: N813, PLC0415
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register `%cmemu` (`%load_ext cmemu_nb`). Starts nothing."""
    from cmemu_nb.notebook import magics  # noqa: PLC0415 - IPython is imported only where it runs

    magics.load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove the magics and stop the emulators that they started (`%unload_ext cmemu_nb`)."""
    from cmemu_nb.notebook import magics  # noqa: PLC0415

    magics.unload(shell)
