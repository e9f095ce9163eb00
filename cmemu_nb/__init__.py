"""Prototype function executors for Foundry compute modules in a notebook.

`%load_ext cmemu_nb` and `%cmemu start` in a notebook, `with Emulator() as emu:` elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from cmemu_nb.emulator import Emulator

__all__ = ["Emulator", "__version__", "load_ipython_extension", "unload_ipython_extension"]


if not TYPE_CHECKING:  # type checkers would otherwise accept every misspelt name

    def __getattr__(name: str) -> object:
        """Import the emulator at its first use: the pytest plugin imports this package in every run of pytest."""
        if name != "Emulator":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from cmemu_nb.emulator import Emulator  # noqa: PLC0415

        globals()[name] = Emulator
        return Emulator


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
