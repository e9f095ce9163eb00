"""The handles of jobs and runtimes: the objects that methods of the emulator return, with what can be done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cmemu_nb.calls.diagnosis import diagnose, error_if_cleared, job_expression
from cmemu_nb.calls.interrupts import Interruptible
from cmemu_nb.calls.streams import ItemStream, warn_of_constant
from cmemu_nb.calls.wait_line import WaitLine
from cmemu_nb.errors import FunctionError, JobFailed, JobTimeout, NotFound
from cmemu_nb.eventloop.shell import running_cell
from cmemu_nb.lifecycle.records import JobStatus, Outcome
from cmemu_nb.tokens import Token
from cmemu_nb.wire.queries import QueryEncoder, query_of
from cmemu_nb.wire.results import error_for_people, function_error, parse_result

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from cmemu_nb.executors.cells.functions import Function
    from cmemu_nb.executors.executors import Executors
    from cmemu_nb.lifecycle.configuration import Configuration
    from cmemu_nb.lifecycle.records import Job, Runtime
    from cmemu_nb.lifecycle.session import ThrownAway


async def fetch(executors: Executors, job_id: str, timeout: float | None) -> bytes:  # noqa: ASYNC109
    """Wait for a job's result and return its bytes, on the emulator's own loop; `timeout` is in seconds."""
    try:
        return await executors.engine.client.result(job_id, timeout)
    except JobTimeout as error:
        again = f"{job_expression(executors.engine.name, job_id)}.result() waits for it again."
        raise JobTimeout(f"{error} {diagnose(executors, job_id)} {again}") from None
    except (NotFound, JobFailed) as error:
        raise error_if_cleared(executors, job_id) or error from None


def value_of(executors: Executors, job_id: str, result: bytes) -> Any:
    """Return the value of a job's result; raises `FunctionError` if the function raised, `ResultError` for no JSON."""
    error = function_error(result)
    if error is not None:
        raise FunctionError(error_for_people(error, executors.engine.lifecycle.log(job_id).explanation))
    job = executors.engine.lifecycle.find_job(job_id)
    value = parse_result(result, streaming=job is not None and job.streamed)
    warn_of_constant(result)
    return value


class JobHandle:
    """A job, by its `id`. Awaiting the handle returns the result: `await job`."""

    def __init__(self, executors: Executors, job_id: str) -> None:
        self._executors = executors
        self._engine = executors.engine
        self.id = job_id
        self._cell: object | None = None

    def submitted_here(self) -> JobHandle:
        """Record that the running cell submitted the job, so that an interrupt cancels it; returns itself."""
        self._cell = running_cell()
        return self

    @property
    def record(self) -> Job:
        """The job's record at this moment; `NotFound` after a reset of its runtime, `JobEvicted` after its eviction."""
        return self._engine.lifecycle.job(self.id)

    @property
    def status(self) -> JobStatus:
        """The status on the wire: queued, running, succeeded or failed [page]."""
        return self.record.status

    @property
    def outcome(self) -> Outcome | None:
        """How the job ended: ok, function error or failed; None while it is unfinished."""
        return self.record.outcome

    @property
    def logs(self) -> str:
        """What the job's function in a cell has printed and logged so far, at most the newest million characters."""
        return self._engine.lifecycle.log(self.id).text

    @property
    def explanation(self) -> str:
        """Which value of the result could not be sent, or why its module lacks the function; "" for any other job."""
        return self._engine.lifecycle.log(self.id).explanation

    @property
    def diagnosis(self) -> str:
        """Why the job has no result yet, in one sentence that says what to type.

        >>> emu.open_runtime("my-runtime").enqueue("f").diagnosis
        "'f' is queued, and nothing has polled 'my-runtime' for jobs yet. emu.launch('python app.py', 'my-runtime') ..."
        """
        return diagnose(self._executors, self.id).sentence

    @property
    def expression(self) -> str:
        """What to type to get this handle: `emu.job("a4c966")`."""
        return job_expression(self._engine.name, self.id)

    def find(self) -> Job | None:
        """Return the job's record at this moment, or None after the job was evicted or its runtime was reset."""
        return self._engine.lifecycle.find_job(self.id)

    def done(self) -> bool:
        """Return whether the job has ended, successfully or not."""
        return self.record.finished

    def raw(self, timeout: float | None = None, *, progress: bool | None = None) -> bytes:
        """Wait for the job and return the bytes of its result, without reading them.

        `timeout` is in seconds; None waits without a limit. After two seconds a line says why it waits, unless
        `progress` is False, as in `emu.call()`. Raises `JobFailed` or `JobTimeout`. An interrupt cancels the job if it
        was submitted in the same cell, and otherwise leaves it. The result of a finished job is still available when
        the emulator is stopped.

        >>> emu.submit("add", {"x": 40}).raw()
        b'41'
        """
        stored = self._stored_result()
        if stored is not None:
            return stored
        return self._interruptible(progress=progress).run(fetch(self._executors, self.id, timeout))

    def result(self, timeout: float | None = None, *, progress: bool | None = None) -> Any:
        """Wait for the job and return its result as Python values.

        An empty result is None, one JSON text is its value, several JSON texts are a list. A result that was posted in
        chunks is a stream, and always a list of its items. `timeout` is in seconds;
        None waits without a limit. After two seconds a line says why it waits, unless `progress` is False, as in
        `emu.call()`. Raises `FunctionError` if the function raised, `JobFailed`, `JobTimeout`, and `ResultError` if the
        bytes are not JSON. NaN and Infinity, which are not JSON either, are returned with a `ResultWarning` [ours].

        >>> emu.submit("add", {"x": 40}).result(timeout=30)
        41
        """
        return value_of(self._executors, self.id, self.raw(timeout, progress=progress))

    async def aresult(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - the same meaning as in result()
        *,
        progress: bool | None = None,
    ) -> Any:
        """Do as `result()` does, in async code: awaitable on any loop."""
        result = self._stored_result()
        if result is None:
            result = await self._interruptible(progress=progress).arun(fetch(self._executors, self.id, timeout))
        return value_of(self._executors, self.id, result)

    def stream(self, *, progress: bool | None = None) -> ItemStream:
        """Return an iterator (`for` or `async for`) over the items of the result, each available as it arrives.

        A result that does not begin as JSON is plain text; each item is then the text that has arrived. `progress` is
        that of `result()`. Raises what `result()` raises: `JobFailed` if the stream breaks off,
        `FunctionError`, and `ResultError` for bare numbers, whose ends are ambiguous in a stream.
        """
        return ItemStream(self._executors, self.id, self._interruptible(progress=progress))

    def _interruptible(self, *, progress: bool | None) -> Interruptible:
        here = self._cell is not None and self._cell is running_cell()
        line = WaitLine(self._executors, [self.id], progress=progress)
        return Interruptible(self._engine, line, jobs=[self.id] if here else [])

    def cancel(self, reason: str = "by job.cancel()") -> bool:
        """Cancel the queued or running job: it fails with a message that says so and gives the `reason` [ours].

        A function in a cell is interrupted where Python can do that. Returns whether the job was cancelled: False if it
        had ended already.

        >>> job = emu.open_runtime("my-runtime").enqueue("multiply")
        >>> job.cancel(), job.record.error_message
        (True, 'cancelled: by job.cancel()')
        """
        job_id = self.record.job_id
        return bool(self._engine.change(lambda lifecycle: lifecycle.cancel([job_id], reason)))

    def fail(self, reason: str = "failed by hand") -> None:
        """Fail the queued or running job with `reason` as its error [ours]; `JobAlreadyCompleted` if it has ended.

        >>> job = emu.open_runtime("my-runtime").enqueue("multiply")
        >>> job.fail("the test is over")
        >>> job.outcome
        <Outcome.FAILED: 'failed'>
        """
        self._engine.change(lambda lifecycle: lifecycle.fail(self.id, reason))

    def __await__(self) -> Generator[Any, None, Any]:
        return self.aresult().__await__()

    def _stored_result(self) -> bytes | None:
        """Return the result of a finished job if the emulator is stopped, so that no request can ask for it."""
        job = None if self._engine.running else self.find()
        if job is None or not job.finished:
            return None
        if job.status == JobStatus.FAILED:
            raise JobFailed(job.error_message or "")
        return job.result or b""

    def __repr__(self) -> str:
        job = self.find()
        if job is None:
            return f"<Job {self.id}: removed: evicted, or its runtime was reset>"
        return f"<Job {self.id} {job.query_type!r} on {job.runtime_id!r}: {job.outcome or job.status}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from cmemu_nb.display.cards import show_job  # noqa: PLC0415 - only notebooks use it

        return show_job(self)


class RuntimeHandle:
    """A runtime's session, by its `id`. It always shows the current state, also after a reset by someone else.

    >>> rt = emu.open_runtime("my-runtime")
    >>> rt.enqueue("multiply", {"x": 6, "y": 7}).status, rt.queue_depth
    (<JobStatus.QUEUED: 'queued'>, 1)
    """

    def __init__(self, executors: Executors, runtime_id: str) -> None:
        self._executors = executors
        self._engine = executors.engine
        self.id = runtime_id

    @property
    def record(self) -> Runtime:
        """The runtime's record at this moment; `NotFound` after it was deleted."""
        return self._engine.lifecycle.runtime(self.id)

    @property
    def token(self) -> Token:
        """The `Module-Auth-Token` of the session [page]; `print()` shows all of it, the repr only its end."""
        return Token(self.record.module_auth_token)

    @property
    def get_job_uri(self) -> str:
        """The URI at which the runtime polls for jobs [page]."""
        return self._uris()["getJobUri"]

    @property
    def post_result_uri(self) -> str:
        """The URI at which the runtime posts results: `<uri>/<job id>` [page]."""
        return self._uris()["postResultUri"]

    @property
    def post_schema_uri(self) -> str:
        """The URI at which the runtime posts its schemas [page]."""
        return self._uris()["postSchemaUri"]

    @property
    def inspect_uri(self) -> str:
        """The URI at which any client can inspect a job of the runtime: `<uri>/<job id>` [page]."""
        return f"{self.get_job_uri}s"

    @property
    def expression(self) -> str:
        """What to type to get this handle: `emu.runtime("my-runtime")`."""
        return f"{self._engine.name}.runtime({json.dumps(self.id)})"

    @property
    def deployed_apps(self) -> list[str]:
        """The bound deployed apps, each as "rid (branch)"."""
        return [app.label for app in self._engine.lifecycle.apps_of(self.id)]

    @property
    def configuration(self) -> Configuration:
        """What the runtime's module is configured with, by `emu.configure` or a seed file; its repr has no secrets."""
        return self._engine.lifecycle.configuration(self.id)

    @property
    def queue_depth(self) -> int:
        """The number of queued jobs."""
        return self._engine.lifecycle.queue_depth(self.id)

    def enqueue(self, query_type: Function, query: object = None, **fields: Any) -> JobHandle:
        """Queue a `runtime-direct` job for this runtime; it needs no bound app [ours].

        The function, its query and its fields are given as in `emu.submit()`. Raises `InvalidRequest` for a query that
        can't be sent, `QueueFull`, and `NotFound` after the runtime was deleted.
        """
        functions = self._executors.functions
        name, _ = functions.name_of(query_type)
        encoder = QueryEncoder(name, lambda: functions.schema_of(self.id, name), check=False)
        text = encoder.encode(query_of(query, fields, name))
        job = self._engine.change(lambda lifecycle: lifecycle.submit(self.id, name, text))
        return JobHandle(self._executors, job.job_id).submitted_here()

    def function(
        self, function: Callable[..., Any] | None = None, *, streaming: bool = False, edits: Sequence[Any] | None = None
    ) -> Any:
        """Serve a function on this runtime: a decorator like `emu.function`. `rt.enqueue()` calls it without an app.

        >>> rt = emu.open_runtime("my-runtime")
        >>> @rt.function
        ... def shout(context, event: Words) -> str:
        ...     return event.text.upper()
        >>> rt.enqueue("shout", {"text": "hello"}).result()
        'HELLO'
        """
        return self._executors.functions.decorate(function, self.record.runtime_id, streaming=streaming, edits=edits)

    def reset(self) -> RuntimeHandle:
        """Reset the session [ours]: its jobs and schemas are deleted, its token is new, its bindings stay."""
        _, thrown_away = self._engine.change(lambda lifecycle: lifecycle.reset_session(self.id))
        print_reset(self.id, thrown_away)
        return self

    def delete(self) -> None:
        """Delete the runtime with its session [ours]; `NotFound` if it is deleted already."""
        self._engine.change(lambda lifecycle: lifecycle.delete_session(self.id))

    def _uris(self) -> dict[str, str]:
        return self.record.session_answer(self._engine.url)

    def __repr__(self) -> str:
        try:
            record = self.record
        except NotFound:
            return f"<Runtime {self.id!r}: deleted>"
        return f"<Runtime {self.id!r}: {record.polling.replace('never polled', 'nothing polls yet')}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from cmemu_nb.display.cards import show_runtime  # noqa: PLC0415

        return show_runtime(self)


def print_reset(runtime_id: str, thrown_away: ThrownAway | None) -> None:
    """Print what a reset discarded, if anything."""
    if thrown_away:
        print(f"Runtime {runtime_id!r} was reset, which discarded {thrown_away}.")  # noqa: T201
