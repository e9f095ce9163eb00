"""Calling functions through a deployed app: one job, its result, or many of them at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cmemu_nb.calls.batch import Mapping
from cmemu_nb.calls.handles import JobHandle, fetch, value_of
from cmemu_nb.calls.interrupts import Interruptible
from cmemu_nb.calls.startup import Starting
from cmemu_nb.calls.streams import ItemStream
from cmemu_nb.calls.wait_line import WaitLine, shows_progress
from cmemu_nb.clients.contour import check_timeout
from cmemu_nb.display.progress import progress_bar
from cmemu_nb.errors import MAX_NAMES, NotFound, known, not_served
from cmemu_nb.eventloop.shell import echo_here
from cmemu_nb.lifecycle.records import NOTEBOOK_APP
from cmemu_nb.phrases import closest, quoted
from cmemu_nb.wire.queries import QueryEncoder, query_of, refuse_clashes
from cmemu_nb.wire.query_check import check_query

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    import pandas as pd

    from cmemu_nb.executors.cells.functions import Function
    from cmemu_nb.executors.executors import Executors


def choose_app(bound: set[str], serving: set[str]) -> str | None:
    """Return the app to call when none was given: the only one, the only one that serves it, the notebook's own."""
    for choice in (bound, serving, bound & {NOTEBOOK_APP}):
        if len(choice) == 1:
            return next(iter(choice))
    return None


@dataclass(frozen=True)
class Call:
    """What is called, as it was given, and how.

    `query` is one object, or its `fields` are given; the app is the one that serves the function if `rid` is None.
    `check` says whether the query is checked before it is submitted; the other options are those of `Emulator.call`.
    """

    function: Function
    query: object = None
    rid: str | None = None
    branch: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    check: bool = False
    timeout: float | None = None
    echo: bool = False
    interrupt: str | None = None
    progress: bool | None = None

    @property
    def given(self) -> dict[str, object]:
        """The parameters of the method, of which a name may have been meant as a field of the query."""
        options = {"timeout": self.timeout, "echo": self.echo or None, "interrupt": self.interrupt}
        target = {"query": self.query, "deployed_app_rid": self.rid, "branch": self.branch}
        return {**options, "progress": self.progress, **target}


@dataclass(frozen=True)
class Target:
    """Where a call goes: a function's name, its app and branch; `runtime_id` is None for an app that is not bound."""

    query_type: str
    rid: str
    branch: str | None
    runtime_id: str | None


class Calls:
    """Submits jobs and waits for them. Each method has an awaitable twin that begins with `a`."""

    def __init__(self, executors: Executors) -> None:
        self._executors = executors
        self._engine = executors.engine
        self._state = executors.engine.lifecycle

    def submit(self, call: Call) -> JobHandle:
        """Submit a job and return its handle."""
        self._starting(call).wait(progress=call.progress)
        own = self._interruptible(call)
        return own.run(own.submit(self._job(call))).submitted_here()

    async def asubmit(self, call: Call) -> JobHandle:
        """Do as `submit()` does."""
        await self._starting(call).awaited(progress=call.progress)
        own = self._interruptible(call)
        return (await own.arun(own.submit(self._job(call)))).submitted_here()

    def call(self, call: Call) -> Any:
        """Submit a job and return the value of its result."""
        self._starting(call).wait(progress=call.progress)
        own = self._interruptible(call)
        return value_of(self._executors, *own.run(self._result(call, own)))

    async def acall(self, call: Call) -> Any:
        """Do as `call()` does."""
        await self._starting(call).awaited(progress=call.progress)
        own = self._interruptible(call)
        return value_of(self._executors, *await own.arun(self._result(call, own)))

    def stream(self, call: Call) -> ItemStream:
        """Submit a job and return the items of its result, as they arrive."""
        self._starting(call).wait(progress=call.progress)
        own = self._interruptible(call)
        return ItemStream(self._executors, own.run(own.submit(self._job(call))).id, own)

    def map(self, call: Call, queries: Iterable[object] | pd.DataFrame, concurrency: int) -> pd.DataFrame:
        """Submit a job for each query, so many at once, and return their results; the call has no query itself."""
        self._starting(call).wait(progress=call.progress)
        rows, own, run = self._rows(call, queries, concurrency)
        own.run(run)
        return rows.frame()

    async def amap(self, call: Call, queries: Iterable[object] | pd.DataFrame, concurrency: int) -> pd.DataFrame:
        """Do as `map()` does."""
        await self._starting(call).awaited(progress=call.progress)
        rows, own, run = self._rows(call, queries, concurrency)
        await own.arun(run)
        return rows.frame()

    def _rows(
        self, call: Call, queries: Iterable[object] | pd.DataFrame, concurrency: int
    ) -> tuple[Mapping, Interruptible, Coroutine[Any, Any, None]]:
        """Check the queries where the call is made, and return them with what runs them on the emulator's loop."""
        target = self._resolve(call)
        rows = Mapping(queries, concurrency, self._encoder(target, check=call.check))
        bar = progress_bar(len(rows.queries), wanted=shows_progress(self._engine.settings, call.progress))
        own = self._interruptible(call, total=len(rows.queries))
        return rows, own, rows.run(own, lambda text: self._submit(target, text), bar)

    def _interruptible(self, call: Call, total: int = 0) -> Interruptible:
        line = WaitLine(self._executors, progress=call.progress, total=total)
        return Interruptible(self._engine, line, call.interrupt)

    def _result(self, call: Call, own: Interruptible) -> Coroutine[Any, Any, tuple[str, bytes]]:
        """Check a call where it is made, and return what submits it and waits, in one go on the emulator's loop."""
        check_timeout(call.timeout)
        submit = self._job(call)
        show = echo_here() if call.echo else None

        async def submit_and_wait() -> tuple[str, bytes]:
            job = await own.submit(submit)
            if show is not None:
                self._state.log(job.id).echo(show)
            return job.id, await fetch(self._executors, job.id, call.timeout)

        return submit_and_wait()

    def _job(self, call: Call) -> Callable[[], Coroutine[Any, Any, JobHandle]]:
        """Return what submits a job, of a query that is encoded here and, if wanted, checked."""
        target = self._resolve(call)
        encoder = self._encoder(target, check=call.check)
        if call.check and isinstance(call.query, str | float | list | None):
            refuse_clashes(target.query_type, encoder.schema(), call.given)
        text = encoder.encode(query_of(call.query, call.fields, target.query_type))
        return lambda: self._submit(target, text)

    async def _submit(self, target: Target, query: bytes) -> JobHandle:
        job_id = await self._engine.client.submit(target.rid, target.branch, target.query_type, query)
        return JobHandle(self._executors, job_id)

    # Where a call goes

    def _starting(self, call: Call) -> Starting:
        """Return the launched modules that a call has to wait for before it is known which app has the function."""
        return Starting(self._executors, *self._named(call), call.timeout)

    def _resolve(self, call: Call) -> Target:
        """Find out where a call goes; to be checked the function must be known, or `NotFound`."""
        name, rid = self._named(call)
        if call.check and rid is None:
            self._check_bound(name)
        rid = rid or self._app_of(name)
        return Target(name, rid, call.branch, self._runtime_of(rid, call.branch, must_be_bound=call.check))

    def _named(self, call: Call) -> tuple[str, str | None]:
        """Return the name of a function and the app to call it through; None for the one that serves it."""
        if isinstance(call.function, str):
            return call.function, call.rid
        name, runtime_id = self._executors.functions.name_of(call.function)
        if call.rid is None and runtime_id is not None:
            # Another function of that name may be served elsewhere.
            return name, choose_app({app.deployed_app_rid for app in self._state.apps_of(runtime_id)}, set())
        return name, call.rid

    def _runtime_of(self, rid: str, branch: str | None, *, must_be_bound: bool) -> str | None:
        try:
            return self._state.resolve_app(rid, branch).runtime_id
        except NotFound as error:
            if not must_be_bound:  # submitting says so, too
                return None
            bound = self._state.deployed_apps()
            branches = {app.branch for app in bound if app.deployed_app_rid == rid}
            rids = {app.deployed_app_rid for app in bound}
            similar = f"{closest(rid, rids)} {known(rids, 'deployed apps')}"
            raise NotFound(f"{error} {known(branches, 'branches')}" if branches else f"{error}{similar}") from None

    def _app_of(self, query_type: str) -> str:
        """Return the app to call when none was given."""
        state = self._state
        rids = set(state.app_rids())
        serving = {app.deployed_app_rid for each in state.runtimes_serving(query_type) for app in state.apps_of(each)}
        if chosen := choose_app(rids, serving):
            return chosen
        if rids:
            names = " or ".join(map(quoted, sorted(rids)[:MAX_NAMES]))
            raise NotFound(f"{len(rids)} deployed apps are bound: say which one, deployed_app_rid={names}.")
        raise NotFound(f"No deployed app is bound, so there is none to call. {self._way_to_call(query_type)}")

    def _way_to_call(self, query_type: str) -> str:
        for runtime_id in self._state.runtimes_serving(query_type)[:1]:
            return f"{self._engine.name}.runtime({runtime_id!r}).enqueue({query_type!r}) needs none."
        return (
            f"@{self._engine.name}.function above a function serves it, and "
            f"{self._engine.name}.open_runtime('my-runtime', deployed_app_rid='ri...') binds one."
        )

    # Checking

    def _encoder(self, target: Target, *, check: bool) -> QueryEncoder:
        """Return what encodes queries for a function; to `check` them it must be known, or `NotFound`."""
        name, runtime_id = target.query_type, target.runtime_id
        if check and runtime_id is not None:
            schema = self._schema_to_check(runtime_id, name)
            return QueryEncoder(name, lambda: schema, check=True)

        def find_schema() -> object:
            return None if runtime_id is None else self._executors.functions.schema_of(runtime_id, name)

        return QueryEncoder(name, find_schema, check=False)

    def check_query(self, runtime_id: str, query_type: str, query: object) -> None:
        """Check a query against a function's schema before it is submitted."""
        check_query(query_type, self._schema_to_check(runtime_id, query_type), query)

    def _schema_to_check(self, runtime_id: str, query_type: str) -> object:
        schema = self._executors.functions.schema_of(runtime_id, query_type)
        if schema is None:
            self._check_name(query_type, [each.function_name for each in self._state.schemas(runtime_id)])
        return schema

    def _check_bound(self, query_type: str) -> None:
        """Refuse a function that no bound app has, if all of them say which they have."""
        state = self._state
        if any(map(state.is_bound, state.runtimes_serving(query_type))):
            return
        bound = {app.runtime_id for app in state.deployed_apps()}
        names = [[each.function_name for each in state.schemas(runtime_id)] for runtime_id in bound]
        if all(names):
            self._check_name(query_type, sorted({name for each in names for name in each}))

    def _check_name(self, query_type: str, names: list[str]) -> None:
        # A runtime that has posted no schemas may serve anything.
        if names:
            raise NotFound(f"{not_served(query_type, names)} validate=False sends anything.")
