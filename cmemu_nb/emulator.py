"""The emulator object: the facade with the whole public API of an emulator, grouped by purpose."""

# ruff: noqa: PLC0415 - what a view needs, such as pandas, is imported when the view is used

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cmemu_nb.calls.calls import Call, Calls
from cmemu_nb.calls.diagnosis import diagnose
from cmemu_nb.calls.handles import JobHandle, RuntimeHandle, print_reset
from cmemu_nb.display.job_search import find_job, find_unfinished
from cmemu_nb.display.names import name_of, note_start
from cmemu_nb.display.text import holdings
from cmemu_nb.engine.engine import Engine
from cmemu_nb.errors import ExportWarning, InvalidRequest
from cmemu_nb.executors.executors import Executors
from cmemu_nb.executors.opened_runtime import opened_runtime
from cmemu_nb.lifecycle.configuration import Configuration, hide_secrets
from cmemu_nb.phrases import listed
from cmemu_nb.server.context import Services
from cmemu_nb.settings import hide_tokens, make_settings
from cmemu_nb.tracebacks import warn_user
from cmemu_nb.wire.json_values import read_exactly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    import pandas as pd
    from distributed import Client

    from cmemu_nb.calls.diagnosis import Diagnosis
    from cmemu_nb.calls.streams import ItemStream
    from cmemu_nb.check.findings import Report
    from cmemu_nb.clients.contour import ContourClient
    from cmemu_nb.dashboard.board import Board
    from cmemu_nb.dashboard.pages import Pages
    from cmemu_nb.dashboard.widget import Dashboard
    from cmemu_nb.data.datasets import Datasets
    from cmemu_nb.data.streams import Streams
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

    Outside notebooks use it as a context manager (`with` or `async with`); in a notebook `%cmemu start` creates one.
    Its members, by purpose (`a...` is the awaitable twin of a method):

    - Create from a file: `from_export`, `from_seed`, `of_seed`.
    - Start and stop: `start`, `stop`, `settings`, `seed`, `other_settings`, `can_have_journal`.
    - Address and credentials: `running`, `read_from`, `started_at`, `uptime`, `name`, `port`, `url`, `proxy_url`,
      `platform_url`, `token`, `bearer_tokens`, `client_id`, `client_secret`, `certificates`, `files`, `replica_files`.
    - Runtimes and jobs: `open_runtime`, `runtime`, `job`, `cancel`, `reset`.
    - Call functions: `call`, `acall`, `submit`, `asubmit`, `stream`, `map`, `amap`, `check_query`.
    - Serve functions: `function` and `functions` (in cells), `launch`, `modules`, `end_modules`, `launchable_runtime`
      and `env` (programs), `configure` (what a module is given), `scale` and `clusters` (replicas on Dask clusters);
      `faults` makes the platform misbehave.
    - Data behind modules: `datasets`, `streams`.
    - Inspect: the DataFrames `runtimes`, `jobs`, `schemas`, `deployed_apps`, `events` and `event_frame`; the charts
      `timeline` and `latency`; `dashboard`, `ui_url` and `board`; `check`, `export`, `openapi`, `looked_at`,
      `steady_at`.
    - Internals: `lifecycle` (the state, which any thread may read), `change` (to change it), `on_event`, `application`,
      `home`, `client`.

    The constructor takes `datasets` and `streams` by name, with which the emulator starts and to which `reset()`
    returns: DataFrames, lists of dicts, paths of files, or the keys that a seed file has (`%cmemu help seed`). It takes
    the settings of `cmemu_nb.settings.Settings` as keywords, too, and raises `SettingError` for an unknown name or a
    wrong value:

    - Listening: `port` (4000, or a free one if it is taken), `tls_port` (8945), `host`, `local_hostnames`,
      `allow_remote`.
    - Credentials: `token` of the contour routes (random by default), further `tokens`; `client_id`, `client_secret` and
      `access_token_seconds` of the OAuth client; `hide_tokens`, `protect_notebook`, `caller_token_runtimes`.
    - The ontology of which every function is a query: `ontology_rid`, `ontology_api_name`.
    - Web applications: `allowed_origins` of pages that may call functions; `redirect_uris` and `sign_in_as` for users
      who sign in.
    - Times in seconds: `execute_timeout`, `function_timeout`, `job_timeout`, `refusal_seconds`,
      `slow_client_seconds`, `idle_seconds`.
    - Limits: `max_body_bytes`, `max_data_bytes` (4 GiB), `max_schema_bytes`, `max_label_bytes`, `max_queued`,
      `max_runtimes` (10,000), `max_connections`, `max_waiting`, `max_concurrent_tasks` (of functions in cells);
      those of the platform's API for each user, off by default: `max_requests_per_minute`, `max_concurrent_requests`.
    - History: `keep_events`, `keep_jobs` (100,000), `keep_bytes` (1 GiB), `keep_records` (100,000), `journal`
      (a file), `journal_sync`.
    - Behaviour: `interrupt` ('cancel' or 'leave': what an interrupt does to the jobs of a call), `progress` (whether a
      call shows why it waits), `home` ('auto', 'kernel' or 'thread': where the event loop runs), `contour` ('page' or
      'foundry': the words of a job's status and of errors on the contour routes).

    >>> with Emulator(port=0) as emu:
    ...     runtime = emu.open_runtime("my-runtime", deployed_app_rid="ri.foundry.main.deployed-app.my-app")
    ...     emu.submit("add", {"x": 1, "y": 2}).status
    <JobStatus.QUEUED: 'queued'>
    """

    def __init__(self, *, datasets: Any = None, streams: Any = None, **settings: Any) -> None:
        services = Services(self._environment, self._diagnosis, lambda: self._pages)
        self._engine = Engine(make_settings(settings), lambda: name_of(self), services)
        self._executors = Executors(self._engine)
        self._calls = Calls(self._executors)
        if datasets or streams:
            from cmemu_nb.data.seeds import seed_of

            self._engine.identity.seed = seed_of(datasets, streams)

    # Create from a file

    @classmethod
    def from_export(cls, path: str | Path) -> Self:
        """Return the session that `emu.export` wrote, read-only: its DataFrames, charts, dashboard and job results.

        It has the datasets and streams, too; an `ExportWarning` names those that were left out. It can't be started.
        Raises `SessionFileError` for a file that is not an exported session, is damaged or was written by a newer
        version.

        >>> Emulator.from_export(emu.export("run.json"))
        <Emulator, read from a file: 1 runtime, 0 jobs>
        """
        from cmemu_nb.data.exported import read_export

        found = read_export(path)
        _warn_of_left_out(path, found)
        emulator = cls(port=found.port, keep_events=max(len(found.events), 10_000))
        emulator._engine.adopt(
            found,
            f"This session was read from {path} and is read-only. %cmemu start or Emulator() runs a new one.",
        )
        return emulator

    @classmethod
    def from_seed(cls, path: str | Path, **settings: Any) -> Self:
        """Return an emulator with the initial state that a YAML seed file describes; it is not started yet.

        `%cmemu help seed` describes the format. The `settings` given here override those of the file. Raises
        `SeedError`, which names the line of the file and what is valid there, or `SettingError`.
        """
        from cmemu_nb.data.seeds import read_seed

        return cls.of_seed(read_seed(path, settings))

    @classmethod
    def of_seed(cls, seed: Seed) -> Self:
        """Return an emulator with the initial state of a seed that was already read; it is not started yet."""
        emulator = cls(**seed.settings)
        emulator._engine.identity.seed = seed
        emulator.lifecycle.events.hide(*emulator.bearer_tokens)
        return emulator

    # Start and stop

    def start(self, **settings: Any) -> Self:
        """Start to listen and serve, and return the emulator; do nothing if it is running already.

        An emulator that was stopped keeps its token, jobs and functions, and listens on its ports again. `settings`
        replace the current ones, which is possible only while it is stopped. A `journal` that is a new file receives
        all records that exist so far. Raises `SettingError` for a setting that is wrong or can't be changed now,
        `JournalError` for a journal that can't be used.

        >>> emu.stop()
        >>> emu.start(execute_timeout=5).settings.execute_timeout
        5.0
        """
        hide_tokens(settings)
        note_start(self)
        self._engine.start(settings)
        return self

    def stop(self) -> None:
        """Close every connection and stop the server; do nothing if it is stopped already.

        DataFrames and records stay readable. An interrupt during the stop is raised when the stop is complete. If a
        part fails to stop, all others still do, a `StopWarning` gives the reason, and the events have the tracebacks.
        Raises `HomeError` while an event callback does not return.
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
        # Launched programs get some seconds to exit, and other tasks run during that time.
        await asyncio.to_thread(self.stop)

    @property
    def settings(self) -> Settings:
        """The current settings; `start()` may change them."""
        return self._engine.settings

    @property
    def seed(self) -> Seed | None:
        """The seed with its initial state, or None without a seed file."""
        return self._engine.identity.seed

    def other_settings(self, settings: Mapping[str, Any]) -> list[str]:
        """Return the names of those `settings` whose current values differ; `SettingError` if one is invalid."""
        return self._engine.identity.other_settings(settings)

    def can_have_journal(self, journal: str | None) -> bool:
        """Return whether it can be started with this journal file, None for none.

        Before the first start any journal will do; later only its own or a new file.
        """
        return self._engine.identity.can_have_journal(journal)

    # Address and credentials

    @property
    def running(self) -> bool:
        """Whether the emulator is started and serves requests."""
        return self._engine.running

    @property
    def read_from(self) -> str:
        """For a session from `from_export()`: why it can't be started. "" for any other."""
        return self._engine.read_from

    @property
    def started_at(self) -> int:
        """When it was last started, in Unix nanoseconds; 0 before the first start."""
        return self._engine.identity.started_at

    @property
    def uptime(self) -> int:
        """How many nanoseconds it has been running, by the steady clock, which no change of the system time affects.

        For a session from a file: how long it had been running when it was exported.
        """
        return self._engine.uptime

    @property
    def name(self) -> str:
        """The name of the notebook variable that holds the emulator, for hints; `emu` if none is known."""
        return self._engine.name

    @property
    def port(self) -> int:
        """The port that it listens on; before the first start, the port of the settings."""
        return self._engine.port

    @property
    def url(self) -> str:
        """The address of the plain HTTP server."""
        return self._engine.url

    @property
    def proxy_url(self) -> str | None:
        """The address for browsers behind a JupyterHub, through jupyter-server-proxy; None without a hub.

        It has no host name if the hub does not publish its own. Every request there needs a token.
        """
        return self._engine.proxy_url

    @property
    def platform_url(self) -> str:
        """The HTTPS address of the platform routes; clients must trust the CA file `certificates.authority_path`."""
        return self._engine.platform_url

    @property
    def token(self) -> Token:
        """The bearer token of the contour routes; `print()` shows all of it, the repr only its end."""
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
        """The certificate of the platform routes, and the certificate authority that signed it."""
        return self._engine.identity.certificates

    @property
    def files(self) -> PrivateFiles:
        """The private directory of the emulator's certificates and tokens, beside the journal if there is one."""
        return self._engine.identity.files

    @property
    def replica_files(self) -> ReplicaFiles:
        """The files for replicas outside this process, such as those with their tokens."""
        return self._engine.identity.replica_files

    # Runtimes and jobs

    def open_runtime(
        self,
        runtime_id: str,
        deployed_app_rid: str | None = None,
        branch: str | None = None,
        display_name: str | None = None,
    ) -> RuntimeHandle:
        """Open a runtime's session; if it exists already, reset it and print what the reset discarded [page].

        `deployed_app_rid` binds a deployed app to it, on `branch` (`master` by default). Raises `InvalidRequest` for an
        id or another value that is not valid.
        """
        runtime, thrown_away = self.change(
            lambda lifecycle: lifecycle.open_session(runtime_id, deployed_app_rid, branch, display_name)
        )
        print_reset(runtime.runtime_id, thrown_away)
        return RuntimeHandle(self._executors, runtime.runtime_id)

    def runtime(self, runtime_id: str) -> RuntimeHandle:
        """Return the handle of an existing runtime; for an unknown id a `NotFound` lists the known ones."""
        return RuntimeHandle(self._executors, self.lifecycle.runtime(runtime_id).runtime_id)

    def job(self, job: str | JobHandle | Job) -> JobHandle:
        """Return the handle of an existing job, by its id or at least the last four characters of the id.

        A handle or a record of a job is accepted, too. Raises `InvalidRequest` with the candidates if several ids have
        that ending, `NotFound` with the newest jobs if none has, and `JobEvicted` if the job was evicted.

        >>> job = emu.submit("add", {"x": 1})
        >>> emu.job(job.id[-6:]).id == job.id
        True
        """
        return JobHandle(self._executors, find_job(self.lifecycle, job, self.looked_at()).job_id)

    def cancel(self, jobs: str | JobHandle | Job = "all", reason: str = "") -> int:
        """Cancel queued and running jobs, and return how many were cancelled [ours].

        `jobs` is one job, as in `job()`, the name of a function for all of its jobs, or "all". They fail with a message
        that says that they were cancelled and gives the `reason`; functions in cells are interrupted where Python can
        do that. Finished jobs stay as they are. For an unknown name a `NotFound` lists the functions that have
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
        """Delete every runtime with its jobs, schemas and bindings, and every dataset and stream [ours].

        Then the seed is applied, if there is one.

        Raises `NotRunning` when the emulator is stopped.
        """
        seeded = self.seed.datasets if self.seed else []
        contents = [each.file.body for each in seeded if each.file is not None]
        self._engine.change(lambda lifecycle: lifecycle.reset(), *contents)

    # Call functions: a method whose name begins with `a` is the awaitable twin of the one without it

    def submit(
        self,
        query_type: Function,
        query: object = None,
        deployed_app_rid: str | None = None,
        branch: str | None = None,
        **fields: Any,
    ) -> JobHandle:
        """Submit a job to a deployed app through the contour routes, and return its handle at once.

        `query_type` is the name of the function or the function itself. `query` is any JSON value (`{}` by default) and
        is sent unchanged; values that JSON has no type for (NumPy's, pandas', dates, dataclasses, pydantic models) are
        converted to the form that the function's schema declares, see `%cmemu help values`. Instead of `query` its
        `fields` can be given as keywords, except those with the name of a parameter of this method.

        Without `deployed_app_rid` the app is the only one that is bound, or else the only one whose runtime has the
        function, or else that of the runtime `notebook`. Before this choice it waits, at most 30 seconds, for launched
        modules that have not posted their schemas yet. Raises `NotFound` if no runtime is bound to the app,
        `InvalidRequest` for a query that can't be sent, `QueueFull`, `NotRunning`.

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
        """Submit a job, wait for it, and return the value of its result.

        The function, the query (one object or keywords) and the app are given as in `submit()`. The options:

        - `timeout`: the seconds to wait for the result; None waits without a limit.
        - `validate`: before anything is submitted, raise `NotFound` for an unknown function and `InvalidRequest` for a
          query that does not match its schema. False skips this check.
        - `echo`: show what a function in a cell prints while it runs.
        - `interrupt`: what an interrupt does to the job, 'cancel' or 'leave'. None uses the setting `interrupt`.
        - `progress`: after two seconds show one line that says why the call waits. None uses the setting `progress`.
          Nothing is shown when the environment variable `CI` is set.

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
        """Submit a job of a streaming function, and return an iterator (`for` or `async for`) over its items.

        Each item is available as soon as it arrives. A result that is not a stream is one item; of plain text, each
        item is the text that has arrived. `validate`, `interrupt` and `progress` are those of `call()`. Raises what
        `call()` and `JobHandle.stream()` raise.

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
        """Call a function once for each query, and return the results as a DataFrame in the order of the queries.

        Each of `queries` is one as in `submit()`, or a row of a DataFrame, whose index is kept; a missing value is
        left out, sent as null or rejected, as the function's schema says (see `%cmemu help values`). The columns of the
        result are the fields of the queries (`query` if they are not objects), then `outcome`, `value`, `error`,
        `queue_time`, `run_time` and `job_id`; a field with one of these names becomes `input.<name>`.

        At most `concurrency` jobs are unfinished at the same time. If a function raises or a job fails, the row has an
        `error`, which begins with its kind. `validate`, `interrupt` and `progress` are those of `call()`: all queries
        are checked before the first is submitted; an interrupt cancels all unfinished jobs, unless `interrupt` is
        'leave'; a notebook shows a progress bar, and a line says why if no job finished for two seconds.

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
        """Check a query against the schema of a runtime's function, without submitting it.

        Raises `InvalidRequest` with the fields that are wrong, `NotFound` for an unknown function or runtime.
        """
        self._calls.check_query(runtime_id, query_type, query)

    # Serve functions: in cells, by launched programs, by replicas on Dask clusters

    def function(
        self, function: Callable[..., Any] | None = None, *, streaming: bool = False, edits: Sequence[Any] | None = None
    ) -> Any:
        """Serve a function on the runtime `notebook`: a decorator with the signature of the official SDK's.

        It returns the function unchanged. When the function is defined again, its new version is served. Raises
        `FunctionRefused` with the SDK's reason and what to do.

        >>> @emu.function
        ... def shout(context, event: Words) -> str:
        ...     return event.text.upper()
        >>> emu.call("shout", {"text": "hello"})
        'HELLO'
        """
        return self.functions.decorate(function, None, streaming=streaming, edits=edits)

    @property
    def functions(self) -> Functions:
        """The functions in cells and those of launched modules: their schemas, calls, errors and run times."""
        return self._executors.functions

    def launch(
        self,
        command: str | Sequence[str] = (),
        runtime: RuntimeHandle | str | None = None,
        *,
        cwd: str | None = None,
        restart: bool = True,
        image: str | None = None,
        **configuration: Any,
    ) -> LaunchedModule:
        """Launch a program, such as `"python app.py"` with an official SDK, as a runtime's module.

        The default `runtime` is named after the program's file; a runtime that does not exist yet is opened and bound
        to an app of its name. `python` in the command is the kernel's own interpreter; `cwd` is the program's
        directory. The keywords are the keys of a module's configuration, which take precedence over those of the
        runtime; `configure()` describes all of them:

        - `replicas`: each is a process with its own token, and receives at most `max_concurrent_tasks` unfinished jobs
          at a time.
        - `scaling=Scaling(min=0, max=4)`, from `from cmemu_nb import Scaling`: replicas are added and removed by the
          load, as on the platform (`help(Scaling)`, `%cmemu help configuration`).
        - `readiness_probe={"command": "python check.py"}`: a replica gets jobs when this succeeds;
          `liveness_probe={"path": "/health", "port": 8000}`: a replica for which this fails is restarted.
        - `max_lifetime=72_000`: a replica that has lived for so many seconds is replaced by a new one, which is started
          beside it; by default, replicas live as long as their programs.
        - `mode="pipeline"`: the program need not poll. It takes no jobs, counts as responsive while it runs, and
          `wait_until_ended()` of the result returns its exit code.
        - `server={"openapi": "openapi.json"}`: the program is an HTTP server without an SDK. The operations of that
          document become functions, and their jobs are sent to the server as requests (`%cmemu help servers`).

        With an `image`, such as "orders:0.1.0", each replica is a container, where Docker or podman is there. It runs
        as the image's own user, finds the emulator on this machine, and ends with it; the command holds the arguments
        of the image's program.

        A replica that exits is started again, except a pipeline that has succeeded: after 1 s, then after twice as long
        each time, and at most five times in ten minutes; `restart=False` turns that off.

        Raises `LaunchFailed` for a program that does not exist or fails at once, `InvalidRequest` for an invalid
        option, `FunctionRefused` for an OpenAPI document that the platform excludes. A runtime that was opened for the
        launch is then deleted again.

        >>> module = emu.launch("python app.py", replicas=2).wait_until_responsive()
        >>> module
        <Module 'app': python app.py: responsive, responsive>
        >>> emu.call("add", {"x": 40}, "ri.foundry.main.deployed-app.app")
        41
        >>> module.stop()
        """
        hide_secrets(configuration)
        return self.modules.launch(command, _id_of(runtime), cwd, configuration, restart=restart, image=image)

    @property
    def modules(self) -> Modules:
        """The launched programs."""
        return self._executors.modules

    async def end_modules(self, reason: str) -> None:
        """Stop every launched program, with `reason` as the error of its jobs; imports nothing if there is none."""
        if self._executors.launched:
            await self.modules.stopping(reason)

    @contextlib.contextmanager
    def launchable_runtime(self, runtime: RuntimeHandle | str) -> Iterator[str]:
        """Return the id of a runtime for a launch, as a context manager.

        A runtime that does not exist is opened and bound to an app of its name; if the block raises, it is deleted.
        """
        with opened_runtime(self._engine, _id_of(runtime)) as runtime_id:
            yield runtime_id

    def configure(self, runtime: RuntimeHandle | str, **configuration: Any) -> Configuration:
        """Configure a runtime's module, in place of its configuration until now, and return the configuration.

        The keys are the same here, in `launch()` and `env()`, in seed files and in the files of `--config`
        (`%cmemu help configuration`):

        - `sources`: the credentials of each source, `{"Crm": {"password": "..."}}`; `source_configurations`: the
          further properties of each source, `{"Crm": {"sourceConfiguration": {...}}}`.
        - `aliases`: the resources by alias, `{"orders": {"rid": "ri...", "branch": "master"}}`, or by the name of a
          dataset or stream of the emulator, `{"orders": "orders"}`.
        - `client`: `{"id": "...", "secret": "..."}`, the module's OAuth client; `build2_token`: the token of pipeline
          mode. The tokens of both reach the datasets and streams of the aliases.
        - `environment`: environment variables.
        - `mode`: `"function"`, or `"pipeline"` for a program that takes no jobs; `replicas` and `max_concurrent_tasks`:
          the number of processes, and of unfinished jobs of each; `scaling`: a `Scaling`, or its values by name, in
          place of `replicas`; `readiness_probe` and `liveness_probe`: checks of a replica, `command`, or `path` and
          `port`.
        - `server`: for a program that is an HTTP server without an SDK, `openapi`, the path of its OpenAPI document,
          and perhaps `port` and `timeout`, in seconds.

        Functions in cells of this runtime find it at once, as they would in a launched module: in their context, and in
        `os.environ`, where the official SDK looks for it. Programs find it when they are launched or restarted. Secrets
        are masked wherever they are shown. The runtime need not be open yet; resets of its session keep the
        configuration, its deletion removes it. Raises `InvalidRequest` for an unknown key or a value that is not valid.

        >>> emu.configure("notebook", sources={"Crm": {"password": "correct horse"}}, replicas=2)
        <Configuration: sources Crm; replicas 2>
        """
        hide_secrets(configuration)
        runtime_id, configured = _id_of(runtime), Configuration().changed(configuration)
        return self.change(lambda lifecycle: lifecycle.configure(runtime_id, configured))

    def env(
        self, runtime: RuntimeHandle | str, max_concurrent_tasks: int | None = None, **configuration: Any
    ) -> ModuleEnvironment:
        """Add a replica to a runtime, and return its environment variables, for a program that you start yourself.

        Each call adds a replica with its own token, which receives at most `max_concurrent_tasks` unfinished jobs at a
        time. Tokens and certificates are files in a private directory. The result is a dict; its `export_lines` are for
        a terminal, its `docker_line(image)` for a container on the host's network. The keywords are the keys of a
        module's configuration (see `configure()`), which take precedence over those of the runtime. Raises `NotFound`
        for an unknown runtime, `InvalidRequest`.

        >>> emu.env("notebook")["MAX_CONCURRENT_TASKS"]
        '1'
        """
        hide_secrets(configuration)
        runtime_id, given = _id_of(runtime), {"max_concurrent_tasks": max_concurrent_tasks, **configuration}
        return self.change(lambda _: self._environment(runtime_id, given))

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
        """Serve functions by replicas on the workers of the `dask.distributed` cluster of `client`.

        Each of the `replicas` has its own token and receives at most `max_concurrent_tasks` unfinished jobs at a time.
        Without `functions` they serve every function of the runtime (`notebook` by default); `functions`, given by name
        or as they are, are served on another runtime (`cluster` by default). A new version of a function is sent to all
        replicas. With `local=True` the notebook takes jobs as well. Returns at once; `wait_until_responsive()` of the
        result waits for the replicas. Raises `FunctionRefused` for a function that can't be pickled for the workers,
        `SettingError` if the workers could not reach the emulator, `LaunchFailed` if the cluster can't run it,
        `InvalidRequest`.
        """
        return self.clusters.scale(client, replicas, functions, _id_of(runtime), max_concurrent_tasks, local=local)

    @property
    def clusters(self) -> Clusters:
        """The clusters that serve functions."""
        return self._executors.clusters

    @property
    def faults(self) -> FaultInjection:
        """The faults of the platform that are on; call it to set some: `emu.faults(error_rate=0.2)`."""
        return self._engine.faults

    # Data behind modules

    @functools.cached_property
    def datasets(self) -> Datasets:
        """The datasets that modules read and write, a mapping by name: assign a DataFrame, read `.frame()`.

        Modules use them by Foundry's public API. `%cmemu help data` has examples.

        >>> emu.datasets["orders"] = [{"id": 1, "price": 2.5}, {"id": 2, "price": None}]
        >>> emu.datasets["orders"].frame()
           id  price
        0   1    2.5
        1   2    NaN
        """
        from cmemu_nb.data.datasets import Datasets

        return Datasets(self._engine)

    @functools.cached_property
    def streams(self) -> Streams:
        """The data streams, by name: `emu.streams["events"] = frame`, or `emu.streams.create("events", schema)`.

        Modules and applications reach them through Foundry's public API and the stream proxy. `%cmemu help data`
        describes them.

        >>> emu.streams.create("readings", {"sensor": "STRING", "celsius": "DOUBLE"})
        <Stream 'readings': 0 records; sensor STRING, celsius DOUBLE>
        >>> del emu.streams["readings"]
        """
        from cmemu_nb.data.streams import Streams

        return Streams(self._engine)

    # Inspect: DataFrames, charts, dashboard, files

    @property
    def runtimes(self) -> pd.DataFrame:
        """The runtimes as a DataFrame, indexed by runtime_id: modes, last polls, bindings, functions, counts of jobs.

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
        """The bindings of deployed apps as a DataFrame, indexed by deployed_app_rid and branch.

        >>> emu.deployed_apps.index.to_list()
        [('ri.foundry.main.deployed-app.notebook', 'master')]
        """
        from cmemu_nb.display import frames

        return frames.deployed_apps_frame(self.lifecycle.deployed_apps())

    @property
    def events(self) -> pd.DataFrame:
        """The events as a DataFrame, oldest first, without empty polls and other kinds that come by the thousand.

        >>> emu.open_runtime("r").delete()
        >>> emu.events.query("runtime_id == 'r'")["kind"].to_list()
        ['session_opened', 'session_deleted']
        """
        return self.event_frame()

    def event_frame(self, *, all: bool = False) -> pd.DataFrame:  # noqa: A002 - named as the option of the magic
        """Return the events as a DataFrame, oldest first; `all=True` includes empty polls, chunks and the like."""
        from cmemu_nb.display import frames

        return frames.events_frame(self.lifecycle.events.recent(all=all))

    def timeline(self, most: int = 200) -> Chart:
        """Return a chart of the newest jobs, at most `most`, by replica or worker: when each was queued and ran.

        Raises `InvalidRequest` if `most` is less than one.
        """
        if most < 1:
            raise InvalidRequest(f"A timeline needs at least one job, not {most}. Leave it out for the last 200.")
        from cmemu_nb.display.charts import timeline_chart

        state, emu = self.lifecycle, self.name
        return timeline_chart(
            state.newest_jobs(most), self.looked_at(), state.count().total(), emu, steady=self.steady_at()
        )

    def latency(self) -> Chart:
        """Return a histogram of the queue times and run times of the jobs, in seconds or a smaller unit."""
        from cmemu_nb.display.charts import latency_chart

        return latency_chart(self.lifecycle.jobs(), emu=self.name)

    def dashboard(self) -> Dashboard:
        """Return a widget for notebooks that shows the whole lifecycle live, with buttons to act on it.

        Below it is a static summary, which a saved notebook still shows without the kernel. `close()` removes the
        widget. Raises `HomeError` outside notebooks.
        """
        from cmemu_nb.dashboard.widget import Dashboard

        return Dashboard(self)

    @functools.cached_property
    def board(self) -> Board:
        """The thread that updates the dashboards."""
        from cmemu_nb.dashboard.board import Board

        return Board(self)

    @functools.cached_property
    def _pages(self) -> Pages:
        from cmemu_nb.dashboard.pages import Pages

        return Pages(self)

    @property
    def ui_url(self) -> str:
        """The address of the dashboard as a page for any browser, through the hub if there is one.

        The page asks for the bearer token; `cmemu ui` in a terminal opens it with the token.
        """
        return f"{self.proxy_url or self.url}/ui"

    def check(self, target: str | Path | None = None, cells: Sequence[str] = ()) -> Report:
        """Check whether a module would deploy; returns a report of what breaks the documented rules of the platform.

        `target` is a Python program, a Dockerfile, a folder with both, or, where Docker or podman is there, the name of
        an image. Programs are imported in a process of their own, to see their functions, whose schemas are compared
        with those that are served here. Without a target, the functions in cells are checked as the module that
        `functions.export` would write. Raises `NotFound` if there is no such file, folder or image.

        >>> report = emu.check("app.py")  # in a notebook, the report shows what to change
        >>> report.ok
        False
        """
        from cmemu_nb.check.checker import check, check_program_alone

        served = {each.function_name: read_exactly(each.schema_payload) for each in self.lifecycle.schemas()}
        if target is not None:
            return check(target, served)
        with tempfile.TemporaryDirectory(prefix="cmemu-check-") as folder:
            return check_program_alone(self.functions.export(Path(folder) / "app.py", cells), served)

    def export(self, path: str | Path, *, overwrite: bool = False, max_data_bytes: int | None = None) -> Path:
        """Write the session to a JSON file that `Emulator.from_export` reads, and return the file's path.

        The file has the runtimes, bindings, schemas, jobs with queries and results, events, what functions printed, and
        the datasets and streams; it has only the last four characters of each token. Only its owner can read it (mode
        0600). Datasets and streams that do not fit into `max_data_bytes` together, 256 MiB by default, are left out,
        which an `ExportWarning` says. Raises `SessionFileError` if the file exists, unless `overwrite` is True, or if
        it can't be written.

        >>> emu.export("run.json", overwrite=True).name
        'run.json'
        """
        from cmemu_nb.storage import session_file

        path = session_file.expanded(path)
        session_file.write(path, taken := self._contents(max_data_bytes), overwrite=overwrite)
        _warn_of_left_out(path, taken)
        return path

    def _contents(self, max_data_bytes: int | None = None) -> Contents:
        from cmemu_nb.storage import session_file
        from cmemu_nb.storage.session_data import DEFAULT_EXPORT_BYTES

        size = DEFAULT_EXPORT_BYTES if max_data_bytes is None else max_data_bytes

        def take() -> Contents:
            now, steady = self.looked_at(), self.steady_at()
            return session_file.contents(self.lifecycle, self.url, now, steady, size)

        async def take_on_loop() -> Contents:
            return take()

        # On the loop, where the state changes, so that the file shows one moment. Not by change(): that would wait for
        # the journal.
        return self.home.run(take_on_loop()) if self.running else take()

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI 3.1 document of the routes, which `GET /openapi.json` answers and `GET /docs` shows.

        The emulator may be stopped.
        """
        from cmemu_nb.server.application import SURFACES
        from cmemu_nb.server.openapi.document import document
        from cmemu_nb.version import __version__

        return document(SURFACES, __version__)

    def looked_at(self) -> int:
        """Return the moment that the views show, in Unix nanoseconds: now, or the export of a session from a file."""
        return self._engine.looked_at()

    def steady_at(self) -> int:
        """Return the same moment on the steady clock, in nanoseconds; unfinished durations are measured up to it."""
        return self._engine.steady_at()

    # Internals: the lifecycle, its events, the event loop

    @property
    def lifecycle(self) -> Lifecycle:
        """The state of the emulator. Any thread may read it; use `change()` to change it."""
        return self._engine.lifecycle

    def change(self, operation: Callable[[Lifecycle], T]) -> T:
        """Call `operation(lifecycle)` on the emulator's event loop, the only place that may change the state.

        Returns what `operation` returned, once the journal, if there is one, has the change. Raises `NotRunning`.
        """
        return self._engine.change(operation)

    def on_event(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call `callback(event)` after each event, and return a function that removes the callback.

        It is called on the emulator's event loop, after the request or call that caused the event was answered; an
        `async def` runs as a task. If it raises, that becomes an event `listener_failed`, for which no callback is
        called. Raises `InvalidRequest` if `callback` is not callable.
        """
        return self._engine.listeners.add(callback)

    @property
    def application(self) -> Application:
        """The web application that answers the requests; it exists from the first start."""
        return self._engine.application

    @property
    def home(self) -> Home:
        """The owner of the emulator's event loop, in the kernel or a thread; `NotRunning` when it is stopped."""
        return self._engine.home

    @property
    def client(self) -> ContourClient:
        """The HTTP client on the emulator's event loop; `NotRunning` when it is stopped."""
        return self._engine.client

    def _environment(self, runtime_id: str, given: Mapping[str, Any]) -> ModuleEnvironment:
        from cmemu_nb.executors.modules.environment import add_replica

        return add_replica(self._engine, runtime_id, self.lifecycle.configuration_with(runtime_id, given))[1]

    def _diagnosis(self, job_id: str) -> Diagnosis:
        return diagnose(self._executors, job_id, in_shell=True)  # an HTTP client has no notebook variables to type

    def __repr__(self) -> str:
        if "_engine" not in vars(self):  # the constructor raised, and the traceback shows this object
            return "<Emulator, not created: its settings are invalid>"
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


def _warn_of_left_out(path: str | Path, session: Contents) -> None:
    if session.left_out:
        message = f"{path} does not have {listed(session.left_out)}. Export it with a larger max_data_bytes."
        warn_user(ExportWarning(message))
