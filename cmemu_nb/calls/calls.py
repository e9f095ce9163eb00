"""Calling functions through a deployed app: submitting one job or many, and waiting for their results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cmemu_nb.calls.batch import Mapping
from cmemu_nb.calls.handles import JobHandle, fetch, value_of
from cmemu_nb.calls.interrupts import Interruptible
from cmemu_nb.calls.startup import Starting
from cmemu_nb.calls.streams import ItemStream
from cmemu_nb.calls.wait_line import WaitLine, shows_progress
from cmemu_nb.display.progress import progress_bar
from cmemu_nb.errors import MAX_NAMES, NotFound, known, not_served
from cmemu_nb.eventloop.shell import echo_here
from cmemu_nb.lifecycle.records import NOTEBOOK_APP, why_unknown
from cmemu_nb.phrases import closest, quoted
from cmemu_nb.wire.queries import QueryEncoder, query_of, refuse_clashes
from cmemu_nb.wire.query_check import check_query

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    import pandas as pd

    from cmemu_nb.executors.cells.functions import Function
    from cmemu_nb.executors.executors import Executors


def choose_app(bound: set[str], serving: set[str]) -> str | None:
    """Return the app to call by default: the only `bound` one, the only one `serving` the function, the notebook's."""
    for choice in (bound, serving, bound & {NOTEBOOK_APP}):
        if len(choice) == 1:
            return next(iter(choice))
    return None


@dataclass(frozen=True)
class Call:
    """The arguments of a call: a function, a query, a deployed app, and options.

    The query is one object, `query`, or its `fields`. `rid` is the app's; None stands for the app that serves the
    function. `check` says whether the query is checked before it is submitted; the other options are those of
    `Emulator.call`.
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
        """The arguments by parameter name: a field of a query may have been meant by one of these names."""
        options = {"timeout": self.timeout, "echo": self.echo or None, "interrupt": self.interrupt}
        target = {"query": self.query, "deployed_app_rid": self.rid, "branch": self.branch}
        return {**options, "progress": self.progress, **target}


@dataclass(frozen=True)
class Target:
    """The target of a call: function name, app and branch, and the runtime, None if the app is not bound to one."""

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
        interruptible = self._interruptible(call)
        return interruptible.run(interruptible.submit(self._job(call))).submitted_here()

    async def asubmit(self, call: Call) -> JobHandle:
        """Do as `submit()` does."""
        await self._starting(call).awaited(progress=call.progress)
        interruptible = self._interruptible(call)
        return (await interruptible.arun(interruptible.submit(self._job(call)))).submitted_here()

    def call(self, call: Call) -> Any:
        """Submit a job and return the value of its result."""
        self._starting(call).wait(progress=call.progress)
        interruptible = self._interruptible(call)
        return value_of(self._executors, *interruptible.run(self._result(call, interruptible)))

    async def acall(self, call: Call) -> Any:
        """Do as `call()` does."""
        await self._starting(call).awaited(progress=call.progress)
        interruptible = self._interruptible(call)
        return value_of(self._executors, *await interruptible.arun(self._result(call, interruptible)))

    def stream(self, call: Call) -> ItemStream:
        """Submit a job and return an iterator over the items of its result."""
        self._starting(call).wait(progress=call.progress)
        interruptible = self._interruptible(call)
        return ItemStream(self._executors, interruptible.run(interruptible.submit(self._job(call))).id, interruptible)

    def map(self, call: Call, queries: Iterable[object] | pd.DataFrame, concurrency: int) -> pd.DataFrame:
        """Submit a job for each of `queries`, `concurrency` at a time, and return a DataFrame; `call` has no query."""
        self._starting(call).wait(progress=call.progress)
        rows, interruptible, run = self._rows(call, queries, concurrency)
        interruptible.run(run)
        return rows.frame()

    async def amap(self, call: Call, queries: Iterable[object] | pd.DataFrame, concurrency: int) -> pd.DataFrame:
        """Do as `map()` does."""
        await self._starting(call).awaited(progress=call.progress)
        rows, interruptible, run = self._rows(call, queries, concurrency)
        await interruptible.arun(run)
        return rows.frame()

    def _rows(
        self, call: Call, queries: Iterable[object] | pd.DataFrame, concurrency: int
    ) -> tuple[Mapping, Interruptible, Coroutine[Any, Any, None]]:
        """Check the queries in the caller's thread; return them with the coroutine for the emulator's loop."""
        target = self._resolve(call)
        rows = Mapping(queries, concurrency, self._encoder(target, check=call.check))
        bar = progress_bar(len(rows.queries), wanted=shows_progress(self._engine.settings, call.progress))
        interruptible = self._interruptible(call, total=len(rows.queries))
        return rows, interruptible, rows.run(interruptible, lambda text: self._submit(target, text), bar)

    def _interruptible(self, call: Call, total: int = 0) -> Interruptible:
        line = WaitLine(self._executors, progress=call.progress, total=total)
        return Interruptible(self._engine, line, call.interrupt)

    def _result(self, call: Call, interruptible: Interruptible) -> Coroutine[Any, Any, tuple[str, bytes]]:
        """Check a call in the caller's thread; return the coroutine that submits it and waits for its result."""
        submit = self._job(call)
        show = echo_here() if call.echo else None

        async def submit_and_wait() -> tuple[str, bytes]:
            job = await interruptible.submit(submit)
            if show is not None:
                self._state.log(job.id).echo(show)
            return job.id, await fetch(self._executors, job.id, call.timeout)

        return submit_and_wait()

    def _job(self, call: Call) -> Callable[[], Coroutine[Any, Any, JobHandle]]:
        """Encode and, if the call says so, check the query; return a function that submits the job."""
        target = self._resolve(call)
        encoder = self._encoder(target, check=call.check)
        if call.check and isinstance(call.query, str | float | list | None):
            refuse_clashes(target.query_type, encoder.schema(), call.given)
        text = encoder.encode(query_of(call.query, call.fields, target.query_type))
        return lambda: self._submit(target, text)

    async def _submit(self, target: Target, query: bytes) -> JobHandle:
        job_id = await self._engine.client.submit(target.rid, target.branch, target.query_type, query)
        return JobHandle(self._executors, job_id)

    # The target of a call

    def _starting(self, call: Call) -> Starting:
        """Return the wait for launched modules whose schemas may decide which app has the function."""
        return Starting(self._executors, *self._named(call), call.timeout)

    def _resolve(self, call: Call) -> Target:
        """Return the target of a call; if the call is checked, an unknown function is a `NotFound`."""
        name, rid = self._named(call)
        if call.check and rid is None:
            self._check_bound(name)
        rid = rid or self._app_of(name)
        return Target(name, rid, call.branch, self._runtime_of(rid, call.branch, must_be_bound=call.check))

    def _named(self, call: Call) -> tuple[str, str | None]:
        """Return a function's name and the app to call it through, None if that is still to be chosen."""
        if isinstance(call.function, str):
            return call.function, call.rid
        name, runtime_id = self._executors.functions.name_of(call.function)
        if call.rid is None and runtime_id is not None:
            # Another runtime may serve a different function of the same name.
            return name, choose_app({app.deployed_app_rid for app in self._state.apps_of(runtime_id)}, set())
        return name, call.rid

    def _runtime_of(self, rid: str, branch: str | None, *, must_be_bound: bool) -> str | None:
        try:
            return self._state.resolve_app(rid, branch).runtime_id
        except NotFound as error:
            if not must_be_bound:  # the submission raises the same error
                return None
            bound = self._state.deployed_apps()
            branches = {app.branch for app in bound if app.deployed_app_rid == rid}
            rids = {app.deployed_app_rid for app in bound}
            similar = f"{closest(rid, rids)} {known(rids, 'deployed apps')}"
            raise NotFound(f"{error} {known(branches, 'branches')}" if branches else f"{error}{similar}") from None

    def _app_of(self, query_type: str) -> str:
        """Return the app to call when the caller gave none."""
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
        """Return the encoder of a function's queries; with `check`, an unknown function is a `NotFound`."""
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
            names = [each.function_name for each in self._state.schemas(runtime_id)]
            self._check_name(query_type, names, [runtime_id])
        return schema

    def _check_bound(self, query_type: str) -> None:
        """Raise `NotFound` for a function that no bound app has, if all of them have posted their schemas."""
        state = self._state
        if any(map(state.is_bound, state.runtimes_serving(query_type))):
            return
        bound = {app.runtime_id for app in state.deployed_apps()}
        names = [[each.function_name for each in state.schemas(runtime_id)] for runtime_id in bound]
        if all(names):
            self._check_name(query_type, sorted({name for each in names for name in each}), bound)

    def _check_name(self, query_type: str, names: list[str], runtime_ids: Iterable[str]) -> None:
        # A runtime that has posted no schemas may serve anything.
        if names:
            errors = {each: self._state.runtime(each).import_error for each in runtime_ids}
            why = "".join(why_unknown(*each) for each in errors.items())
            raise NotFound(f"{not_served(query_type, names)} validate=False sends anything.{why}")
