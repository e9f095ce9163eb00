"""Listeners: functions of its user that an emulator calls when something happens."""

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
    """The listeners of one emulator. They are called on its loop, each event in a task of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._deliveries: set[asyncio.Task[None]] = set()

    def add(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call a function after each event; returns the function that ends this, as `Emulator.on_event` does."""
        if not callable(callback):
            raise InvalidRequest(f"A listener must be callable, not {callback!r}. Give a function of one event.")
        return self._engine.lifecycle.events.subscribe(lambda event: self._deliver(callback, event))

    def _deliver(self, callback: Callable[[Event], object], event: Event) -> None:
        async def call() -> None:
            try:
                answer = callback(event)
                if inspect.isawaitable(answer):
                    await answer
            except asyncio.CancelledError:
                raise
            except BaseException:  # noqa: BLE001 - whatever a listener does, the emulator goes on
                self._engine.lifecycle.note("listener_failed", event.runtime_id, event.job_id, traceback.format_exc())

        if self._engine.running and event.kind != "listener_failed":
            task = self._engine.home.loop.create_task(call())
            self._deliveries.add(task)
            task.add_done_callback(self._deliveries.discard)

    async def cancel_deliveries(self, seconds: float) -> None:
        """Cancel the listeners that are running, and wait until they have ended, so many seconds at most."""
        deliveries = list(self._deliveries)
        for delivery in deliveries:
            delivery.cancel()
        if deliveries:
            await asyncio.wait(deliveries, timeout=seconds)
