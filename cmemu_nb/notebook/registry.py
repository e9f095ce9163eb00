"""The emulators that a notebook's variables hold, registered under the names of the variables."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from cmemu_nb.display.names import USUAL_NAME, emulators, forget, started_in_cells
from cmemu_nb.errors import HomeError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from cmemu_nb.emulator import Emulator


class Names:
    """Keeps the registry of emulators up to date with a notebook's variables.

    An emulator keeps its name when its variable is deleted or holds something else, so `%cmemu` still finds it.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._noted_at = time.monotonic_ns()

    def note(self, *_: object) -> None:
        """Register the running emulators that variables hold, and name those that no variable holds.

        If the variable of a running emulator now holds a different one, and the first was started since the last
        call, it is stopped: a cell with `emu = Emulator().start()` was run twice. Otherwise it is renamed. A message
        says which of the two was done.
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
        for emulator in [each for each in started_in_cells() if each.running and each not in named]:
            emulators()[f"{USUAL_NAME}_{emulator.port}"] = emulator

    def _held(self) -> dict[str, Emulator]:
        """Return the running emulators that variables hold, by name, without IPython's own variables (`_...`)."""
        from cmemu_nb.emulator import Emulator  # noqa: PLC0415 - the module may have been reloaded

        found = {name: each for name, each in list(self._shell.user_ns.items()) if issubclass(type(each), Emulator)}
        return {name: each for name, each in found.items() if each.running and not name.startswith("_")}


def _replaced(emulator: Emulator, name: str, *, stop: bool) -> None:
    """Stop an emulator that no variable holds any more, or rename it, and print which."""
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
