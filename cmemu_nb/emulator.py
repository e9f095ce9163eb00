"""The emulator: the one object that people hold."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
import traceback
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cmemu_nb.calls.calls import Calls
from cmemu_nb.calls.diagnosis import diagnose
from cmemu_nb.calls.handles import JobHandle, RuntimeHandle, say_reset
from cmemu_nb.clients.contour import ContourClient
from cmemu_nb.display.job_search import find_job, find_unfinished
from cmemu_nb.display.names import magic_line, name_of, note_start
from cmemu_nb.display.text import holdings
from cmemu_nb.engine.fault_injection import FaultInjection
from cmemu_nb.engine.identity import LOST, Durable
from cmemu_nb.engine.listeners import Callbacks
from cmemu_nb.engine.log_filter import OwnLog
from cmemu_nb.engine.parts import Parts
from cmemu_nb.engine.sockets import listen, stop_listening, warn_if_exposed
from cmemu_nb.errors import HomeError, NotRunning, SettingError, StopWarning
from cmemu_nb.eventloop.forks import close
from cmemu_nb.eventloop.home import Home, choose_home
from cmemu_nb.eventloop.loop import defer_interrupts, raise_if_interrupted
from cmemu_nb.eventloop.shell import watch_cells
from cmemu_nb.executors.cells.functions import Functions
from cmemu_nb.executors.cluster.clusters import Scaling
from cmemu_nb.launching import Launching
from cmemu_nb.lifecycle.leases import Leases
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.lifecycle.retention import Eviction
from cmemu_nb.looking import Looking
from cmemu_nb.phrases import listed
from cmemu_nb.server.application import SURFACES, Application
from cmemu_nb.server.auth import TokenChecks
from cmemu_nb.server.connection_limits import GuardedServer, make_guard
from cmemu_nb.server.context import Context
from cmemu_nb.server.http import Connections
from cmemu_nb.settings import hide_tokens, limits_of, make_settings
from cmemu_nb.storage import live_file
from cmemu_nb.wire.jupyterhub import proxy_url

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from tornado.httpserver import HTTPServer

    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.storage.journal import Journal
    from cmemu_nb.storage.journal_file import JournalFile
    from cmemu_nb.storage.seed_file import Seed

T = TypeVar("T")
RESUME_SECONDS = 30.0


class Emulator(Callbacks, Calls, Durable, Launching, Looking, Scaling):
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

    # Of the class, since a traceback shows an emulator whose settings were refused.
    _home: Home | None = None
    read_from = ""

    def __init__(self, **settings: Any) -> None:
        self.settings = make_settings(settings)
        self.lifecycle = Lifecycle(**limits_of(self.settings))
        self.seed: Seed | None = None
        self._be(self._new_identity())
        self.functions = Functions(self)
        self.faults = FaultInjection(self)
        self._client: ContourClient | None = None
        self._server: HTTPServer | None = None
        self._live_file: live_file.LiveFile | None = None
        self._journal: Journal | None = None
        self._journal_file: JournalFile | None = None
        self._identity: dict[str, str] = {}
        self._exported_at: int | None = None
        self._exported_steady: int | None = None
        self.application: Application
        self._changing = threading.RLock()
        self._parts, self._parts_on_loop = Parts(), Parts()
        self._deliveries: set[asyncio.Task[None]] = set()
        self._port = 0
        self.started_at = 0
        self._started_steady = 0
        self._tls_port = 0
        self._pid = os.getpid()

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
        with self._changing:
            if self.read_from:
                raise NotRunning(self.read_from)
            others = self.other_settings(settings) if settings else []
            if not self.running:
                self._start_with({name: settings[name] for name in others})
            elif others:
                raise SettingError(
                    f"The emulator runs already, at {self.url}; only a start sets its {listed(others)}. "
                    f"Stop it first: {self.name}.stop(), then start it with the new settings. Its token, jobs and "
                    "functions stay."
                )
        return self

    @classmethod
    def from_export(cls, path: str | Path) -> Self:
        """Return the session that `emu.export` wrote, for looking only: frames, charts, dashboard, `job.result()`.

        It can't be started. Raises `SessionFileError` for a file that is no session, damaged or of a newer version.

        >>> Emulator.from_export(emu.export("run.json"))
        <Emulator, read from a file: 1 runtime, 0 jobs>
        """
        from cmemu_nb.storage import session_file  # noqa: PLC0415 - who exports nothing needs none

        found = session_file.read(session_file.expanded(path))
        emulator = cls(port=found.port, keep_events=max(len(found.events), 10_000))
        emulator.read_from = (
            f"This session was read from {path} and can only be looked at. %cmemu start or Emulator() runs a new one."
        )
        emulator._exported_at, emulator._exported_steady = found.exported_at, found.steady_at
        emulator.lifecycle.restore(found.state)
        emulator.lifecycle.events.restore(found.events)
        for job_id, text in found.logs.items():
            emulator.lifecycle.log(job_id).write(text)
        return emulator

    @classmethod
    def from_seed(cls, path: str | Path, **settings: Any) -> Self:
        """Return an emulator that begins with what a YAML file says, not started yet; `%cmemu help seed` describes it.

        Settings that are given win over the file's. Raises `SeedError` with the file's line and what it takes, or
        `SettingError`.
        """
        from cmemu_nb.storage import seed_file as seed  # noqa: PLC0415 - who has no seed file needs no YAML

        return cls.of_seed(seed.read(path, settings))

    @classmethod
    def of_seed(cls, seed: Seed) -> Self:
        """Return an emulator that begins with a seed file that was read, not started yet."""
        emulator = cls(**seed.settings)
        emulator.seed = seed
        emulator.lifecycle.events.hide(*emulator.bearer_tokens)
        return emulator

    def _start_with(self, settings: dict[str, Any]) -> None:
        hide_tokens(settings)
        undo = Parts()
        try:
            with defer_interrupts(lambda: True) as interrupts:
                self._stop()  # what a second interrupt may have kept an interrupted start from ending
                undo.add(setattr, self, "started_at", self.started_at)
                if settings:
                    undo.add(self._change_settings(settings))
                self._start(interrupts)
        except BaseException as error:
            self._undo_start(undo)
            if isinstance(error, OSError):
                raise HomeError(f"The emulator can't be started: {error}. It runs in no part.") from error
            raise

    def _start(self, interrupts: list[bool]) -> None:
        """Begin one part after the other, and note how each ends; `_stop()` ends as many as there are."""
        parts, state, settings = self._parts, self.lifecycle, self.settings
        parts.add(self._close_journal)
        self._open_journal()
        sockets, tls_sockets = self._listen()
        parts.add(close, [*sockets, *tls_sockets])
        home = choose_home(settings.home, self._note_nested_call)
        parts.add(home.close)
        self._home, self.started_at = home, time.time_ns()
        self._started_steady = self.lifecycle.steady()
        parts.add(setattr, self, "_home", None)
        self._begin_journal(home.loop)
        parts.add(OwnLog(home.loop, state).close)
        if settings.job_timeout is not None:
            parts.add(Leases(state, home.loop, settings.job_timeout).close)
        context = self._make_context()
        parts.add(context.waiting.close)
        self.application = Application(context, (*settings.local_hostnames, settings.host))
        # After the context: whoever waits for a job hears of its end first, and reads the result.
        parts.add(Eviction(state, home.loop, settings.keep_jobs, settings.keep_bytes).close)
        # What lives on the loop ends before all of these, and the loop with it.
        parts.add(home.close, self._farewell)
        raise_if_interrupted(interrupts)
        home.run(self._serve(self.application, sockets, tls_sockets))
        parts.add(watch_cells(home))
        parts.add(atexit.unregister, self._stop_at_exit)
        atexit.register(self._stop_at_exit)
        note_start(self)
        raise_if_interrupted(interrupts)

    def _make_context(self) -> Context:
        oauth, settings, logins = self._oauth_client(), self.settings, self.seed.logins if self.seed else {}
        protect = settings.protect_notebook
        tokens = TokenChecks(self.lifecycle, oauth, self.bearer_tokens, logins, protect_notebook=protect)
        why = partial(diagnose, self, in_shell=True)  # who asks over HTTP has no variables of the notebook
        return Context(self.lifecycle, tokens, oauth, settings, self._journal, self._environment, why, SURFACES)

    def _undo_start(self, undo: Parts) -> None:
        with defer_interrupts(lambda: True):
            try:
                self._stop()
            finally:
                undo.end()

    def _listen(self) -> tuple[list[socket.socket], list[socket.socket]]:
        sockets = listen(self.settings.host, self._wanted_port())
        tls_sockets: list[socket.socket] = []
        try:
            warn_if_exposed(self.settings.host, sockets)
            tls_sockets = listen(self.settings.host, self._wanted_tls_port())
            self._port, self._tls_port = (each[0].getsockname()[1] for each in (sockets, tls_sockets))
            self._remember(self._port, self._tls_port)
        except BaseException:
            close([*sockets, *tls_sockets])
            raise
        return sockets, tls_sockets

    async def _serve(
        self, application: Application, sockets: list[socket.socket], tls_sockets: list[socket.socket]
    ) -> None:
        parts = self._parts_on_loop
        parts.add(lambda: self.lifecycle.note("emulator_stopped", detail=self.url))
        guard = make_guard(self.lifecycle, self.settings)
        self._server = GuardedServer(Connections(application), guard=guard)
        tls_server = GuardedServer(Connections(application), guard=guard, ssl_options=self.certificates.context)
        for server, listening in ((tls_server, tls_sockets), (self._server, sockets)):
            parts.add(server.close_all_connections)
            parts.add(server.stop)
            parts.add(stop_listening, listening)
            server.add_sockets(listening)
        self._client = ContourClient(self.url, self.token)
        for end in (self._client.close, self._end_clusters, self._end_modules, self.functions.pause):
            parts.add(end)
        parts.add(self.faults.end_all)
        self.lifecycle.note("emulator_started", detail=self.url)
        if self.seed is not None:
            self.lifecycle.apply_seed(self.seed)
        self.lifecycle.fail_what_ended_with_kernel(LOST)
        await self._resume_functions()
        self._live_file = live_file.write(self)
        if self._live_file is not None:
            parts.add(self._live_file.close)

    async def _resume_functions(self) -> None:
        # Their executor is a client of these servers, which accept nobody while there are no file descriptors.
        try:
            async with asyncio.timeout(RESUME_SECONDS):
                await self.functions.resume()
        except TimeoutError:
            raise HomeError(
                f"The emulator can't be started: it has not answered its own functions within {RESUME_SECONDS:g} s. "
                "Close files and connections of this process, or raise its limit (ulimit -n), and start it again."
            ) from None

    def stop(self) -> None:
        """End every connection and the server; the frames and records stay readable. Nothing when it is stopped.

        An interrupt meanwhile is raised when it is done. Should a part fail to end, all others end, and a `StopWarning`
        says why; the events have the tracebacks. Raises `HomeError` while an event callback does not return.
        """
        if self._on_its_loop():
            raise HomeError("The emulator can't be stopped from one of its own event callbacks: stop it in a cell.")
        with self._changing, defer_interrupts(lambda: True):
            self._stop()

    def _stop(self) -> None:
        if self._home is not None:
            self._home.let_go()
        self._parts.end()
        failures = [*self._parts_on_loop.failures, *self._parts.failures]
        self._parts, self._parts_on_loop = Parts(), Parts()
        self._report(failures)

    def _report(self, failures: Sequence[BaseException]) -> None:
        for error in failures:
            self.lifecycle.note("internal_error", detail="".join(traceback.format_exception(error)))
        if failures:
            said = "; ".join(f"{type(error).__name__}: {error}" for error in failures)
            message = f"The emulator is stopped, but parts of it failed when they ended: {said}. Its events have more."
            warnings.warn(StopWarning(message), stacklevel=4)

    async def _farewell(self) -> None:
        await self._parts_on_loop.aend()

    async def _end_modules(self) -> None:
        await self.end_modules("the emulator was stopped")

    async def _end_clusters(self) -> None:
        await self.clusters.end_all("the emulator was stopped")

    def _on_its_loop(self) -> bool:
        running = asyncio._get_running_loop()  # noqa: SLF001 - None when no loop runs, without an exception
        return running is not None and self._home is not None and running is self._home.loop

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._pid:
            self.stop()

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
        # Launched programs have some seconds to end, in which other tasks go on.
        await asyncio.to_thread(self.stop)

    def _note_nested_call(self) -> None:
        self.lifecycle.note(
            "nested_call",
            detail="a synchronous call was made on the emulator's own loop, which patches asyncio (nest-asyncio2); "
            f"in event callbacks use the awaitable twin, such as 'await {self.name}.acall(...)'",
        )

    # Where it is

    @property
    def running(self) -> bool:
        """Whether it serves."""
        return self._home is not None

    @property
    def uptime(self) -> int:
        """For how many nanoseconds it runs, or did until it was looked at, whatever became of the clock meanwhile."""
        return self.steady_at() - self._started_steady

    @property
    def name(self) -> str:
        """The variable of the notebook that holds it, as far as is known: `emu` otherwise. Hints say it."""
        return name_of(self)

    def _not_running(self) -> NotRunning:
        start = f"{magic_line(self, 'start')} in a notebook, {self.name}.start() elsewhere."
        return NotRunning(self.read_from or f"The emulator is not running. Start it: {start}")

    @property
    def port(self) -> int:
        """The port that it listens on; the wanted one before it is started."""
        return self._port or int(self.settings.port)

    @property
    def url(self) -> str:
        """The address of the plain HTTP server."""
        host = self.settings.host
        if host in ("localhost", "0.0.0.0", "::"):
            host = "127.0.0.1"
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def proxy_url(self) -> str | None:
        """Where a browser reaches it through a hub, by jupyter-server-proxy; None without a hub.

        Without the hub's host where the hub does not tell it. Every request there needs a token.
        """
        return proxy_url(self.port)

    @property
    def platform_url(self) -> str:
        """The address of the platform routes, HTTPS; clients trust `certificates.authority_path`."""
        return f"https://127.0.0.1:{self._tls_port}"

    @property
    def home(self) -> Home:
        """What runs the emulator's loop; `NotRunning` when it is stopped."""
        if self._home is None:
            raise self._not_running()
        return self._home

    @property
    def client(self) -> ContourClient:
        """The HTTP client of the emulator's own loop; `NotRunning` when it is stopped."""
        if self._home is None or self._client is None:
            raise self._not_running()
        return self._client

    # Runtimes

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
        say_reset(runtime.runtime_id, thrown_away)
        return RuntimeHandle(self, runtime.runtime_id)

    def runtime(self, runtime_id: str) -> RuntimeHandle:
        """Return the handle of a runtime that exists; a `NotFound` lists the known ones."""
        return RuntimeHandle(self, self.lifecycle.runtime(runtime_id).runtime_id)

    def job(self, job: str | JobHandle | Job) -> JobHandle:
        """Return the handle of a job that exists: by its id, or at least the last four characters of it.

        A handle or a record of a job is as good. `InvalidRequest` lists the jobs whose ids end so if there are several,
        `NotFound` the newest ones if there is none; `JobEvicted` if it was let go.

        >>> job = emu.submit("add", {"x": 1})
        >>> emu.job(job.id[-6:]).id == job.id
        True
        """
        return JobHandle(self, find_job(self.lifecycle, job, self.looked_at()).job_id)

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

    # Changing and listening

    def change(self, operation: Callable[[Lifecycle], T]) -> T:
        """Change something in the Lifecycle, on the emulator's loop, and return what `operation` returns."""

        async def on_loop() -> T:
            changed = operation(self.lifecycle)
            await self._written()
            return changed

        return self.home.run(on_loop())

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

    def __repr__(self) -> str:
        if not self.running and not self.read_from:
            return f"<Emulator, not running: {self.name}.start() starts it again>"
        holds = holdings(self.lifecycle)
        if self.read_from:
            return f"<Emulator, read from a file: {holds}>"
        behind = f", behind the hub {self.proxy_url}" if self.proxy_url else ""
        return f"<Emulator at {self.url}{behind}: {holds}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from cmemu_nb.display.cards import show_emulator  # noqa: PLC0415 - only a notebook wants it

        return show_emulator(self)
