"""One job of a function in a cell, in a thread of its own."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
import traceback
from itertools import islice
from typing import TYPE_CHECKING, Any

from cmemu_nb.errors import (
    CmemuError,
    InjectedFault,
    InvalidModuleAuthToken,
    JobAlreadyCompleted,
    JobNotRunning,
    JournalBehind,
    NotFound,
    NotRunning,
)
from cmemu_nb.executors.functions import handle_job, posts
from cmemu_nb.executors.output import output_to
from cmemu_nb.results import function_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cmemu_nb.emulator import Emulator
    from cmemu_nb.executors.served import ServedFunction
    from cmemu_nb.runtime_client import RuntimeClient

SHOWN_OF_A_RESULT = 2048
# Somebody failed the job or reset its runtime while the function ran.
ENDED_MEANWHILE = (JobAlreadyCompleted, JobNotRunning, NotFound, InvalidModuleAuthToken)


class JobThread:
    """Runs a job and posts its result, unless the job was ended meanwhile.

    Threads are daemons and made for each job: one whose function never returns holds up neither the executor nor
    the end of the kernel. `served` is None for a function that nobody serves.
    """

    def __init__(
        self,
        emulator: Emulator,
        client: RuntimeClient,
        served: ServedFunction | None,
        envelope: dict[str, Any],
        on_result: Callable[[JobThread], None],
        on_end: Callable[[JobThread], None],
    ) -> None:
        self._emulator = emulator
        self._client = client
        self._envelope = envelope
        self._on_result = on_result
        self._on_end = on_end
        self._cleared = emulator.lifecycle.events.cleared
        self._definition = served.definition if served else None
        self.served = served
        self.job_id: str = envelope["computeModuleJobV1"]["jobId"]
        self.abandoned = False
        self.failed = False
        self._start = 0
        self.run_time = 0
        name = f"cmemu-job-{envelope['computeModuleJobV1']['queryType']}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _run(self) -> None:
        self._start = time.perf_counter_ns()
        try:
            # Made by the first print: most functions print nothing, and their jobs are kept for long.
            log = functools.cache(functools.partial(self._emulator.lifecycle.log, self.job_id))
            with output_to(log), contextlib.suppress(NotRunning):
                self._handle()
        finally:
            self._tell(self._on_end)

    def _tell(self, listener: Callable[[JobThread], None]) -> None:
        """Tell the executor, on its loop, before it is told anything else."""
        with contextlib.suppress(NotRunning, RuntimeError):  # the emulator is stopped
            self._emulator.home.loop.call_soon_threadsafe(listener, self)

    def _end_with(self, *, failed: bool) -> None:
        self.failed = failed
        if self.run_time:  # it is counted already
            return
        self.run_time = time.perf_counter_ns() - self._start
        self._tell(self._on_result)

    def _handle(self) -> None:
        try:
            handle_job(self._definition, self._envelope, self._post)
        except CmemuError as error:  # not the function's own: that is a result
            self._fail_unposted(error)
        except BaseException as error:  # noqa: BLE001 - SystemExit ends the SDK's worker process, which posts nothing
            traceback.print_exc()
            self._fail(f"the function ended with {type(error).__name__}, for which the official SDK posts no result")

    @property
    def _forgotten(self) -> bool:
        """Whether all that happened when the job began is forgotten, so that nobody wants to hear of its end."""
        return self._cleared != self._emulator.lifecycle.events.cleared

    def _post(self, body: bytes | Iterable[bytes]) -> None:
        if self._forgotten:
            return
        if isinstance(body, bytes):
            self._end_with(failed=function_error(body) is not None)
            self._post_whole(posts(body))
        else:
            self._post_stream(body)

    def _post_whole(self, bodies: Iterable[bytes]) -> None:
        """Post the first of the bodies that is taken; when all are refused the job runs on, as with the SDK."""
        broken: NotRunning | None = None
        for body in bodies:
            if self.abandoned:
                self._note_late(body)
                return
            try:
                self._send(body)
            except ENDED_MEANWHILE:
                self._note_late(body)
                return
            except JournalBehind:  # it is kept, and written down as soon as that can be
                return
            except InjectedFault:
                broken = None
            except NotRunning as error:
                broken = error
            else:
                return
            if not self._emulator.running:
                break
        if broken is not None:
            raise broken

    def _send(self, body: bytes) -> None:
        try:
            self._emulator.home.run(self._client.post_result(self.job_id, body))
        except NotRunning:
            if self.abandoned:  # the client was closed, because the runtime was deleted
                raise JobNotRunning from None
            raise

    def _note_late(self, body: bytes) -> None:
        if self._forgotten:
            return
        self._emulator.change(
            lambda lifecycle: lifecycle.note(
                "late_result", self._runtime_id, self.job_id, body[:SHOWN_OF_A_RESULT].decode(errors="replace")
            )
        )

    @property
    def _runtime_id(self) -> str | None:
        return self.served.runtime_id if self.served else None

    def _post_stream(self, chunks: Iterable[bytes]) -> None:
        home = self._emulator.home
        exchange = home.run(self._client.stream_result(self.job_id))
        sent = 0
        try:
            for chunk in chunks:
                if self.abandoned:
                    break
                home.run(exchange.send(chunk))
                sent += len(chunk)
            else:
                self._end_with(failed=False)
                reply = home.run(exchange.end())
                if reply.status == InjectedFault.status:
                    # The SDK posts its generator again, and that is exhausted.
                    self._post_whole(islice(posts(b""), 1, None))
                return
        except NotRunning as error:
            self._fail_unposted(error)
        except BaseException as error:  # noqa: BLE001 - the function's own
            traceback.print_exc()
            said = traceback.format_exception_only(error)[-1].strip()
            self._fail(f"the result stream broke off after {sent} bytes: {said}")
        with contextlib.suppress(RuntimeError):  # the emulator was stopped, and every connection with it
            home.loop.call_soon_threadsafe(exchange.break_off)

    def _fail_unposted(self, error: CmemuError) -> None:
        """Fail the job whose result was not taken, unless that was because it has ended or the emulator is stopped."""
        if self._emulator.running and not self.abandoned:
            self._fail(f"the result could not be posted: {error}")

    def _fail(self, reason: str) -> None:
        self._end_with(failed=True)
        if self._forgotten:
            return
        with contextlib.suppress(*ENDED_MEANWHILE, JournalBehind):
            self._emulator.home.run(self._client.fail(self.job_id, reason))
