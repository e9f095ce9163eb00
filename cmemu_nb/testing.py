"""The emulator behind the fixture `cmemu`: one that can be emptied, and is written down when its test fails."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

from cmemu_nb.clients.http import HttpClient
from cmemu_nb.emulator import Emulator
from cmemu_nb.errors import HomeError
from cmemu_nb.storage import session_file
from cmemu_nb.wire.paths import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cmemu_nb.executors.modules.modules import LaunchedModule
    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.storage.session_file import Contents

ENDED = "the test has ended"
LISTENERS_SECONDS = 1.0
STUCK_SECONDS = 5.0
STUCK = (
    "The emulator can't be emptied: a callback of on_event() does not return, so that it can do nothing else. "
    "End what the callback waits for, or let it wait with 'await'."
)
LOG_LINES = 200
LONGEST_NAME = 120
NOT_IN_NAMES = re.compile(r"[^\w.=-]+", re.ASCII)


class EmulatorForTests(Emulator):
    """An emulator that can be emptied: what one test does, the next one does not see.

    `launched` are the modules since it was emptied; `stuck` says that it could not be, when that was last tried.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.launched: list[LaunchedModule] = []
        self._as_set = self._settings()
        self._listeners: list[Callable[[], None]] = []
        self.stuck = False

    def on_event(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Do as the emulator does, until it is emptied."""
        end = super().on_event(callback)
        self._listeners.append(end)
        return end

    def launch(self, *args: Any, **options: Any) -> LaunchedModule:
        """Do as the emulator does, and remember the module for the report of its test."""
        self.launched.append(super().launch(*args, **options))
        return self.launched[-1]

    def contents(self) -> Contents:
        """Take a picture of all that there is, as `export()` writes it, whatever its callbacks do."""
        if self.running and not self._responds():
            return session_file.contents(self.lifecycle, self.url, self.looked_at(), self.steady_at())
        return self._contents()

    def clear(self) -> None:
        """Empty it: no runtime, job, app, schema, event, listener, fault, program or function of before is left.

        Settings are set back, and one that was stopped is started again. A function that still runs can't be ended;
        nothing more is heard of it. Raises `HomeError` while a callback of `on_event` does not return.
        """
        self.start()
        if not self._responds():
            raise HomeError(STUCK)
        self.home.run(self._clear())
        self.launched.clear()
        for name, value in self._as_set.items():
            setattr(self.settings, name, value)
        self._as_set = self._settings()

    def _responds(self) -> bool:
        turned = threading.Event()
        self.home.loop.call_soon_threadsafe(turned.set)
        self.stuck = not turned.wait(0 if self.stuck else STUCK_SECONDS)
        return not self.stuck

    async def _clear(self) -> None:
        for end in self._listeners:
            end()
        self._listeners.clear()
        await self._engine.listeners.cancel_deliveries(LISTENERS_SECONDS)
        await self.faults.stopping(ENDED)
        await self.end_modules(ENDED)
        self.lifecycle.reset()
        await self._hear_what_was_sent()
        self.lifecycle.events.clear()
        await self._engine.identity.written()

    async def _hear_what_was_sent(self) -> None:
        """Answer the polls that were held, and what clients of this process had sent before they were closed."""
        client = HttpClient(self.url)
        try:
            await client.request("GET", RUNTIMES, {"Authorization": f"Bearer {self.token}"})
        finally:
            client.close()

    def _settings(self) -> dict[str, Any]:
        values: dict[str, Any] = self.settings.trait_values(config=True)
        return {name: list(value) if isinstance(value, list) else value for name, value in values.items()}


class Watch:
    """One test and its emulator: what its report says when it fails. `folder` is where to export to, if at all."""

    written: ClassVar[Counter[str]] = Counter()

    def __init__(self, emulator: EmulatorForTests, folder: Path | None) -> None:
        self._emulator = emulator
        self._folder = folder
        self._logs: list[tuple[str, str]] | None = None
        self._last: Contents | None = None

    def keep(self) -> None:
        """Keep how it was at the end of the test, for what may fail after the emulator was emptied."""
        self._logs = self._logs_now()
        self._last = self._emulator.contents() if self._folder else None

    def sections(self, test_id: str, phase: str) -> list[tuple[str, str]]:
        """Export the session, and return what to add to the report of a failed test, as titles and texts."""
        sections = self._logs_now() if self._logs is None else list(self._logs)
        if self._folder:
            sections.append(("cmemu: exported session", self._export(test_id, phase)))
        # pytest-xdist, which sends them, takes no lone surrogates.
        return [(title, text.encode(errors="backslashreplace").decode()) for title, text in sections]

    def _logs_now(self) -> list[tuple[str, str]]:
        modules = self._emulator.launched
        return [(f"cmemu: output of runtime {each.runtime_id}", each.logs.tail(LOG_LINES)) for each in modules]

    def _export(self, test_id: str, phase: str) -> str:
        try:
            path = self._write(test_id, phase)
        except Exception as error:  # noqa: BLE001 - whatever is wrong here, the test's own failure is to be seen
            return f"It could not be written: {type(error).__name__}: {error}"
        return f"{path}\nLook at it: Emulator.from_export({str(path)!r})"

    def _write(self, test_id: str, phase: str) -> Path:
        assert self._folder is not None  # noqa: S101 - whoever has none exports nothing
        name = file_name(test_id, phase, os.environ.get("PYTEST_XDIST_WORKER", ""))
        self.written[name] += 1
        again = f"-{self.written[name]}" if self.written[name] > 1 else ""
        path = self._folder / f"{name}{again}.json"
        self._folder.mkdir(parents=True, exist_ok=True)
        session_file.write(path, self._last or self._emulator.contents(), overwrite=True)
        return path


def file_name(test_id: str, phase: str, worker: str) -> str:
    """Return a name for a file, without extension, that is any file system's and no other test's."""
    words = NOT_IN_NAMES.sub("-", test_id)[:LONGEST_NAME].strip("-.")
    digest = hashlib.sha256(test_id.encode(errors="replace")).hexdigest()[:8]
    return "-".join(filter(None, [words, "" if phase == "call" else phase, worker, digest]))
