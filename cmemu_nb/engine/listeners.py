"""Functions of a person's own that an emulator calls when something happens."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from typing import TYPE_CHECKING

from cmemu_nb.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.eventloop.home import Home
    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.lifecycle import Lifecycle


class Callbacks:
    """What an emulator calls. It is called on the emulator's loop, as tasks that `_deliveries` keeps."""

    lifecycle: Lifecycle
    _home: Home | None
    _deliveries: set[asyncio.Task[None]]

    def on_event(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call `callback(event)` after each thing that happens; returns the function that ends it.

        It is called on the emulator's loop, after whatever caused the event was answered; an `async def` is run as
        a task. What it raises becomes an event, `listener_failed`, which no listener is called for. Raises
        `InvalidRequest` for what can't be called.
        """
        if not callable(callback):
            raise InvalidRequest(f"A listener must be callable, not {callback!r}. Give a function of one event.")
        return self.lifecycle.events.subscribe(lambda event: self._deliver(callback, event))

    def _deliver(self, callback: Callable[[Event], object], event: Event) -> None:
        async def tell() -> None:
            try:
                answer = callback(event)
                if inspect.isawaitable(answer):
                    await answer
            except asyncio.CancelledError:
                raise
            except BaseException:  # noqa: BLE001 - whatever a listener does, the emulator goes on
                self.lifecycle.note("listener_failed", event.runtime_id, event.job_id, traceback.format_exc())

        if self._home is not None and event.kind != "listener_failed":
            task = self._home.loop.create_task(tell())
            self._deliveries.add(task)
            task.add_done_callback(self._deliveries.discard)
