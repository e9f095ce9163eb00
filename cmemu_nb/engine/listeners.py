"""Listeners: callbacks of the user that an emulator calls after each event."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from typing import TYPE_CHECKING

from cmemu_nb.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.lifecycle.events import Event


class Listeners:
    """The listeners of one emulator. They are called on its loop, in a separate task for each event."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._deliveries: set[asyncio.Task[None]] = set()

    def add(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call `callback(event)` after each event, and return a function that removes the callback."""
        if not callable(callback):
            raise InvalidRequest(
                f"A listener must be callable, not {callback!r}. Give a function that takes one event."
            )
        return self._engine.lifecycle.events.subscribe(lambda event: self._deliver(callback, event))

    def _deliver(self, callback: Callable[[Event], object], event: Event) -> None:
        async def call() -> None:
            try:
                answer = callback(event)
                if inspect.isawaitable(answer):
                    await answer
            except asyncio.CancelledError:
                raise
            except BaseException:  # noqa: BLE001 - no error of a listener may stop the emulator
                self._engine.lifecycle.note("listener_failed", event.runtime_id, event.job_id, traceback.format_exc())

        if self._engine.running and event.kind != "listener_failed":
            task = self._engine.home.loop.create_task(call())
            self._deliveries.add(task)
            task.add_done_callback(self._deliveries.discard)

    async def cancel_deliveries(self, seconds: float) -> None:
        """Cancel the listeners that are running, and wait at most `seconds` until they have ended."""
        deliveries = list(self._deliveries)
        for delivery in deliveries:
            delivery.cancel()
        if deliveries:
            await asyncio.wait(deliveries, timeout=seconds)
