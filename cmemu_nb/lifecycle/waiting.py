"""Waiting for what events bring about."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.lifecycle.lifecycle import Lifecycle


async def until(lifecycle: Lifecycle, condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is so, which is looked at after every event; False when the time is over."""
    changed = asyncio.Event()
    unsubscribe = lifecycle.events.subscribe(lambda _: changed.set())
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                changed.clear()
                await changed.wait()
    except TimeoutError:
        return False
    finally:
        unsubscribe()
    return True
