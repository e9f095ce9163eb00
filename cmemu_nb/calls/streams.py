"""The iterator over the items of a streaming function's result, each available as it arrives."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from cmemu_nb.calls.diagnosis import error_if_cleared
from cmemu_nb.errors import CmemuError, FunctionError, JobFailed, NotFound, NotRunning, ResultError, ResultWarning
from cmemu_nb.tracebacks import warn_user
from cmemu_nb.wire.item_reader import NUMBERS, ItemReader
from cmemu_nb.wire.results import BARE_NUMBERS, constant_in, error_for_people, function_error, item_value

if TYPE_CHECKING:
    from cmemu_nb.calls.interrupts import Interruptible
    from cmemu_nb.executors.executors import Executors


class ItemStream:
    """An iterator (`for` and `async for`) over the items of the result of the job `job_id`; `close()` ends it."""

    def __init__(self, executors: Executors, job_id: str, interruptible: Interruptible) -> None:
        self._executors = executors
        self._engine = executors.engine
        self._home = executors.engine.home
        self.job_id = job_id
        self._interruptible = interruptible
        job = executors.engine.lifecycle.job(job_id)
        streaming = executors.functions.streams(job.runtime_id, job.query_type)
        self._reader = ItemReader(streaming=streaming, plain_text=True)
        # As JSON text: the caller's thread parses them, because the loop has other clients to serve.
        self._items: deque[bytes] = deque()
        self._begun = False
        self._error: ResultError | None = None
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        self._interruptible.watch_cell()
        text = self._arrived_item() or self._interruptible.run(self._next())
        if text is None:
            raise StopIteration
        try:
            return _value_of_item(text)
        except ResultError:
            self.close()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        self._interruptible.watch_cell()
        text = self._arrived_item()
        if text is None:
            text = await self._interruptible.arun(self._next())
        else:
            await asyncio.sleep(0)  # the loop may be the kernel's, which has other tasks to run
        if text is None:
            raise StopAsyncIteration
        try:
            return _value_of_item(text)
        except ResultError:
            await self._home.arun(self._close())
            raise

    def _arrived_item(self) -> bytes | None:
        """Return the next item if it has arrived and is known to be no error, else None; any thread may call this."""
        return self._items.popleft() if self._begun and self._items else None

    def close(self) -> None:
        """Stop receiving items; the job continues."""
        self._home.run(self._close())

    # On the emulator's loop

    async def _next(self) -> bytes | None:
        """Return the JSON text of the next item, None after the last one."""
        if self._task is None:
            self._task = asyncio.create_task(self._read())
            # After an interrupt nothing asks for another item: retrieve the error, or asyncio would log it.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        # The first item may be the error of a function that raised. It is one only if no other item follows.
        await self._until_arrived(1)
        error = None if self._begun or not self._items else function_error(self._items[0])
        if error is not None:
            await self._until_arrived(2)
            if len(self._items) == 1:
                self._items.clear()
                raise FunctionError(error_for_people(error, self._engine.lifecycle.log(self.job_id).explanation))
        self._begun = True
        if self._items:
            return self._items.popleft()
        if not self._task.cancelled():
            self._task.result()
        return None

    async def _until_arrived(self, items: int) -> None:
        while len(self._items) < items and self._task is not None and not self._task.done():
            self._arrived.clear()
            await self._arrived.wait()

    async def _read(self) -> None:
        try:
            await self._engine.client.stream(self.job_id, self._receive)
            self._items.extend(self._last_items())
        except NotRunning as error:
            raise self._error_of_job(error) from None
        except (NotFound, JobFailed) as error:
            raise error_if_cleared(self._executors, self.job_id) or error from None
        except asyncio.CancelledError:
            if self._error is None:
                raise
            raise self._error from None
        finally:
            # The waiter checks whether the task is done, which it is only one step of the loop later.
            asyncio.get_running_loop().call_soon(self._arrived.set)

    def _last_items(self) -> list[bytes]:
        """Return what only the end of the result completes: a number, which in a stream may have been several."""
        items = self._reader.split_end()
        job = self._engine.lifecycle.find_job(self.job_id)
        if job is not None and job.streamed and items and items[0][:1] in NUMBERS:
            raise ResultError(BARE_NUMBERS)
        return items

    def _receive(self, piece: bytes) -> None:
        if self._error is not None or self._task is None:
            return
        try:
            self._items.extend(self._reader.split(piece))
        except ResultError as error:
            # If it were raised here, Tornado would log it as an uncaught exception.
            self._error = error
            self._task.cancel()
        self._arrived.set()

    def _error_of_job(self, error: NotRunning) -> CmemuError:
        job = self._engine.lifecycle.find_job(self.job_id)
        return JobFailed(job.error_message) if job is not None and job.error_message else error

    async def _close(self) -> None:
        self._items.clear()
        if self._task is not None:
            self._task.cancel()


def _value_of_item(text: bytes) -> Any:
    value = item_value(text)
    warn_of_constant(text)
    return value


def warn_of_constant(text: bytes) -> None:
    """Warn if a result that Python can read as JSON contains NaN or Infinity, which other clients can't read."""
    if constant := constant_in(text):
        warn_user(
            ResultWarning(
                f"The result contains {constant}, which JSON has no value for: the functions routes refuse it with "
                "InvalidQueryOutputValue, and most other clients can't read it. Return None or text instead."
            )
        )
