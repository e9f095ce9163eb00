"""The emulator of the fixture `cmemu`: it can be emptied, and its session is exported when a test fails."""

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
from cmemu_nb.wire.json_values import encodable
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
    "The emulator can't be emptied: a callback of on_event() does not return and blocks the emulator's event loop. "
    "End what the callback waits for, or make it async and use 'await'."
)
LOG_LINES = 200
MAX_NAME = 120
NOT_IN_NAMES = re.compile(r"[^\w.=-]+", re.ASCII)


class EmulatorForTests(Emulator):
    """An emulator that can be emptied, so that no test sees the records of another one.

    `launched` has the modules that were launched since it was last emptied; `stuck` is whether the last attempt to
    empty it failed.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.launched: list[LaunchedModule] = []
        self._as_set = self._settings()
        self._listeners: list[Callable[[], None]] = []
        self.stuck = False

    def on_event(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Subscribe as `Emulator.on_event` does, until the emulator is emptied."""
        unsubscribe = super().on_event(callback)
        self._listeners.append(unsubscribe)
        return unsubscribe

    def launch(self, *args: Any, **options: Any) -> LaunchedModule:
        """Launch as `Emulator.launch` does, and record the module for the report of the test."""
        self.launched.append(super().launch(*args, **options))
        return self.launched[-1]

    def contents(self) -> Contents:
        """Return all records, as `export()` writes them, even while a callback blocks the event loop."""
        if self.running and not self._responds():
            return session_file.contents(self.lifecycle, self.url, self.looked_at(), self.steady_at())
        return self._contents()

    def clear(self) -> None:
        """Delete every runtime, job, app, schema, dataset, stream, event, listener, fault, program and function.

        Settings are restored, and a stopped emulator is started again. A function that is still running can't be
        ended, but its result is ignored. Raises `HomeError` while a callback of `on_event` does not return.
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
        responded = threading.Event()
        self.home.loop.call_soon_threadsafe(responded.set)
        self.stuck = not responded.wait(0 if self.stuck else STUCK_SECONDS)
        return not self.stuck

    async def _clear(self) -> None:
        for unsubscribe in self._listeners:
            unsubscribe()
        self._listeners.clear()
        await self._engine.listeners.cancel_deliveries(LISTENERS_SECONDS)
        await self.faults.stopping(ENDED)
        await self.end_modules(ENDED)
        self.lifecycle.reset()
        await self._handle_pending_requests()
        self.lifecycle.events.clear()
        await self._engine.identity.written()

    async def _handle_pending_requests(self) -> None:
        """Let held polls be answered, and requests be handled that clients of this process sent before they closed."""
        client = HttpClient(self.url)
        try:
            await client.request("GET", RUNTIMES, {"Authorization": f"Bearer {self.token}"})
        finally:
            client.close()

    def _settings(self) -> dict[str, Any]:
        values: dict[str, Any] = self.settings.trait_values(config=True)
        return {name: list(value) if isinstance(value, list) else value for name, value in values.items()}


class Watch:
    """What the report of a failed test says about its emulator. `folder` is where the session is exported, or None."""

    written: ClassVar[Counter[str]] = Counter()

    def __init__(self, emulator: EmulatorForTests, folder: Path | None) -> None:
        self._emulator = emulator
        self._folder = folder
        self._logs: list[tuple[str, str]] | None = None
        self._last: Contents | None = None

    def keep(self) -> None:
        """Record the state at the end of the test, for a teardown that fails after the emulator was emptied."""
        self._logs = self._logs_now()
        self._last = self._emulator.contents() if self._folder else None

    def sections(self, test_id: str, phase: str) -> list[tuple[str, str]]:
        """Export the session, and return the sections for the report of a failed test, as pairs of title and text."""
        sections = self._logs_now() if self._logs is None else list(self._logs)
        if self._folder:
            sections.append(("cmemu: exported session", self._export(test_id, phase)))
        # pytest-xdist sends the sections to another process, and can't encode lone surrogates.
        return [(title, encodable(text)) for title, text in sections]

    def _logs_now(self) -> list[tuple[str, str]]:
        modules = self._emulator.launched
        return [(f"cmemu: output of runtime {each.runtime_id}", each.logs.tail(LOG_LINES)) for each in modules]

    def _export(self, test_id: str, phase: str) -> str:
        try:
            path = self._write(test_id, phase)
        except Exception as error:  # noqa: BLE001 - an error here must not hide the failure of the test
            return f"It could not be written: {type(error).__name__}: {error}"
        return f"{path}\nTo inspect it: Emulator.from_export({str(path)!r})"

    def _write(self, test_id: str, phase: str) -> Path:
        assert self._folder is not None  # noqa: S101 - without a folder nothing is exported
        name = file_name(test_id, phase, os.environ.get("PYTEST_XDIST_WORKER", ""))
        self.written[name] += 1
        suffix = f"-{self.written[name]}" if self.written[name] > 1 else ""
        path = self._folder / f"{name}{suffix}.json"
        self._folder.mkdir(parents=True, exist_ok=True)
        session_file.write(path, self._last or self._emulator.contents(), overwrite=True)
        return path


def file_name(test_id: str, phase: str, worker: str) -> str:
    """Return a file name, without extension, that is valid on every file system and different for each test."""
    readable = NOT_IN_NAMES.sub("-", test_id)[:MAX_NAME].strip("-.")
    digest = hashlib.sha256(test_id.encode(errors="replace")).hexdigest()[:8]
    return "-".join(filter(None, [readable, "" if phase == "call" else phase, worker, digest]))
