"""One job of a function in a cell, run in a thread; its result is posted on the emulator's loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from itertools import islice
from typing import TYPE_CHECKING, Any

from cmemu_nb.clients.received_job import not_posted, without_result
from cmemu_nb.errors import (
    CmemuError,
    InjectedFault,
    InvalidModuleAuthToken,
    JobAlreadyCompleted,
    JobEnded,
    JobNotRunning,
    JournalBehind,
    NotFound,
    NotRunning,
)
from cmemu_nb.eventloop.ending import Ending
from cmemu_nb.executors.cells.current_job import RUNNING
from cmemu_nb.executors.sdk.adapter import handle_job, posts
from cmemu_nb.executors.sdk.output import output_to
from cmemu_nb.lifecycle.lifecycle import BROKEN_OFF
from cmemu_nb.phrases import plural
from cmemu_nb.tracebacks import in_one_line, print_from_its_own_frame
from cmemu_nb.wire.labels import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cmemu_nb.calls.wait_line import WaitLine
    from cmemu_nb.clients.received_job import ReceivedJob
    from cmemu_nb.clients.runtime import RuntimeClient
    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.executors.cells.served import ServedFunction

MAX_SHOWN_OF_A_RESULT = 2048
MAX_MASKED_OF_A_RESULT = 65_536
MAX_RETRY_SECONDS = 1.0
# The job was failed, or its runtime reset, while the function ran.
ENDED_MEANWHILE = (JobAlreadyCompleted, JobNotRunning, NotFound, InvalidModuleAuthToken)


class JobThread:
    """Runs a job in a thread and posts its result, unless the job was ended meanwhile.

    A stream is posted from the thread. A whole result is posted on the emulator's loop, by the same callback that
    reports the thread's end, because every switch between threads costs as much as a request. `served` is None for a
    function that is not served.
    """

    def __init__(
        self,
        engine: Engine,
        client: RuntimeClient,
        served: ServedFunction | None,
        job: ReceivedJob,
        on_end: Callable[[JobThread], None],
        configured: dict[str, Any] | None,
    ) -> None:
        self._engine = engine
        self._client = client
        self._envelope = job.envelope()
        self._on_end = on_end
        self._configured = configured
        self._cleared = engine.lifecycle.events.cleared
        self._definition = served.definition if served else None
        self.served = served
        self.job_id = job.job_id
        self.name = f"cmemu-job-{job.query_type}"
        self.abandoned = False
        self.waits: list[WaitLine] = []
        """The calls of other functions that the job's function is waiting for."""
        self._to_post: Iterator[bytes] = iter(())
        self._finishing: asyncio.Task[None] | None = None
        self._failure = ""
        self._ending = Ending()

    # In the thread

    def run(self) -> None:
        """Run the function, in the calling thread."""
        RUNNING.set(self)
        self._ending.begin()
        try:
            # The first print creates the log: most functions print nothing, and their jobs are kept for long.
            log = functools.cache(functools.partial(self._engine.lifecycle.log, self.job_id))
            with output_to(lambda text: log().write(self._masked(text))), contextlib.suppress(NotRunning):
                self._handle()
        except BaseException as error:  # noqa: BLE001 - a job must end after any error, such as MemoryError
            self._failure = in_one_line(error)
        finally:
            with contextlib.suppress(NotRunning, RuntimeError):  # the emulator is stopped
                self._engine.home.loop.call_soon_threadsafe(self._finish_soon)

    def _handle(self) -> None:
        try:
            handle_job(self._definition, self._envelope, self._post, self._explain, self._ending, self._configured)
        except JobEnded:  # the job has ended already, so it needs no result
            pass
        except CmemuError as error:  # an error of posting: the function's own error is a result
            self._engine.home.run(self._fail_unposted(error))
        except BaseException as error:  # noqa: BLE001 - SystemExit ends the SDK's worker process, which posts nothing
            print_from_its_own_frame()
            reason = f"the function ended with {type(error).__name__}, for which the official SDK posts no result"
            self._engine.home.run(self._fail(reason))

    def _masked(self, text: str) -> str:
        """Return a text that the function prints, without the secrets that it was given, if it was given any."""
        given = "authHeader" in self._envelope["computeModuleJobV1"] or self._configured is not None
        return self._engine.lifecycle.events.masked(text) if given else text

    def _explain(self, why: str) -> None:
        self._engine.lifecycle.log(self.job_id).explain(why)

    @property
    def _forgotten(self) -> bool:
        """Whether the emulator's records were cleared since the job began, so that its end need not be reported."""
        return self._cleared != self._engine.lifecycle.events.cleared

    def _post(self, body: bytes | Iterable[bytes]) -> None:
        if self._forgotten:
            return
        if isinstance(body, bytes):
            self._to_post = posts(body)
        else:
            self._post_stream(body)

    def _post_stream(self, chunks: Iterable[bytes]) -> None:
        home = self._engine.home
        exchange = home.run(self._client.stream_result(self.job_id))
        sent = 0
        try:
            for chunk in chunks:
                if self.abandoned:
                    break
                home.run(exchange.send(chunk))
                sent += len(chunk)
            else:
                reply = home.run(exchange.end())
                if reply.status == InjectedFault.status:
                    # The SDK posts the same generator again, which is exhausted by then.
                    self._to_post = islice(posts(b""), 1, None)
                return
        except JobEnded:
            pass
        except NotRunning as error:
            home.run(self._fail_unposted(error))
        except BaseException as error:  # noqa: BLE001 - the function may raise any error
            print_from_its_own_frame()
            home.run(self._fail(f"{BROKEN_OFF} {plural(sent, 'byte')}: {in_one_line(error)}"))
        with contextlib.suppress(RuntimeError):  # the emulator was stopped, which closed every connection
            home.loop.call_soon_threadsafe(exchange.break_off)

    # On the emulator's loop

    def end(self, retry_in: float = 0.02) -> None:
        """End the function if it still runs, as soon as possible: C code ends when it returns to Python."""
        if not self._ending.request():
            next_retry_in = min(2 * retry_in, MAX_RETRY_SECONDS)
            self._engine.home.loop.call_later(retry_in, self.end, next_retry_in)

    def _finish_soon(self) -> None:
        self._finishing = asyncio.get_running_loop().create_task(self._finish())

    async def _finish(self) -> None:
        try:
            with contextlib.suppress(NotRunning):
                await self._post_whole()
        except Exception as error:  # noqa: BLE001 - after any error, the job has no result
            self._fail_at_once(not_posted(in_one_line(error)))
        else:
            if self._failure:
                self._fail_at_once(without_result(self._failure))
        finally:
            self._on_end(self)

    def _fail_at_once(self, reason: str) -> None:
        """Fail the job without an HTTP request, since requests may be what fails."""
        if not self.abandoned and not self._forgotten:
            with contextlib.suppress(CmemuError):
                self._engine.lifecycle.fail(self.job_id, reason)

    async def _post_whole(self) -> None:
        """Post one body after the other until one is accepted; if none is, the job stays running, as with the SDK."""
        broken: NotRunning | None = None
        for body in self._to_post:
            if self.abandoned:
                self._note_late(body)
                return
            try:
                await self._client.post_result(self.job_id, body)
            except ENDED_MEANWHILE:
                self._note_late(body)
                return
            except JournalBehind:  # the result is accepted, and written to the journal as soon as possible
                return
            except InjectedFault:
                broken = None
            except NotRunning as error:
                broken = error
            except CmemuError as error:
                await self._fail_unposted(error)
                return
            else:
                return
        if broken is not None:
            await self._fail_unposted(broken)

    def _note_late(self, body: bytes) -> None:
        if not self._forgotten:
            runtime_id = self.served.runtime_id if self.served else None
            masked = self._engine.lifecycle.events.masked(body[:MAX_MASKED_OF_A_RESULT].decode(errors="replace"))
            self._engine.lifecycle.note("late_result", runtime_id, self.job_id, masked[:MAX_SHOWN_OF_A_RESULT])

    async def _fail_unposted(self, error: CmemuError) -> None:
        """Fail the job because its result was not accepted, unless it has ended or the emulator is stopped."""
        if self._engine.running and not self.abandoned:
            await self._fail(not_posted(error))

    async def _fail(self, reason: str) -> None:
        if self._forgotten:
            return
        with contextlib.suppress(*ENDED_MEANWHILE, JournalBehind):
            # The route refuses a longer reason.
            await self._client.fail(self.job_id, shortened(reason, self._engine.settings.max_label_bytes // 2))
