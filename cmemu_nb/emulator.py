"""The emulator: the one object that people hold. Its methods are all of its API, on one page."""

# ruff: noqa: PLC0415 - what a view needs, such as pandas, is imported when the view is wanted

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cmemu_nb.calls.calls import Call, Calls
from cmemu_nb.calls.diagnosis import diagnose
from cmemu_nb.calls.handles import JobHandle, RuntimeHandle, print_reset
from cmemu_nb.display.job_search import find_job, find_unfinished
from cmemu_nb.display.names import name_of, note_start
from cmemu_nb.display.text import holdings
from cmemu_nb.engine.engine import Engine
from cmemu_nb.errors import InvalidRequest
from cmemu_nb.executors.executors import Executors
from cmemu_nb.settings import hide_tokens, make_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    import pandas as pd
    from distributed import Client

    from cmemu_nb.calls.diagnosis import Diagnosis
    from cmemu_nb.calls.streams import ItemStream
    from cmemu_nb.clients.contour import ContourClient
    from cmemu_nb.dashboard.board import Board
    from cmemu_nb.dashboard.widget import Dashboard
    from cmemu_nb.display.charts import Chart
    from cmemu_nb.engine.fault_injection import FaultInjection
    from cmemu_nb.eventloop.home import Home
    from cmemu_nb.executors.cells.functions import Function, Functions
    from cmemu_nb.executors.cluster.cluster import Cluster
    from cmemu_nb.executors.cluster.clusters import Clusters
    from cmemu_nb.executors.modules.environment import ModuleEnvironment
    from cmemu_nb.executors.modules.modules import LaunchedModule, Modules
    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.snapshot import Seed
    from cmemu_nb.server.application import Application
    from cmemu_nb.settings import Settings
    from cmemu_nb.storage.certificates import Certificates
    from cmemu_nb.storage.private_files import PrivateFiles
    from cmemu_nb.storage.replica_files import ReplicaFiles
    from cmemu_nb.storage.session_file import Contents
    from cmemu_nb.tokens import Token

T = TypeVar("T")


class Emulator:
    """An emulator of the compute-module runtime lifecycle, with its own HTTP server.

    Outside notebooks it is a context manager, also for `async with`; in a notebook `%cmemu start` makes one. The
    settings are those of `cmemu_nb.settings.Settings`, by name: `port` (4000, a free one if taken), `tls_port`
    (8945), `token` (of the contour routes, random if not given), `tokens` (further ones), `client_id`,
    `client_secret` and `access_token_seconds` of the OAuth client, `host`, `local_hostnames`, `allow_remote`;
    `execute_timeout`, `job_timeout` and `refusal_seconds` in seconds; `max_body_bytes`, `max_schema_bytes`,
    `max_label_bytes`, `max_concurrent_tasks` (of functions in cells), `interrupt` ('cancel' or 'leave', what an
    interrupt does to jobs), `progress` (whether calls say why they wait), `keep_events`, `keep_jobs` (100,000),
    `keep_bytes` (1 GiB), `max_queued`, `max_runtimes` (10,000), `home` ('auto', 'kernel' or 'thread'); `journal` (a
    file) and `journal_sync`; `max_connections`, `max_waiting`, `slow_client_seconds`, `idle_seconds`, `hide_tokens`,
    `protect_notebook` for what others may do. An unknown or wrong one is a
    `SettingError`; `settings` has them. To change something use its methods; `lifecycle` is for looking, from any
    thread. `functions` are those that are served, `faults` those that are on; `started_at` is in Unix nanoseconds,
    0 before; `application` answers the requests; `seed` is the seed file that it began with, or None.

    >>> with Emulator(port=0) as emu:
    ...     runtime = emu.open_runtime("my-runtime", deployed_app_rid="ri.foundry.main.deployed-app.my-app")
    ...     emu.submit("add", {"x": 1, "y": 2}).status
    <JobStatus.QUEUED: 'queued'>
    """

    def __init__(self, **settings: Any) -> None:
        self._engine = Engine(make_settings(settings), lambda: name_of(self), self._environment, self._diagnosis)
        self._executors = Executors(self._engine)
        self._calls = Calls(self._executors)

    # Made of a file

    @classmethod
    def from_export(cls, path: str | Path) -> Self:
        """Return the session that `emu.export` wrote, for looking only: frames, charts, dashboard, `job.result()`.

        It can't be started. Raises `SessionFileError` for a file that is no session, damaged or of a newer version.

        >>> Emulator.from_export(emu.export("run.json"))
        <Emulator, read from a file: 1 runtime, 0 jobs>
        """
        from cmemu_nb.storage import session_file

        found = session_file.read(session_file.expanded(path))
        emulator = cls(port=found.port, keep_events=max(len(found.events), 10_000))
        emulator._engine.adopt(
            found,
            f"This session was read from {path} and can only be looked at. %cmemu start or Emulator() runs a new one.",
        )
        return emulator

    @classmethod
    def from_seed(cls, path: str | Path, **settings: Any) -> Self:
        """Return an emulator that begins with what a YAML file says, not started yet; `%cmemu help seed` describes it.

        Settings that are given win over the file's. Raises `SeedError` with the file's line and what it takes, or
        `SettingError`.
        """
        from cmemu_nb.storage import seed_file

        return cls.of_seed(seed_file.read(path, settings))

    @classmethod
    def of_seed(cls, seed: Seed) -> Self:
        """Return an emulator that begins with a seed file that was read, not started yet."""
        emulator = cls(**seed.settings)
        emulator._engine.identity.seed = seed
        emulator.lifecycle.events.hide(*emulator.bearer_tokens)
        return emulator

    # Starting and stopping

    def start(self, **settings: Any) -> Self:
        """Listen and serve; nothing when it runs already. One that was stopped keeps its token, jobs and functions.

        It listens where it did before. `settings` change those that it has, which must be done while it is stopped. A
        `journal` takes in all that there is, if it is a new file. Raises `SettingError` for a setting that is wrong or
        can't be changed, `JournalError` for a journal that can't be used.

        >>> emu.stop()
        >>> emu.start(execute_timeout=5).settings.execute_timeout
        5.0
        """
        hide_tokens(settings)
        note_start(self)
        self._engine.start(settings)
        return self

    def stop(self) -> None:
        """End every connection and the server; the frames and records stay readable. Nothing when it is stopped.

        An interrupt meanwhile is raised when it is done. Should a part fail to end, all others end, and a `StopWarning`
        says why; the events have the tracebacks. Raises `HomeError` while an event callback does not return.
        """
        self._engine.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Launched programs have some seconds to end, in which other tasks run.
        await asyncio.to_thread(self.stop)

    @property
    def settings(self) -> Settings:
        """The settings that it has; a start may change them."""
        return self._engine.settings

    @property
    def seed(self) -> Seed | None:
        """The seed file that it began with, or None."""
        return self._engine.identity.seed

    def other_settings(self, settings: Mapping[str, Any]) -> list[str]:
        """Return the names of those settings that it has otherwise; a wrong one is a `SettingError`."""
        return self._engine.identity.other_settings(settings)

    def can_have_journal(self, journal: str | None) -> bool:
        """Return whether it can be started with a journal: once it has been started, its own or a new file."""
        return self._engine.identity.can_have_journal(journal)

    # Where it is, and how to reach it

    @property
    def running(self) -> bool:
        """Whether it serves."""
        return self._engine.running

    @property
    def read_from(self) -> str:
        """Why it can't be started: the session was read from a file. "" for any other."""
        return self._engine.read_from

    @property
    def started_at(self) -> int:
        """When it was started last, in Unix nanoseconds; 0 before."""
        return self._engine.identity.started_at

    @property
    def uptime(self) -> int:
        """For how many nanoseconds it runs, or did until it was looked at, whatever became of the clock meanwhile."""
        return self._engine.uptime

    @property
    def name(self) -> str:
        """The variable of the notebook that holds it, as far as is known: `emu` otherwise. Hints say it."""
        return self._engine.name

    @property
    def port(self) -> int:
        """The port that it listens on; the wanted one before it is started."""
        return self._engine.port

    @property
    def url(self) -> str:
        """The address of the plain HTTP server."""
        return self._engine.url

    @property
    def proxy_url(self) -> str | None:
        """Where a browser reaches it through a hub, by jupyter-server-proxy; None without a hub.

        Without the hub's host where the hub does not tell it. Every request there needs a token.
        """
        return self._engine.proxy_url

    @property
    def platform_url(self) -> str:
        """The address of the platform routes, HTTPS; clients trust `certificates.authority_path`."""
        return self._engine.platform_url

    @property
    def token(self) -> Token:
        """The bearer token of the contour routes; `print()` it to see all of it."""
        return self._engine.identity.token

    @property
    def bearer_tokens(self) -> tuple[Token, ...]:
        """Every token that the contour routes accept."""
        return self._engine.identity.bearer_tokens

    @property
    def client_id(self) -> str:
        """The id of the OAuth client."""
        return self._engine.identity.client_id

    @property
    def client_secret(self) -> Token:
        """The secret of the OAuth client."""
        return self._engine.identity.client_secret

    @property
    def certificates(self) -> Certificates:
        """The certificate of the platform routes, and its authority."""
        return self._engine.identity.certificates

    @property
    def files(self) -> PrivateFiles:
        """The private directory of this emulator's certificates and tokens; beside the journal, if there is one."""
        return self._engine.identity.files

    @property
    def replica_files(self) -> ReplicaFiles:
        """The files that replicas outside of this process are given, such as their tokens."""
        return self._engine.identity.replica_files

    # Runtimes and jobs

    def open_runtime(
        self,
        runtime_id: str,
        deployed_app_rid: str | None = None,
        branch: str | None = None,
        display_name: str | None = None,
    ) -> RuntimeHandle:
        """Open a runtime's session, or reset the one that exists and print what that threw away [page].

        `branch` is `master` if an app is given without one. Raises `InvalidRequest` for an id that can't be one.
        """
        runtime, thrown_away = self.change(
            lambda lifecycle: lifecycle.open_session(runtime_id, deployed_app_rid, branch, display_name)
        )
        print_reset(runtime.runtime_id, thrown_away)
        return RuntimeHandle(self._executors, runtime.runtime_id)

    def runtime(self, runtime_id: str) -> RuntimeHandle:
        """Return the handle of a runtime that exists; a `NotFound` lists the known ones."""
        return RuntimeHandle(self._executors, self.lifecycle.runtime(runtime_id).runtime_id)

    def job(self, job: str | JobHandle | Job) -> JobHandle:
        """Return the handle of a job that exists: by its id, or at least the last four characters of it.

        A handle or a record of a job is as good. `InvalidRequest` lists the jobs whose ids end so if there are several,
        `NotFound` the newest ones if there is none; `JobEvicted` if it was let go.

        >>> job = emu.submit("add", {"x": 1})
        >>> emu.job(job.id[-6:]).id == job.id
        True
        """
        return JobHandle(self._executors, find_job(self.lifecycle, job, self.looked_at()).job_id)

    def cancel(self, jobs: str | JobHandle | Job = "all", reason: str = "") -> int:
        """End queued and running jobs: one, as in `job()`, those of a function by its name, or "all" [ours].

        Their error messages say that they were cancelled and why; functions in cells are ended where Python can do
        that. Returns how many jobs were ended, of those that are done none. A `NotFound` lists the functions that have
        unfinished jobs.

        >>> rt = emu.open_runtime("my-runtime")
        >>> job, other = rt.enqueue("multiply"), rt.enqueue("multiply")
        >>> emu.cancel("multiply"), emu.cancel("multiply"), other.record.error_message
        (2, 0, 'cancelled: by emu.cancel()')
        """
        now = self.looked_at()
        why = reason or f"by {self.name}.cancel()"
        return self.change(lambda lifecycle: lifecycle.cancel(find_unfinished(lifecycle, jobs, now), why))

    def reset(self) -> None:
        """Forget every runtime with its jobs, schemas and bindings [ours]; what a seed file says is there again.

        `NotRunning` when it is stopped.
        """
        self.change(lambda lifecycle: lifecycle.reset())

    # Calling functions. Every synchronous method has an awaitable twin that begins with `a`

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
        return self._calls.submit(Call(query_type, query, deployed_app_rid, branch, fields))

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
        return await self._calls.asubmit(Call(query_type, query, deployed_app_rid, branch, fields))

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
        call = Call(
            query_type,
            query,
            deployed_app_rid,
            branch,
            fields,
            check=validate,
            timeout=timeout,
            echo=echo,
            interrupt=interrupt,
            progress=progress,
        )
        return self._calls.call(call)

    async def acall(  # noqa: PLR0913 - each is an option of its own
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
        call = Call(
            query_type,
            query,
            deployed_app_rid,
            branch,
            fields,
            check=validate,
            timeout=timeout,
            echo=echo,
            interrupt=interrupt,
            progress=progress,
        )
        return await self._calls.acall(call)

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
        call = Call(
            query_type, query, deployed_app_rid, branch, fields, check=validate, interrupt=interrupt, progress=progress
        )
        return self._calls.stream(call)

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
        call = Call(query_type, None, deployed_app_rid, branch, check=validate, interrupt=interrupt, progress=progress)
        return self._calls.map(call, queries, concurrency)

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
        call = Call(query_type, None, deployed_app_rid, branch, check=validate, interrupt=interrupt, progress=progress)
        return await self._calls.amap(call, queries, concurrency)

    def check_query(self, runtime_id: str, query_type: str, query: object) -> None:
        """Check a query against a function's schema before it is submitted.

        Raises `InvalidRequest` with the fields that are wrong, `NotFound` for an unknown function or runtime.
        """
        self._calls.check_query(runtime_id, query_type, query)

    # Executors: functions in cells, launched programs, replicas on clusters

    def function(
        self, function: Callable[..., Any] | None = None, *, streaming: bool = False, edits: Sequence[Any] | None = None
    ) -> Any:
        """Serve a function on the runtime `notebook`; a decorator with the signature of the official SDK's.

        The function is returned as it is. Defining it again serves the new version. Raises `FunctionRefused` with
        the SDK's reason and what to do.

        >>> @emu.function
        ... def shout(context, event: Words) -> str:
        ...     return event.text.upper()
        >>> emu.call("shout", {"text": "hello"})
        'HELLO'
        """
        return self.functions.decorate(function, None, streaming=streaming, edits=edits)

    @property
    def functions(self) -> Functions:
        """The functions that are served."""
        return self._executors.functions

    def launch(
        self,
        command: str | Sequence[str],
        runtime: RuntimeHandle | str | None = None,
        *,
        replicas: int = 1,
        max_concurrent_tasks: int = 1,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        **extras: Any,
    ) -> LaunchedModule:
        """Launch a program, such as `"python app.py"` with an official SDK, as a runtime's module.

        Each of the `replicas` is a process with a token of its own, which is handed at most `max_concurrent_tasks`
        unfinished jobs at a time. Without `runtime` it is one named after the program's file, bound to an app of
        that name; an unknown id is opened so too. `python` is the kernel's own interpreter. The further options are
        those of a deployed module's configuration: `sources`, `source_configurations`, `aliases`, `client_id`,
        `client_secret`, `build2_token`. Raises `LaunchFailed` for a program that ends at once, or that there is not,
        `InvalidRequest` for an option that can't be; then no runtime is left behind that was not there before.

        >>> module = emu.launch("python app.py", replicas=2).wait_until_responsive()
        >>> module
        <Module 'app': python app.py: responsive, responsive>
        >>> emu.call("add", {"x": 40}, "ri.foundry.main.deployed-app.app")
        41
        >>> module.stop()
        """
        from cmemu_nb.executors.modules.environment import hide_secrets

        hide_secrets(extras)
        return self.modules.launch(
            command,
            _id_of(runtime),
            extras,
            replicas=replicas,
            max_concurrent_tasks=max_concurrent_tasks,
            env=env or {},
            cwd=cwd,
        )

    @property
    def modules(self) -> Modules:
        """The programs that were launched."""
        return self._executors.modules

    async def end_modules(self, reason: str) -> None:
        """End every program that was launched; without one this imports nothing."""
        if self._executors.launched:
            await self.modules.stopping(reason)

    @contextlib.contextmanager
    def launchable_runtime(self, runtime: RuntimeHandle | str) -> Iterator[str]:
        """Give a runtime's id; one that is not there is opened, bound to an app of its name, unless the block fails."""
        with self._executors.opened_runtime(_id_of(runtime)) as runtime_id:
            yield runtime_id

    def env(self, runtime: RuntimeHandle | str, max_concurrent_tasks: int = 1, **extras: Any) -> ModuleEnvironment:
        """Return the environment of one more replica of a runtime's module, for a program that you start yourself.

        Each call makes a replica with a token of its own, which is handed at most `max_concurrent_tasks` unfinished
        jobs at a time. Tokens and certificates are files in a private directory. It is a dict; `export_lines` is
        for a terminal, `docker_line(image)` for a container on the host's network. `extras` as in `launch()`. Raises
        `NotFound` for an unknown runtime.

        >>> emu.env("notebook")["MAX_CONCURRENT_TASKS"]
        '1'
        """
        from cmemu_nb.executors.modules.environment import add_replica, hide_secrets, read_extras

        hide_secrets(extras)
        runtime_id, read = _id_of(runtime), read_extras(extras)
        return self.change(lambda _: add_replica(self._engine, runtime_id, max_concurrent_tasks, read))[1]

    def scale(
        self,
        client: Client,
        replicas: int = 8,
        functions: Sequence[Callable[..., Any] | str] | Callable[..., Any] | str | None = None,
        runtime: RuntimeHandle | str | None = None,
        *,
        max_concurrent_tasks: int = 1,
        local: bool = False,
    ) -> Cluster:
        """Serve functions by replicas on the workers of a `dask.distributed` cluster, each with a token of its own.

        A replica is handed at most `max_concurrent_tasks` unfinished jobs at a time. `functions` are all that the
        runtime serves (`notebook` if left out); when some are given, by name or themselves, they are served on a
        runtime of their own, `cluster` if left out. A function's next version goes to all replicas. With `local=True`
        the notebook takes jobs as well. Returns at once; `wait_until_responsive()` waits. Raises `FunctionRefused` for
        functions that can't be shipped, `SettingError` when workers could not reach the emulator, `LaunchFailed` when
        the cluster can't run it, `InvalidRequest`.
        """
        return self.clusters.scale(client, replicas, functions, _id_of(runtime), max_concurrent_tasks, local=local)

    @property
    def clusters(self) -> Clusters:
        """The clusters that serve functions."""
        return self._executors.clusters

    @property
    def faults(self) -> FaultInjection:
        """The faults that are on; call it to set some."""
        return self._engine.faults

    # What there is: DataFrames, charts, files

    @property
    def runtimes(self) -> pd.DataFrame:
        """The runtimes as a DataFrame, indexed by runtime_id: who polls, what is queued, what they have.

        >>> emu.runtimes[["display_name", "queued", "functions"]]
                   display_name  queued  functions
        runtime_id
        notebook       Notebook       0          2
        """
        from cmemu_nb.display import frames

        state = self.lifecycle
        return frames.runtimes_frame(
            state.runtimes(), state.outcomes_by_runtime(), state.schemas(), state.deployed_apps(), state.evicted()
        )

    @property
    def jobs(self) -> pd.DataFrame:
        """The jobs as a DataFrame in the order of submission, indexed by job_id; times are UTC, durations timedeltas.

        >>> emu.call("add", {"x": 1})
        2
        >>> emu.jobs.set_index("query_type")[["status", "outcome"]]
                       status outcome
        query_type
        add         succeeded      ok
        """
        from cmemu_nb.display import frames

        return frames.jobs_frame(self.lifecycle.jobs(), self.steady_at())

    @property
    def schemas(self) -> pd.DataFrame:
        """The function schemas as a DataFrame, indexed by runtime_id and function_name.

        >>> emu.schemas.index.to_list()
        [('notebook', 'add'), ('notebook', 'words')]
        """
        from cmemu_nb.display import frames

        return frames.schemas_frame(self.lifecycle.schemas())

    @property
    def deployed_apps(self) -> pd.DataFrame:
        """The bindings as a DataFrame, indexed by deployed_app_rid and branch.

        >>> emu.deployed_apps.index.to_list()
        [('ri.foundry.main.deployed-app.notebook', 'master')]
        """
        from cmemu_nb.display import frames

        return frames.deployed_apps_frame(self.lifecycle.deployed_apps())

    @property
    def events(self) -> pd.DataFrame:
        """What happened as a DataFrame, oldest first, without the empty polls and the chunks of streams.

        >>> emu.open_runtime("r").delete()
        >>> emu.events.query("runtime_id == 'r'")["kind"].to_list()
        ['session_opened', 'session_deleted']
        """
        return self.event_frame()

    def event_frame(self, *, all: bool = False) -> pd.DataFrame:  # noqa: A002 - named as the option of the magic
        """Return what happened, oldest first; `all=True` adds the empty polls and the chunks of streams."""
        from cmemu_nb.display import frames

        return frames.events_frame(self.lifecycle.events.recent(all=all))

    def timeline(self, most: int = 200) -> Chart:
        """Return a chart of the last jobs by replica or worker: when each was queued and ran.

        There are at most `most` of them. Raises `InvalidRequest` for less than one.
        """
        if most < 1:
            raise InvalidRequest(f"A timeline needs at least one job, not {most}. Leave it out for the last 200.")
        from cmemu_nb.display.charts import timeline_chart

        state, emu = self.lifecycle, self.name
        return timeline_chart(
            state.newest_jobs(most), self.looked_at(), state.count().total(), emu, steady=self.steady_at()
        )

    def latency(self) -> Chart:
        """Return a histogram of how long the jobs waited and ran, in seconds or parts of them."""
        from cmemu_nb.display.charts import latency_chart

        return latency_chart(self.lifecycle.jobs(), emu=self.name)

    def dashboard(self) -> Dashboard:
        """Return a widget that shows the whole lifecycle live, and lets you act on it; for notebooks.

        Under it stands a static summary that is still there when the kernel is gone. `close()` ends it.
        """
        from cmemu_nb.dashboard.widget import Dashboard

        return Dashboard(self)

    @functools.cached_property
    def board(self) -> Board:
        """What keeps the dashboards up to date."""
        from cmemu_nb.dashboard.board import Board

        return Board(self)

    def export(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write all that there is to a JSON file, for `Emulator.from_export` elsewhere and later; returns its path.

        Runtimes, bindings, schemas, jobs with queries and results, events, and what functions printed; of tokens only
        the last four characters. The file is for its owner only (0600). Raises `SessionFileError` for one that exists,
        unless `overwrite` is True, and for one that can't be written.

        >>> emu.export("run.json", overwrite=True).name
        'run.json'
        """
        from cmemu_nb.storage import session_file

        path = session_file.expanded(path)
        session_file.write(path, self._contents(), overwrite=overwrite)
        return path

    def _contents(self) -> Contents:
        from cmemu_nb.storage import session_file

        def take() -> Contents:
            return session_file.contents(self.lifecycle, self.url, self.looked_at(), self.steady_at())

        async def take_on_loop() -> Contents:
            return take()

        # Where it is changed, so that it is one moment's; but not as a change, which would wait for the journal.
        return self.home.run(take_on_loop()) if self.running else take()

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI 3.1 document of the routes, as `GET /openapi.json` answers it; of a stopped emulator too.

        `GET /docs` shows the same in a browser.
        """
        from cmemu_nb.server.application import SURFACES
        from cmemu_nb.server.openapi.document import document
        from cmemu_nb.version import __version__

        return document(SURFACES, __version__)

    def looked_at(self) -> int:
        """Return up to when the views count, in Unix nanoseconds: now, or when a session from a file was exported."""
        return self._engine.looked_at()

    def steady_at(self) -> int:
        """Return the same moment on the steady clock, up to which durations count."""
        return self._engine.steady_at()

    # Below: the lifecycle, its events and its loop

    @property
    def lifecycle(self) -> Lifecycle:
        """The state, to be read from any thread."""
        return self._engine.lifecycle

    def change(self, operation: Callable[[Lifecycle], T]) -> T:
        """Change something in the Lifecycle, on the emulator's loop, and return what `operation` returns."""
        return self._engine.change(operation)

    def on_event(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call `callback(event)` after each thing that happens; returns the function that ends it.

        It is called on the emulator's loop, after whatever caused the event was answered; an `async def` is run as
        a task. What it raises becomes an event, `listener_failed`, which no listener is called for. Raises
        `InvalidRequest` for what can't be called.
        """
        return self._engine.listeners.add(callback)

    @property
    def application(self) -> Application:
        """What answers the requests."""
        return self._engine.application

    @property
    def home(self) -> Home:
        """What runs the emulator's loop; `NotRunning` when it is stopped."""
        return self._engine.home

    @property
    def client(self) -> ContourClient:
        """The HTTP client of the emulator's own loop; `NotRunning` when it is stopped."""
        return self._engine.client

    def _environment(self, runtime_id: str, max_concurrent_tasks: int) -> ModuleEnvironment:
        from cmemu_nb.executors.modules.environment import add_replica

        return add_replica(self._engine, runtime_id, max_concurrent_tasks)[1]

    def _diagnosis(self, job_id: str) -> Diagnosis:
        return diagnose(self._executors, job_id, in_shell=True)  # an HTTP client has no variables of the notebook

    def __repr__(self) -> str:
        if "_engine" not in vars(self):  # a traceback shows it
            return "<Emulator, not made: its settings were refused>"
        if not self.running and not self.read_from:
            return f"<Emulator, not running: {self.name}.start() starts it again>"
        holds = holdings(self.lifecycle)
        if self.read_from:
            return f"<Emulator, read from a file: {holds}>"
        behind = f", behind the hub {self.proxy_url}" if self.proxy_url else ""
        return f"<Emulator at {self.url}{behind}: {holds}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from cmemu_nb.display.cards import show_emulator

        return show_emulator(self)


def _id_of(runtime: RuntimeHandle | str | None) -> Any:
    return runtime.id if isinstance(runtime, RuntimeHandle) else runtime
