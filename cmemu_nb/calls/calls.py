"""Calling functions through a deployed app: one job, its result, or many of them at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, cast

from cmemu_nb.calls.batch import Mapping
from cmemu_nb.calls.handles import JobHandle, fetch, value_of
from cmemu_nb.calls.interrupts import Interruptible
from cmemu_nb.calls.startup import Starting
from cmemu_nb.calls.streams import ItemStream
from cmemu_nb.calls.wait_line import WaitLine, shows_progress
from cmemu_nb.clients.contour import check_timeout
from cmemu_nb.display.progress import progress_bar
from cmemu_nb.errors import MAX_NAMES, NotFound, known
from cmemu_nb.eventloop.shell import echo_here
from cmemu_nb.lifecycle.records import NOTEBOOK_APP
from cmemu_nb.phrases import closest, quoted
from cmemu_nb.wire.queries import QueryEncoder, query_of, refuse_clashes
from cmemu_nb.wire.query_check import check_query

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    import pandas as pd

    from cmemu_nb.clients.contour import ContourClient
    from cmemu_nb.emulator import Emulator
    from cmemu_nb.eventloop.home import Home
    from cmemu_nb.executors.cells.functions import Function, Functions
    from cmemu_nb.lifecycle.lifecycle import Lifecycle


def choose_app(bound: set[str], serving: set[str]) -> str | None:
    """Return the app to call when none was given: the only one, the only one that serves it, the notebook's own."""
    for choice in (bound, serving, bound & {NOTEBOOK_APP}):
        if len(choice) == 1:
            return next(iter(choice))
    return None


class Calls(ABC):
    """What an emulator can be asked to run. Every synchronous method has an awaitable twin that begins with `a`."""

    functions: Functions
    lifecycle: Lifecycle

    @property
    @abstractmethod
    def name(self) -> str:
        """The variable that holds it, for hints."""

    @property
    @abstractmethod
    def home(self) -> Home:
        """What runs the emulator's loop; `NotRunning` when it is stopped."""

    @property
    @abstractmethod
    def client(self) -> ContourClient:
        """The HTTP client of the emulator's own loop; `NotRunning` when it is stopped."""

    def submit(
        self,
        query_type: Function,
        query: object = None,
        deployed_app_rid: str | None = None,
        branch: str | None = None,
        **fields: Any,
    ) -> JobHandle:
        """Submit a job to a deployed app through the contour routes, and return its handle at once.

        `query_type` is the function's name, or the function itself. `query` is any JSON value, `{}` if left out, and
        is sent as it is; what JSON has no type for (numpy's and pandas' values, dates, dataclasses, pydantic models)
        is converted as the function's schema asks for it, see `%cmemu help values`. Its `fields` may be given as
        keywords instead, but for those whose names are parameters of the method. The app may be left out when one
        only is bound, or one only has the function; else the notebook's own is called. Launched modules that have not
        posted their schemas yet are waited for, thirty seconds at most, before an app is chosen. Raises `NotFound` when
        no runtime is bound to the app, `InvalidRequest` for what can't be sent, and `QueueFull`, `NotRunning`.

        >>> job = emu.submit("add", {"x": 40})
        >>> job.result(), job.status
        (41, <JobStatus.SUCCEEDED: 'succeeded'>)
        >>> print(job.logs, end="")
        adding Numbers(x=40, y=1)
        """
        self._starting(query_type, deployed_app_rid).wait(progress=None)
        job, call = self._job(query_type, query, deployed_app_rid, branch, fields), self._interruptible()
        return call.run(call.submit(job)).submitted_here()

    async def asubmit(
        self,
        query_type: Function,
        query: object = None,
        deployed_app_rid: str | None = None,
        branch: str | None = None,
        **fields: Any,
    ) -> JobHandle:
        """Do as `submit()` does, in async code: awaitable on any loop.

        >>> async def main():
        ...     job = await emu.asubmit("add", {"x": 1})
        ...     return await job
        >>> asyncio.run(main())
        2
        """
        await self._starting(query_type, deployed_app_rid).awaited(progress=None)
        job, call = self._job(query_type, query, deployed_app_rid, branch, fields), self._interruptible()
        return (await call.arun(call.submit(job))).submitted_here()

    def call(  # noqa: PLR0913 - each is an option of its own
        self,
        query_type: Function,
        query: object = None,
        deployed_app_rid: str | None = None,
        branch: str | None = None,
        *,
        timeout: float | None = None,
        validate: bool = True,
        echo: bool = False,
        interrupt: str | None = None,
        progress: bool | None = None,
        **fields: Any,
    ) -> Any:
        """Run a function through the whole lifecycle and return its value.

        The function may be given itself or by name, and its query as one object or as keywords, as in `submit()`.
        `timeout` is in seconds; None waits as long as it takes. Unless `validate` is False, an unknown function is a
        `NotFound` and a query that does not match its schema an `InvalidRequest`, before anything is submitted.
        `echo` shows what a function in a cell prints, while it does. An interrupt cancels the job; with
        `interrupt='leave'` it leaves it as it is (None: the setting of that name). After two seconds one line says why
        it waits, unless `progress` is False (None: the setting of that name) or the environment variable `CI` is set.
        Raises what `submit()` and `JobHandle.result()` raise.

        >>> emu.call("add", {"x": 1, "y": 2})
        3
        >>> emu.call(add, x=1, y=2)
        3
        >>> emu.call("ad", {"x": 1})
        Traceback (most recent call last):
        cmemu_nb.errors.NotFound: No function 'ad' is served. Did you mean 'add'? ...
        """
        self._starting(query_type, deployed_app_rid, timeout).wait(progress=progress)
        own = self._interruptible(interrupt, progress=progress)
        named = {"timeout": timeout, "echo": echo or None, "interrupt": interrupt, "progress": progress}
        job = self._job(query_type, query, deployed_app_rid, branch, fields, check=validate, named=named)
        job_id, result = own.run(self._prepare_call(own, job, timeout, echo=echo))
        return value_of(cast("Emulator", self), job_id, result)

    async def acall(  # noqa: PLR0913
        self,
        query_type: Function,
        query: object = None,
        deployed_app_rid: str | None = None,
        branch: str | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the same meaning as in call()
        validate: bool = True,
        echo: bool = False,
        interrupt: str | None = None,
        progress: bool | None = None,
        **fields: Any,
    ) -> Any:
        """Do as `call()` does, in async code: awaitable on any loop.

        >>> asyncio.run(emu.acall("add", {"x": 1}))
        2
        """
        await self._starting(query_type, deployed_app_rid, timeout).awaited(progress=progress)
        own = self._interruptible(interrupt, progress=progress)
        named = {"timeout": timeout, "echo": echo or None, "interrupt": interrupt, "progress": progress}
        job = self._job(query_type, query, deployed_app_rid, branch, fields, check=validate, named=named)
        job_id, result = await own.arun(self._prepare_call(own, job, timeout, echo=echo))
        return value_of(cast("Emulator", self), job_id, result)

    def stream(
        self,
        query_type: Function,
        query: object = None,
        deployed_app_rid: str | None = None,
        branch: str | None = None,
        *,
        validate: bool = True,
        interrupt: str | None = None,
        progress: bool | None = None,
        **fields: Any,
    ) -> ItemStream:
        """Run a streaming function and iterate over its items as they arrive, with `for` or `async for`.

        A result that is no stream is one item. `validate`, `interrupt` and `progress` are those of `call()`. Raises
        what `call()` and `JobHandle.stream()` raise.

        >>> list(emu.stream("words", {"text": "one two"}))
        ['one', 'two']
        """
        self._starting(query_type, deployed_app_rid).wait(progress=progress)
        named = {"interrupt": interrupt, "progress": progress}
        job = self._job(query_type, query, deployed_app_rid, branch, fields, check=validate, named=named)
        own = self._interruptible(interrupt, progress=progress)
        return ItemStream(cast("Emulator", self), own.run(own.submit(job)).id, own)

    def map(
        self,
        query_type: Function,
        queries: Iterable[object] | pd.DataFrame,
        deployed_app_rid: str | None = None,
        branch: str | None = None,
        *,
        concurrency: int = 16,
        progress: bool | None = None,
        validate: bool = True,
        interrupt: str | None = None,
    ) -> pd.DataFrame:
        """Run a function once for each query, and return a DataFrame in the order of the queries.

        `queries` are those of `submit()`, or a DataFrame whose rows are; its index is kept, and what is missing in it
        is left out, null or refused as the function's schema says (`%cmemu help values`). The columns are the fields
        of the queries (`query` if they are no objects), then `outcome`, `value`, `error`, `queue_time`, `run_time`
        and `job_id`; a field with such a name becomes `input.<name>`. At most `concurrency` jobs are unfinished at
        once. A function that raises, or a job that fails, is a row with an `error`, which begins with its kind. All
        queries are checked before the first is submitted, as in `call()`. An interrupt cancels all jobs that are not
        done, with `interrupt='leave'` none. `progress` shows a bar in a notebook, and says in one line why no job was
        done for two seconds; it is that of `call()`.

        >>> emu.map("add", [{"x": 1}, {"x": 2}])[["x", "outcome", "value"]]
           x outcome  value
        0  1      ok      2
        1  2      ok      3
        """
        self._starting(query_type, deployed_app_rid).wait(progress=progress)
        name, rid = self._target(query_type, deployed_app_rid)
        rows, tell = self._prepare(name, queries, rid, branch, concurrency, progress, validate)
        own = self._interruptible(interrupt, progress=progress, total=len(rows.queries))
        own.run(self._map(own, rows, tell, name, rid, branch))
        return rows.frame()

    async def amap(
        self,
        query_type: Function,
        queries: Iterable[object] | pd.DataFrame,
        deployed_app_rid: str | None = None,
        branch: str | None = None,
        *,
        concurrency: int = 16,
        progress: bool | None = None,
        validate: bool = True,
        interrupt: str | None = None,
    ) -> pd.DataFrame:
        """Do as `map()` does, in async code: awaitable on any loop."""
        await self._starting(query_type, deployed_app_rid).awaited(progress=progress)
        name, rid = self._target(query_type, deployed_app_rid)
        rows, tell = self._prepare(name, queries, rid, branch, concurrency, progress, validate)
        own = self._interruptible(interrupt, progress=progress, total=len(rows.queries))
        await own.arun(self._map(own, rows, tell, name, rid, branch))
        return rows.frame()

    def _prepare(
        self,
        query_type: str,
        queries: Iterable[object] | pd.DataFrame,
        rid: str | None,
        branch: str | None,
        concurrency: int,
        progress: bool | None,  # noqa: FBT001
        validate: bool,  # noqa: FBT001
    ) -> tuple[Mapping, Callable[[int, int], object]]:
        rows = Mapping(queries, concurrency, self._encoder(query_type, rid, branch, check=validate))
        return rows, progress_bar(len(rows.queries), wanted=shows_progress(cast("Emulator", self), progress))

    async def _map(
        self,
        own: Interruptible,
        rows: Mapping,
        tell: Callable[[int, int], object],
        query_type: str,
        rid: str | None,
        branch: str | None,
    ) -> None:
        await rows.run(own, lambda text: self._submit(query_type, text, rid, branch), tell)

    def _interruptible(
        self, interrupt: str | None = None, *, progress: bool | None = None, total: int = 0
    ) -> Interruptible:
        emulator = cast("Emulator", self)
        return Interruptible(emulator, WaitLine(emulator, progress=progress, total=total), interrupt)

    def _prepare_call(
        self,
        own: Interruptible,
        submit: Callable[[], Coroutine[Any, Any, JobHandle]],
        timeout: float | None,
        *,
        echo: bool,
    ) -> Coroutine[Any, Any, tuple[str, bytes]]:
        """Check a call where it is made, and return what submits it and waits, in one go on the emulator's loop."""
        check_timeout(timeout)
        show = echo_here() if echo else None

        async def submit_and_wait() -> tuple[str, bytes]:
            job = await own.submit(submit)
            if show is not None:
                self.lifecycle.log(job.id).echo(show)
            return job.id, await fetch(cast("Emulator", self), job.id, timeout)

        return submit_and_wait()

    def _job(
        self,
        function: Function,
        query: object,
        rid: str | None,
        branch: str | None,
        fields: dict[str, Any],
        *,
        check: bool = False,
        named: dict[str, Any] | None = None,
    ) -> Callable[[], Coroutine[Any, Any, JobHandle]]:
        """Return what submits a job, of a query that is encoded here and, if wanted, checked.

        `named` are parameters of the call that a field might have meant, if they were given.
        """
        name, app = self._target(function, rid)
        encoder = self._encoder(name, app, branch, check=check)
        if check and isinstance(query, str | float | list | None):
            given = {**(named or {}), "query": query, "deployed_app_rid": rid, "branch": branch}
            refuse_clashes(name, encoder.schema(), given)
        text = encoder.encode(query_of(query, fields, name))
        return lambda: self._submit(name, text, app, branch)

    def _starting(self, function: Function, rid: str | None, timeout: float | None = None) -> Starting:
        """Return the launched modules that a call has to wait for before it can know which app has the function."""
        return Starting(cast("Emulator", self), *self._target(function, rid), timeout)

    def _target(self, function: Function, rid: str | None) -> tuple[str, str | None]:
        """Return the name of a function and the app to call it through; None for the one that serves it."""
        if isinstance(function, str):
            return function, rid
        name, runtime_id = self.functions.name_of(function)
        if rid is None and runtime_id is not None:
            # Another function of that name may be served elsewhere.
            rid = choose_app({app.deployed_app_rid for app in self.lifecycle.apps_of(runtime_id)}, set())
        return name, rid

    def _encoder(self, query_type: str, rid: str | None, branch: str | None, *, check: bool) -> QueryEncoder:
        """Return what encodes queries for a function; to `check` them it must be known, or `NotFound`."""
        if check:
            if rid is None:
                self._check_bound(query_type)
            schema = self._schema_to_check(self._runtime_of(rid or self._app_of(query_type), branch), query_type)
            return QueryEncoder(query_type, lambda: schema, check=True)

        def find_schema() -> object:
            try:
                runtime_id = self.lifecycle.resolve_app(rid or self._app_of(query_type), branch).runtime_id
            except NotFound:  # which submitting says too
                return None
            return self.functions.schema_of(runtime_id, query_type)

        return QueryEncoder(query_type, find_schema, check=False)

    def _runtime_of(self, rid: str, branch: str | None) -> str:
        try:
            return self.lifecycle.resolve_app(rid, branch).runtime_id
        except NotFound as error:
            bound = self.lifecycle.deployed_apps()
            branches = {app.branch for app in bound if app.deployed_app_rid == rid}
            rids = {app.deployed_app_rid for app in bound}
            similar = f"{closest(rid, rids)} {known(rids, 'deployed apps')}"
            raise NotFound(f"{error} {known(branches, 'branches')}" if branches else f"{error}{similar}") from None

    async def _submit(self, query_type: str, query: bytes, rid: str | None, branch: str | None) -> JobHandle:
        job_id = await self.client.submit(rid or self._app_of(query_type), branch, query_type, query)
        return JobHandle(cast("Emulator", self), job_id)

    def check_query(self, runtime_id: str, query_type: str, query: object) -> None:
        """Check a query against a function's schema before it is submitted.

        Raises `InvalidRequest` with the fields that are wrong, `NotFound` for an unknown function or runtime.
        """
        check_query(query_type, self._schema_to_check(runtime_id, query_type), query)

    def _schema_to_check(self, runtime_id: str, query_type: str) -> object:
        schema = self.functions.schema_of(runtime_id, query_type)
        if schema is None:
            self._check_name(query_type, [each.function_name for each in self.lifecycle.schemas(runtime_id)])
        return schema

    def _check_bound(self, query_type: str) -> None:
        """Refuse a function that no bound app has, if all of them say which they have."""
        state = self.lifecycle
        if any(map(state.is_bound, state.runtimes_serving(query_type))):
            return
        bound = {app.runtime_id for app in state.deployed_apps()}
        names = [[each.function_name for each in state.schemas(runtime_id)] for runtime_id in bound]
        if all(names):
            self._check_name(query_type, sorted({name for each in names for name in each}))

    def _check_name(self, query_type: str, names: list[str]) -> None:
        # A runtime that has posted no schemas may serve anything.
        if names:
            raise NotFound(
                f"No function {quoted(query_type)} is served.{closest(query_type, names)} {known(names, 'functions')} "
                "validate=False sends anything."
            )

    def _app_of(self, query_type: str) -> str:
        """Return the app to call when none was given."""
        state = self.lifecycle
        rids = set(state.app_rids())
        serving = {app.deployed_app_rid for each in state.runtimes_serving(query_type) for app in state.apps_of(each)}
        if chosen := choose_app(rids, serving):
            return chosen
        if rids:
            names = " or ".join(map(quoted, sorted(rids)[:MAX_NAMES]))
            raise NotFound(f"{len(rids)} deployed apps are bound: say which one, deployed_app_rid={names}.")
        raise NotFound(f"No deployed app is bound, so there is none to call. {self._way_to_call(query_type)}")

    def _way_to_call(self, query_type: str) -> str:
        for runtime_id in self.lifecycle.runtimes_serving(query_type)[:1]:
            return f"{self.name}.runtime({runtime_id!r}).enqueue({query_type!r}) needs none."
        return (
            f"@{self.name}.function above a function serves it, and "
            f"{self.name}.open_runtime('my-runtime', deployed_app_rid='ri...') binds one."
        )
