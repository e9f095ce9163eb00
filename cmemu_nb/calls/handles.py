"""What people hold: a job and a runtime, as objects that show themselves and know what can be done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cmemu_nb.calls.diagnosis import diagnose, job_expression, what_became_of
from cmemu_nb.calls.interrupts import Interruptible
from cmemu_nb.calls.streams import ItemStream
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
    from cmemu_nb.lifecycle.records import Job, Runtime
    from cmemu_nb.lifecycle.session import ThrownAway


async def fetch(executors: Executors, job_id: str, timeout: float | None) -> bytes:  # noqa: ASYNC109
    """Wait for a job on the emulator's own loop, as `JobHandle.raw()` does anywhere; `timeout` is in seconds."""
    try:
        return await executors.engine.client.result(job_id, timeout)
    except JobTimeout as late:
        again = f"{job_expression(executors.engine.name, job_id)}.result() waits for it again."
        raise JobTimeout(f"{late} {diagnose(executors, job_id)} {again}") from None
    except (NotFound, JobFailed) as error:
        raise what_became_of(executors, job_id) or error from None


def value_of(executors: Executors, job_id: str, result: bytes) -> Any:
    """Read the bytes of a job's result; raises `FunctionError` when the function raised, and `ResultError`."""
    error = function_error(result)
    if error is not None:
        raise FunctionError(error_for_people(error, executors.engine.lifecycle.log(job_id).explanation))
    job = executors.engine.lifecycle.find_job(job_id)
    streaming = job is not None and executors.functions.streams(job.runtime_id, job.query_type)
    return parse_result(result, streaming=streaming)


class JobHandle:
    """A job, by its `id`. Awaiting it gives its result."""

    def __init__(self, executors: Executors, job_id: str) -> None:
        self._executors = executors
        self._engine = executors.engine
        self.id = job_id
        self._cell: object | None = None

    def submitted_here(self) -> JobHandle:
        """Note that the cell that runs now has submitted the job, so that interrupting this cell cancels it."""
        self._cell = running_cell()
        return self

    @property
    def record(self) -> Job:
        """The job as it is at this moment; `NotFound` after its runtime was reset."""
        return self._engine.lifecycle.job(self.id)

    @property
    def status(self) -> JobStatus:
        """The status on the wire: queued, running, succeeded or failed [page]."""
        return self.record.status

    @property
    def outcome(self) -> Outcome | None:
        """How the job ended: ok, function error or failed; None while it has not."""
        return self.record.outcome

    @property
    def logs(self) -> str:
        """What the job's function in a cell has printed and logged so far, the newest million characters."""
        return self._engine.lifecycle.log(self.id).text

    @property
    def explanation(self) -> str:
        """What is wrong with a result that its function could not post: where it holds what; "" for any other."""
        return self._engine.lifecycle.log(self.id).explanation

    @property
    def diagnosis(self) -> str:
        """Why the job has no result yet, in one sentence that says what to type.

        >>> emu.open_runtime("my-runtime").enqueue("f").diagnosis
        "'f' is queued, and nobody has polled 'my-runtime' for jobs yet. emu.launch('python app.py', 'my-runtime') ..."
        """
        return diagnose(self._executors, self.id).sentence

    @property
    def expression(self) -> str:
        """What to type to get this handle: `emu.job("a4c966")`."""
        return job_expression(self._engine.name, self.id)

    def find(self) -> Job | None:
        """Return the job as it is at this moment, or None after it was let go or its runtime was reset."""
        return self._engine.lifecycle.find_job(self.id)

    def done(self) -> bool:
        """Tell whether the job succeeded or failed."""
        return self.record.finished

    def raw(self, timeout: float | None = None, *, progress: bool | None = None) -> bytes:
        """Wait for the job and return the bytes of its result, whatever they say.

        `timeout` is in seconds; None waits as long as it takes. After two seconds a line says why it waits, unless
        `progress` is False, as in `emu.call()`. Raises `JobFailed` or `JobTimeout`. An interrupt cancels a job that was
        submitted in the same cell, and leaves any other. Of a job that is done it is there when the emulator is
        stopped, too.

        >>> emu.submit("add", {"x": 40}).raw()
        b'41'
        """
        at_hand = self._at_hand()
        return (
            self._waiting(progress=progress).run(fetch(self._executors, self.id, timeout))
            if at_hand is None
            else at_hand
        )

    def result(self, timeout: float | None = None, *, progress: bool | None = None) -> Any:
        """Wait for the job and return its result as Python values.

        Nothing is None, one JSON text its value, several of them a list. `timeout` is in seconds; None waits
        as long as it takes. After two seconds a line says why it waits, unless `progress` is False, as in `emu.call()`.
        Raises `FunctionError` when the function raised, `JobFailed`, `JobTimeout`, and `ResultError` when the bytes are
        not JSON.

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
        at_hand = self._at_hand()
        if at_hand is None:
            at_hand = await self._waiting(progress=progress).arun(fetch(self._executors, self.id, timeout))
        return value_of(self._executors, self.id, at_hand)

    def stream(self, *, progress: bool | None = None) -> ItemStream:
        """Iterate over the items of the result as they arrive, with `for` or `async for`.

        `progress` is that of `result()`. Raises what `result()` raises: `JobFailed` when the stream breaks off,
        `FunctionError`, `ResultError` for bare numbers, which nobody can split again.
        """
        return ItemStream(self._executors, self.id, self._waiting(progress=progress))

    def _waiting(self, *, progress: bool | None) -> Interruptible:
        here = self._cell is not None and self._cell is running_cell()
        line = WaitLine(self._executors, [self.id], progress=progress)
        return Interruptible(self._engine, line, jobs=[self.id] if here else [])

    def cancel(self, reason: str = "by job.cancel()") -> bool:
        """End the queued or running job: it has failed, and its message says that it was cancelled and why [ours].

        A function in a cell is ended where Python can do that. Returns whether there was something to cancel: False for
        a job that is done.

        >>> job = emu.open_runtime("my-runtime").enqueue("multiply")
        >>> job.cancel(), job.record.error_message
        (True, 'cancelled: by job.cancel()')
        """
        job_id = self.record.job_id
        return bool(self._engine.change(lambda lifecycle: lifecycle.cancel([job_id], reason)))

    def fail(self, reason: str = "failed by hand") -> None:
        """End the queued or running job as failed [ours]; `JobAlreadyCompleted` when it is done.

        >>> job = emu.open_runtime("my-runtime").enqueue("multiply")
        >>> job.fail("nobody computes it")
        >>> job.outcome
        <Outcome.FAILED: 'failed'>
        """
        self._engine.change(lambda lifecycle: lifecycle.fail(self.id, reason))

    def __await__(self) -> Generator[Any, None, Any]:
        return self.aresult().__await__()

    def _at_hand(self) -> bytes | None:
        """Return the result of a job that is done, when nobody serves any more."""
        job = None if self._engine.running else self.find()
        if job is None or not job.finished:
            return None
        if job.status == JobStatus.FAILED:
            raise JobFailed(job.error_message or "")
        return job.result or b""

    def __repr__(self) -> str:
        job = self.find()
        if job is None:
            return f"<Job {self.id}: gone: let go to make room, or its runtime was reset>"
        return f"<Job {self.id} {job.query_type!r} on {job.runtime_id!r}: {job.outcome or job.status}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from cmemu_nb.display.cards import show_job  # noqa: PLC0415 - only a notebook wants it

        return show_job(self)


class RuntimeHandle:
    """A runtime's session, by its `id`, as it is at any moment: a reset elsewhere shows here too.

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
        """The runtime as it is at this moment; `NotFound` after it was deleted."""
        return self._engine.lifecycle.runtime(self.id)

    @property
    def token(self) -> Token:
        """The `Module-Auth-Token` of the session [page]; `print()` it to see all of it."""
        return Token(self.record.module_auth_token)

    @property
    def get_job_uri(self) -> str:
        """Where the runtime polls for jobs [page]."""
        return self._uris()["getJobUri"]

    @property
    def post_result_uri(self) -> str:
        """Where the runtime posts results: `<uri>/<job id>` [page]."""
        return self._uris()["postResultUri"]

    @property
    def post_schema_uri(self) -> str:
        """Where the runtime posts its schemas [page]."""
        return self._uris()["postSchemaUri"]

    @property
    def inspect_uri(self) -> str:
        """Where anybody looks at a job of the runtime: `<uri>/<job id>` [page]."""
        return f"{self.get_job_uri}s"

    @property
    def expression(self) -> str:
        """What to type to get this handle: `emu.runtime("my-runtime")`."""
        return f"{self._engine.name}.runtime({json.dumps(self.id)})"

    @property
    def deployed_apps(self) -> list[str]:
        """The bound apps, as "rid (branch)"."""
        return [app.label for app in self._engine.lifecycle.apps_of(self.id)]

    @property
    def queue_depth(self) -> int:
        """How many jobs are queued."""
        return self._engine.lifecycle.queue_depth(self.id)

    def enqueue(self, query_type: Function, query: object = None, **fields: Any) -> JobHandle:
        """Queue a `runtime-direct` job for this runtime, whatever app is bound to it [ours].

        The function, its query and its fields are those of `emu.submit()`. Raises `InvalidRequest` for what can't be
        sent, `QueueFull`, and `NotFound` after the runtime was deleted.
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
        """Serve a function on this runtime; a decorator like `emu.function`. `rt.enqueue()` needs no app.

        >>> rt = emu.open_runtime("my-runtime")
        >>> @rt.function
        ... def shout(context, event: Words) -> str:
        ...     return event.text.upper()
        >>> rt.enqueue("shout", {"text": "hello"}).result()
        'HELLO'
        """
        return self._executors.functions.decorate(function, self.record.runtime_id, streaming=streaming, edits=edits)

    def reset(self) -> RuntimeHandle:
        """Reset the session and keep its binding [ours]: no jobs, no schemas, a new token."""
        _, thrown_away = self._engine.change(lambda lifecycle: lifecycle.reset_session(self.id))
        print_reset(self.id, thrown_away)
        return self

    def delete(self) -> None:
        """End the session and forget the runtime [ours]; `NotFound` when it is deleted already."""
        self._engine.change(lambda lifecycle: lifecycle.delete_session(self.id))

    def _uris(self) -> dict[str, str]:
        return self.record.session_answer(self._engine.url)

    def __repr__(self) -> str:
        try:
            record = self.record
        except NotFound:
            return f"<Runtime {self.id!r}: deleted>"
        return f"<Runtime {self.id!r}: {'connected' if record.connected else 'nothing polls yet'}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from cmemu_nb.display.cards import show_runtime  # noqa: PLC0415

        return show_runtime(self)


def print_reset(runtime_id: str, thrown_away: ThrownAway | None) -> None:
    """Print what a reset threw away, if anything."""
    if thrown_away:
        print(f"Runtime {runtime_id!r} was reset, which threw away {thrown_away}.")  # noqa: T201
