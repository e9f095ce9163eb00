"""The executor of functions in cells: an ordinary HTTP client of the emulator, in the same process.

It opens its runtime's session, posts the functions' schemas, polls for jobs and posts results. The functions run in
threads, at most `max_concurrent_tasks` at a time.
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
from cmemu_nb.executors.cells.threads import ThreadPool
from cmemu_nb.lifecycle.events import FINISHES_JOB, STOPS_JOB
from cmemu_nb.lifecycle.records import NOTEBOOK, NOTEBOOK_APP
from cmemu_nb.tracebacks import in_one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.executors.cells.configured import ConfiguredCells
    from cmemu_nb.executors.sdk.adapter import Definition
    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.records import Job

RETRY_SECONDS = 1.0
MAX_RESTART_SECONDS = 30.0


class NotebookExecutor:
    """Serves functions of this process on one runtime. Its methods are called on the emulator's loop."""

    def __init__(self, engine: Engine, runtime_id: str, configured: ConfiguredCells) -> None:
        self.runtime_id = runtime_id
        self.functions: dict[str, ServedFunction] = {}
        self._engine = engine
        self._configured = configured
        self._threads: set[JobThread] = set()
        self._polling: asyncio.Task[None] | None = None
        self._restart_timer: asyncio.TimerHandle | None = None
        self._restart_delay = 0.0
        self._stopping = False
        self._takes_jobs: asyncio.Event

    async def begin(self) -> None:
        """Join the runtime's session, or open the notebook's own, and begin to poll.

        Raises `NotRunning` if the executor is stopped meanwhile.
        """
        self._stopping = False
        self._client = RuntimeClient(self._engine.url)
        self._slots = asyncio.Semaphore(self._engine.settings.max_concurrent_tasks)
        # A new event for each loop: an event that was awaited belongs to the loop of that await.
        self._takes_jobs = asyncio.Event()
        self._takes_jobs.set()
        self._pool = ThreadPool()
        try:
            await self._join()
            while not self._engine.lifecycle.has_runtime(self.runtime_id):  # it was deleted before the answer was here
                await self._join()
        except BaseException:
            self._client.close()
            raise
        self._unsubscribe = self._engine.lifecycle.events.subscribe(self._on_event)
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
        """Stop polling, and fail the running jobs that still exist with the reason."""
        for thread in list(self._threads):
            job = self._engine.lifecycle.find_job(thread.job_id)
            if job is not None and not job.finished:
                self._engine.lifecycle.fail(thread.job_id, reason)
        self._stop_polling()

    def pause(self) -> None:
        """Take no further jobs, because other executors take them. Running functions continue."""
        self._takes_jobs.clear()
        self._engine.end_polls()

    def resume(self) -> None:
        """Take jobs again."""
        self._takes_jobs.set()

    @property
    def takes_jobs(self) -> bool:
        """Whether it takes jobs, or leaves them to other executors."""
        return self._takes_jobs.is_set()

    @property
    def slots(self) -> int:
        """How many functions may run at a time."""
        return int(self._engine.settings.max_concurrent_tasks)

    @property
    def busy(self) -> list[JobThread]:
        """The threads whose functions run, without the abandoned ones; may be read in any thread."""
        return [thread for thread in list(self._threads) if not thread.abandoned]

    @property
    def working(self) -> bool:
        """Whether it serves its runtime; polling that fails is started again."""
        return self._polling is not None

    # Functions

    async def serve(self, definitions: Iterable[Definition], echo: Callable[[str], object] | None) -> dict[str, int]:
        """Serve functions, or new versions of them; what they print is also passed to `echo`.

        Returns the number of jobs of earlier versions that still run, by function; functions without any are left out.
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
        except InvalidModuleAuthToken:  # the session was reset meanwhile
            await self._join_again()
        return {name: jobs for name, jobs in still_running.items() if jobs}

    async def _post_schemas(self, functions: Iterable[ServedFunction]) -> None:
        await self._client.post_schemas([served.definition.schema for served in functions])

    async def remove(self, name: str) -> None:
        """Stop serving a function; later calls of it are answered as the SDK answers unknown query types."""
        with contextlib.suppress(NotFound):  # the schema was deleted meanwhile
            await self._client.delete_schema(name)
        self.functions.pop(name, None)

    # Jobs

    def _poll(self) -> None:
        self._polling = asyncio.get_running_loop().create_task(self._run_jobs())
        self._polling.add_done_callback(self._restart)

    def _restart(self, task: asyncio.Task[None]) -> None:
        """Poll again, after a delay that grows: only `_stop_polling` may end the polling for good."""
        if self._polling is not task:
            return
        reason = "it was cancelled" if task.cancelled() else in_one_line(task.exception())
        message = f"the notebook's executor ended ({reason}) and is started again in {self._restart_delay:g} s"
        self._engine.lifecycle.note("executor_restarted", self.runtime_id, detail=message)
        self._restart_timer = task.get_loop().call_later(self._restart_delay, self._poll)
        self._restart_delay = min(2 * self._restart_delay or RETRY_SECONDS, MAX_RESTART_SECONDS)

    async def _run_jobs(self) -> None:
        while True:
            await self._slots.acquire()
            try:
                job = await self._next_job()
            except BaseException:
                self._slots.release()
                raise
            self._start_or_fail(job)
            self._restart_delay = 0.0

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
        """Continue after a reset as a restarted program would: with the new token, and post all schemas again."""
        with contextlib.suppress(CmemuError):
            self._client.join(self._engine.lifecycle.runtime(self.runtime_id))
            await self._post_schemas(self.functions.values())

    def _start_or_fail(self, job: ReceivedJob) -> None:
        """Start a job; an error in starting it fails this job and no other."""
        thread = None
        try:
            served = self.functions.get(job.query_type)
            configured = self._configured.context(self.runtime_id)
            thread = JobThread(self._engine, self._client, served, job, self._on_end, configured)
            self._start(thread)
        except Exception as error:  # noqa: BLE001 - the executor must outlive every job
            if thread is None:
                self._slots.release()
            else:
                self._on_end(thread)
            with contextlib.suppress(CmemuError):  # the job has ended meanwhile
                self._engine.lifecycle.fail(job.job_id, not_started(error))

    def _start(self, thread: JobThread) -> None:
        self._threads.add(thread)
        if thread.served is not None:
            thread.served.running += 1
            if thread.served.echo is not None:
                self._engine.lifecycle.log(thread.job_id).echo(thread.served.echo)
        self._pool.run(thread.name, thread.run)

    def _on_event(self, event: Event) -> None:
        if event.kind in FINISHES_JOB and event.runtime_id == self.runtime_id:
            self._count(self._engine.lifecycle.find_job(event.job_id or ""))
        if event.kind in STOPS_JOB:
            # A job that was delivered twice has two threads.
            for thread in [each for each in self._threads if each.job_id == event.job_id]:
                self._abandon(thread)
        elif event.kind == "session_deleted" and event.runtime_id == self.runtime_id:
            self._stop_serving()

    def _abandon(self, thread: JobThread) -> None:
        """Abandon the thread of a job that was ended from outside: free its slot, and end its function."""
        if thread.abandoned:
            return
        thread.abandoned = True
        thread.end()
        self._slots.release()
        if thread.served is not None:
            thread.served.running -= 1
            thread.served.abandoned += 1

    def _stop_serving(self) -> None:
        """Stop serving all functions, because the runtime was deleted."""
        for thread in self._threads:
            self._abandon(thread)
        self.functions.clear()
        self._stop_polling()

    def _stop_polling(self) -> None:
        self._stopping = True
        if self._restart_timer is not None:
            self._restart_timer.cancel()
        if self._polling is not None:
            task, self._polling = self._polling, None
            task.cancel()
            self._unsubscribe()
            self._engine.lifecycle.release_app(self.runtime_id)
            self._client.close()
            self._pool.close()

    def _count(self, job: Job | None) -> None:
        served = self.functions.get(job.query_type) if job else None
        if job is not None and served is not None:
            served.count(job)

    def _on_end(self, thread: JobThread) -> None:
        self._threads.discard(thread)
        served = thread.served
        if not thread.abandoned:
            self._slots.release()
        if served is not None:
            served.running -= not thread.abandoned
            served.abandoned -= thread.abandoned
