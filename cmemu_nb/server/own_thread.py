"""Work off the event loop, in a thread that ends with the work, unlike the threads of the loop's own executor."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")


@contextmanager
def own_thread(name: str) -> Iterator[Callable[[Callable[[], T]], Awaitable[T]]]:
    """Yield a function that runs another one in a thread of its own, and returns an awaitable of its result."""
    thread = ThreadPoolExecutor(1, name)
    loop = asyncio.get_running_loop()
    try:
        yield lambda work: loop.run_in_executor(thread, work)
    finally:
        thread.shutdown(wait=False)


async def in_own_thread(name: str, work: Callable[[], T]) -> T:
    """Return what `work()` returns in a thread of its own."""
    with own_thread(name) as run:
        result: T = await run(work)
    return result
