"""The executor behind functions in cells: a client of the emulator like any other, in the same process.

It opens its runtime's session, posts the functions' schemas, waits for jobs and posts results over HTTP. The
functions run in threads, at most `max_concurrent_tasks` at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from cmemu_nb.clients.received_job import ReceivedJob, not_started
from cmemu_nb.clients.runtime import RuntimeClient
from cmemu_nb.errors import CmemuError, InvalidModuleAuthToken, NotFound, NotRunning
from cmemu_nb.eventloop.home import STOPPED_MEANWHILE
from cmemu_nb.executors.cells.job_thread import JobThread
from cmemu_nb.executors.cells.served import ServedFunction
from cmemu_nb.executors.cells.threads import Workers
from cmemu_nb.lifecycle.records import NOTEBOOK, NOTEBOOK_APP
from cmemu_nb.tracebacks import in_one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.executors.sdk.adapter import Definition
    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.records import Job

RETRY_SECONDS = 1.0
MAX_RESTART_SECONDS = 30.0
STOPS_JOB = frozenset({"job_failed", "job_cleared"})
FINISHES_JOB = frozenset({"job_succeeded", "job_failed"})


class NotebookExecutor:
    """Serves functions of this process on one runtime. Its methods run on the emulator's loop."""

    def __init__(self, engine: Engine, runtime_id: str) -> None:
        self.runtime_id = runtime_id
        self.functions: dict[str, ServedFunction] = {}
        self._engine = engine
        self._threads: set[JobThread] = set()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._restart_in = 0.0
        self._stopping = False
        self._takes_jobs: asyncio.Event

    async def begin(self) -> None:
        """Join the runtime's session, or open the notebook's own, and begin to poll; `NotRunning` if it is stopped."""
        self._stopping = False
        self._client = RuntimeClient(self._engine.url)
        self._slots = asyncio.Semaphore(self._engine.settings.max_concurrent_tasks)
        # Made anew with each loop, since an event that was waited for belongs to its loop.
        self._takes_jobs = asyncio.Event()
        self._takes_jobs.set()
        self._workers = Workers()
        try:
            await self._join()
        except BaseException:
            self._client.close()
            raise
        self._unsubscribe = self._engine.lifecycle.events.subscribe(self._hear)
        self._poll()

    async def _join(self) -> None:
        try:
            self._client.join(self._engine.lifecycle.runtime(self.runtime_id))
        except NotFound:
            await self._client.open_session(self.runtime_id, NOTEBOOK_APP, "Notebook")
        if self.runtime_id == NOTEBOOK:
            self._engine.lifecycle.keep_app(NOTEBOOK, NOTEBOOK_APP)
        if self.functions:
            await self._post_schemas(self.functions.values())
        if self._stopping:
            raise NotRunning(STOPPED_MEANWHILE)

    def end(self, reason: str) -> None:
        """Stop polling; the jobs that run are failed with the reason, if they still exist."""
        for thread in list(self._threads):
            job = self._engine.lifecycle.find_job(thread.job_id)
            if job is not None and not job.finished:
                self._engine.lifecycle.fail(thread.job_id, reason)
        self._stop_polling()

    def pause(self) -> None:
        """Take no further jobs, because others do. Functions that run are not touched."""
        self._takes_jobs.clear()
        self._engine.application.context.waiting.end_polls()

    def resume(self) -> None:
        """Take jobs again."""
        self._takes_jobs.set()

    @property
    def takes_jobs(self) -> bool:
        """Whether it takes jobs, or leaves them to others."""
        return self._takes_jobs.is_set()

    @property
    def slots(self) -> int:
        """How many functions may run at a time."""
        return int(self._engine.settings.max_concurrent_tasks)

    @property
    def busy(self) -> list[JobThread]:
        """The threads whose functions run, without those that were given up; from any thread."""
        return [thread for thread in list(self._threads) if not thread.abandoned]

    @property
    def working(self) -> bool:
        """Whether it serves its runtime; should its polling ever fail, it is started again."""
        return self._task is not None

    # Functions

    async def serve(self, definitions: Iterable[Definition], echo: Callable[[str], object] | None) -> dict[str, int]:
        """Serve functions, or new versions of them; what they print is also given to `echo`.

        Returns how many jobs of earlier versions still run, by function, for those that have any.
        """
        changed, still_running = [], {}
        for definition in definitions:
            served = self.functions.get(definition.name)
            if served is None:
                served = self.functions[definition.name] = ServedFunction(self.runtime_id, definition)
            else:
                served.replace(definition)
                still_running[definition.name] = served.running
            served.echo = echo
            changed.append(served)
        try:
            await self._post_schemas(changed)
        except InvalidModuleAuthToken:  # somebody has reset the session since
            await self._join_again()
        return {name: jobs for name, jobs in still_running.items() if jobs}

    async def _post_schemas(self, functions: Iterable[ServedFunction]) -> None:
        await self._client.post_schemas([served.definition.schema for served in functions])

    async def remove(self, name: str) -> None:
        """Serve a function no longer; calls of it that come are answered as the SDK answers unknown ones."""
        with contextlib.suppress(NotFound):  # somebody has deleted it before
            await self._client.delete_schema(name)
        self.functions.pop(name, None)

    # Jobs

    def _poll(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work())
        self._task.add_done_callback(self._restart)

    def _restart(self, task: asyncio.Task[None]) -> None:
        """Poll again, after a pause that grows: only `_stop_polling` may end it."""
        if self._task is not task:
            return
        said = "it was cancelled" if task.cancelled() else in_one_line(task.exception())
        told = f"the notebook's executor ended ({said}) and is started again in {self._restart_in:g} s"
        self._engine.lifecycle.note("executor_restarted", self.runtime_id, detail=told)
        self._timer = task.get_loop().call_later(self._restart_in, self._poll)
        self._restart_in = min(2 * self._restart_in or RETRY_SECONDS, MAX_RESTART_SECONDS)

    async def _work(self) -> None:
        while True:
            await self._slots.acquire()
            try:
                job = await self._next_job()
            except BaseException:
                self._slots.release()
                raise
            self._start_or_fail(job)
            self._restart_in = 0.0

    async def _next_job(self) -> ReceivedJob:
        while True:
            await self._takes_jobs.wait()
            try:
                job = await self._client.next_job()
                if job is not None:
                    return job
            except InvalidModuleAuthToken:
                await self._join_again()
            except CmemuError as error:
                if not self._engine.faults:
                    self._engine.lifecycle.note("log", self.runtime_id, detail=f"the notebook's executor: {error}")
                await asyncio.sleep(RETRY_SECONDS)

    async def _join_again(self) -> None:
        """Go on after a reset as a restarted program would: with the new token, and with all schemas."""
        with contextlib.suppress(CmemuError):
            self._client.join(self._engine.lifecycle.runtime(self.runtime_id))
            await self._post_schemas(self.functions.values())

    def _start_or_fail(self, job: ReceivedJob) -> None:
        """Start a job; whatever prevents that fails this job, and no other."""
        thread = None
        try:
            served = self.functions.get(job.query_type)
            thread = JobThread(self._engine, self._client, served, job, self._ended)
            self._start(thread)
        except Exception as error:  # noqa: BLE001 - the executor must outlive every job
            if thread is None:
                self._slots.release()
            else:
                self._ended(thread)
            with contextlib.suppress(CmemuError):  # it has ended meanwhile
                self._engine.lifecycle.fail(job.job_id, not_started(error))

    def _start(self, thread: JobThread) -> None:
        self._threads.add(thread)
        if thread.served is not None:
            thread.served.running += 1
            if thread.served.echo is not None:
                self._engine.lifecycle.log(thread.job_id).echo(thread.served.echo)
        self._workers.run(thread.name, thread.run)

    def _hear(self, event: Event) -> None:
        if event.kind in FINISHES_JOB and event.runtime_id == self.runtime_id:
            self._count(self._engine.lifecycle.find_job(event.job_id or ""))
        if event.kind in STOPS_JOB:
            # A job that was delivered twice has two.
            for thread in [each for each in self._threads if each.job_id == event.job_id]:
                self._give_up(thread)
        elif event.kind == "session_deleted" and event.runtime_id == self.runtime_id:
            self._leave()

    def _give_up(self, thread: JobThread) -> None:
        """Give up the thread of a job that was ended from outside, and end it; its slot is free for the next one."""
        if thread.abandoned:
            return
        thread.abandoned = True
        thread.end()
        self._slots.release()
        if thread.served is not None:
            thread.served.running -= 1
            thread.served.abandoned += 1

    def _leave(self) -> None:
        """Serve nothing any more: the runtime is deleted."""
        for thread in self._threads:
            self._give_up(thread)
        self.functions.clear()
        self._stop_polling()

    def _stop_polling(self) -> None:
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            self._unsubscribe()
            self._engine.lifecycle.release_app(self.runtime_id)
            self._client.close()
            self._workers.close()

    def _count(self, job: Job | None) -> None:
        served = self.functions.get(job.query_type) if job else None
        if job is not None and served is not None:
            served.count(job)

    def _ended(self, thread: JobThread) -> None:
        self._threads.discard(thread)
        served = thread.served
        if not thread.abandoned:
            self._slots.release()
        if served is not None:
            served.running -= not thread.abandoned
            served.abandoned -= thread.abandoned
