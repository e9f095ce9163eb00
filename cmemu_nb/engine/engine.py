"""The engine of an emulator: its lifecycle, identity, event loop and servers, started and stopped together."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, TypeVar

from cmemu_nb.clients.contour import ContourClient
from cmemu_nb.display.names import magic_line
from cmemu_nb.engine.endings import Endings
from cmemu_nb.engine.fault_injection import FaultInjection
from cmemu_nb.engine.identity import LOST, Identity
from cmemu_nb.engine.listeners import Listeners
from cmemu_nb.engine.log_filter import OwnLog
from cmemu_nb.engine.sockets import listen, stop_listening, warn_if_exposed
from cmemu_nb.errors import HomeError, NotRunning, SettingError, StopWarning
from cmemu_nb.eventloop.forks import close
from cmemu_nb.eventloop.home import Home, choose_home
from cmemu_nb.eventloop.loop import defer_interrupts, raise_if_interrupted
from cmemu_nb.eventloop.shell import watch_cells
from cmemu_nb.lifecycle.leases import Leases
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.lifecycle.retention import Eviction
from cmemu_nb.phrases import listed
from cmemu_nb.server.application import SURFACES, Application
from cmemu_nb.server.auth import TokenChecks
from cmemu_nb.server.connection_limits import GuardedServer, make_guard
from cmemu_nb.server.context import Context
from cmemu_nb.server.http import Connections
from cmemu_nb.settings import hide_tokens, limits_of
from cmemu_nb.storage import live_file
from cmemu_nb.tracebacks import warn_user
from cmemu_nb.wire.jupyterhub import proxy_url

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from cmemu_nb.engine.parts import Part
    from cmemu_nb.server.connection_limits import Guard
    from cmemu_nb.server.context import Services
    from cmemu_nb.settings import Settings
    from cmemu_nb.storage.session_file import Contents

T = TypeVar("T")
RESUME_SECONDS = 30.0
STOPPED = "the emulator was stopped"


class Engine:
    """An emulator without the public methods of the facade.

    `name()` returns the name of the variable that holds the emulator, for hints; `services` are what its routes use of
    the layers above. `parts` start and stop with the engine; each adds itself when it is created. `read_from` says why
    a session that was read from a file can't be started, "" for any other.
    """

    def __init__(
        self,
        settings: Settings,
        name: Callable[[], str],
        services: Services,
    ) -> None:
        self.lifecycle = Lifecycle(**limits_of(settings))
        self.identity = Identity(settings, self.lifecycle)
        self.listeners = Listeners(self)
        self.parts: list[Part] = []
        self.faults = FaultInjection(self)
        self.application: Application
        self.guard: Guard
        self.read_from = ""
        self._name = name
        self._services = services
        self._home: Home | None = None
        self._client: ContourClient | None = None
        self._exported_at: int | None = None
        self._exported_steady: int | None = None
        self._changing = threading.RLock()
        self._endings, self._endings_on_loop = Endings(), Endings()
        self._port = 0
        self._tls_port = 0
        self._started_steady = 0
        self._pid = os.getpid()

    @property
    def settings(self) -> Settings:
        """The settings; a start may replace them."""
        return self.identity.settings

    # Starting

    def start(self, settings: dict[str, Any]) -> None:
        """Start to listen and serve, with the given settings changed; do nothing if it runs with them already."""
        with self._changing:
            if self.read_from:
                raise NotRunning(self.read_from)
            others = self.identity.other_settings(settings) if settings else []
            if not self.running:
                self._start_with({name: settings[name] for name in others})
            elif others:
                raise SettingError(
                    f"The emulator runs already, at {self.url}; only a start sets its {listed(others)}. "
                    f"Stop it first: {self.name}.stop(), then start it with the new settings. Its token, jobs and "
                    "functions stay."
                )

    def _start_with(self, settings: dict[str, Any]) -> None:
        hide_tokens(settings)
        undo = Endings()
        try:
            with defer_interrupts(lambda: True) as interrupts:
                self._stop()  # a second interrupt may have cut short the cleanup of an interrupted start
                undo.add(setattr, self.identity, "started_at", self.identity.started_at)
                if settings:
                    undo.add(self.identity.change_settings(settings))
                self._start(interrupts)
        except BaseException as error:
            self._undo_start(undo)
            if isinstance(error, OSError):
                raise HomeError(
                    f"The emulator can't be started: {error}. Everything that had started was stopped again."
                ) from error
            raise

    def _start(self, interrupts: list[bool]) -> None:
        """Start one part after the other, and add the cleanup of each; `_stop()` undoes as many as have started."""
        ends, state, settings = self._endings, self.lifecycle, self.settings
        ends.add(self.identity.close_journal)
        self.identity.open_journal()
        sockets, tls_sockets = self._listen()
        ends.add(close, [*sockets, *tls_sockets])
        home = choose_home(settings.home, self._note_nested_call)
        ends.add(home.close)
        self._home, self.identity.started_at = home, time.time_ns()
        self._started_steady = self.lifecycle.steady()
        ends.add(setattr, self, "_home", None)
        self.identity.begin_journal(home.loop)
        ends.add(OwnLog(home.loop, state).close)
        if settings.job_timeout is not None:
            ends.add(Leases(state, home.loop, settings.job_timeout).close)
        context = self._make_context()
        ends.add(context.long_polls.close)
        ends.add(context.caller_tokens.close)
        ends.add(context.call_timers.close)
        hostnames = (*settings.local_hostnames, settings.host)
        self.application = Application(context, hostnames, settings.allowed_origins)
        # Subscribes after the context does: a waiting request sees the end of its job, and reads the result, before an
        # eviction can remove the job.
        ends.add(Eviction(state, home.loop, settings.keep_jobs, settings.keep_bytes).close)
        # Runs before all of the steps above: it cleans up what lives on the loop, and then closes the loop.
        ends.add(home.close, self._endings_on_loop.aend)
        raise_if_interrupted(interrupts)
        home.run(self._serve(sockets, tls_sockets))
        ends.add(watch_cells(home))
        ends.add(atexit.unregister, self._stop_at_exit)
        atexit.register(self._stop_at_exit)
        raise_if_interrupted(interrupts)

    def _make_context(self) -> Context:
        identity, settings = self.identity, self.settings
        oauth, logins = identity.oauth_client(), identity.seed.logins if identity.seed else {}
        tokens = TokenChecks(
            self.lifecycle,
            oauth,
            identity.bearer_tokens,
            logins,
            identity.reach,
            protect_notebook=settings.protect_notebook,
            sign_in_as=settings.sign_in_as,
        )
        return Context(self.lifecycle, tokens, oauth, settings, identity.journal, self._services, SURFACES)

    def _undo_start(self, undo: Endings) -> None:
        with defer_interrupts(lambda: True):
            try:
                self._stop()
            finally:
                undo.end()

    def _listen(self) -> tuple[list[socket.socket], list[socket.socket]]:
        host, identity = self.settings.host, self.identity
        sockets = listen(host, identity.wanted_port())
        tls_sockets: list[socket.socket] = []
        try:
            warn_if_exposed(host, sockets, can_sign_in=bool(self.settings.redirect_uris))
            tls_sockets = listen(host, identity.wanted_tls_port())
            self._port, self._tls_port = (each[0].getsockname()[1] for each in (sockets, tls_sockets))
            identity.remember(self._port, self._tls_port)
        except BaseException:
            close([*sockets, *tls_sockets])
            raise
        return sockets, tls_sockets

    async def _serve(self, sockets: list[socket.socket], tls_sockets: list[socket.socket]) -> None:
        ends, identity = self._endings_on_loop, self.identity
        ends.add(lambda: self.lifecycle.note("emulator_stopped", detail=self.url))
        guard = self.guard = make_guard(self.lifecycle, self.settings)
        server = GuardedServer(Connections(self.application), guard=guard)
        tls_context = identity.certificates.context
        tls_server = GuardedServer(Connections(self.application), guard=guard, ssl_options=tls_context)
        for each, listening in ((tls_server, tls_sockets), (server, sockets)):
            ends.add(each.close_all_connections)
            ends.add(each.stop)
            ends.add(stop_listening, listening)
            each.add_sockets(listening)
        self._client = ContourClient(self.url, identity.token)
        ends.add(self._client.close)
        ends.add(self._stop_parts)
        self.lifecycle.note("emulator_started", detail=self.url)
        if identity.seed is not None:
            self.lifecycle.apply_seed(identity.seed)
        self.lifecycle.fail_what_ended_with_kernel(LOST)
        await self._start_parts()
        self._write_live_file()

    async def _start_parts(self) -> None:
        # The executors of functions are clients of these servers, which accept no connection while the process is out
        # of file descriptors.
        try:
            async with asyncio.timeout(RESUME_SECONDS):
                for part in self.parts:
                    await part.started()
        except TimeoutError:
            raise HomeError(
                f"The emulator can't be started: it did not answer its own functions within {RESUME_SECONDS:g} s. "
                "Close files and connections of this process, or raise its limit (ulimit -n), and start it again."
            ) from None

    def _write_live_file(self) -> None:
        written = live_file.write(
            self.lifecycle,
            url=self.url,
            platform_url=self.platform_url,
            token=self.identity.token,
            started_at=self.identity.started_at,
            id=self.application.context.identity,
        )
        if written is not None:
            self._endings_on_loop.add(written.close)

    # Stopping

    def stop(self) -> None:
        """Stop everything; do nothing if it is stopped already."""
        if self._is_on_its_loop():
            raise HomeError("The emulator can't be stopped from one of its own event callbacks: stop it in a cell.")
        with self._changing, defer_interrupts(lambda: True):
            self._stop()

    def _stop(self) -> None:
        if self._home is not None:
            self._home.stop_driving()
        self._endings.end()
        failures = [*self._endings_on_loop.failures, *self._endings.failures]
        self._endings, self._endings_on_loop = Endings(), Endings()
        self._report(failures)

    async def _stop_parts(self) -> None:
        ends = Endings()
        for part in reversed(self.parts):
            ends.add(part.stopping, STOPPED)
        await ends.aend()
        self._endings_on_loop.failures += ends.failures

    def _report(self, failures: Sequence[BaseException]) -> None:
        for error in failures:
            self.lifecycle.note("internal_error", detail="".join(traceback.format_exception(error)))
        if failures:
            errors = "; ".join(f"{type(error).__name__}: {error}" for error in failures)
            warn_user(
                StopWarning(
                    f"The emulator is stopped, but parts of it failed to stop: {errors}. Its events have tracebacks."
                )
            )

    def _is_on_its_loop(self) -> bool:
        running = asyncio._get_running_loop()  # noqa: SLF001 - None when no loop runs, without an exception
        return running is not None and self._home is not None and running is self._home.loop

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._pid:
            self.stop()

    # A session from a file

    def adopt(self, session: Contents, read_from: str) -> None:
        """Adopt the records of an exported session, which is read-only; `read_from` is the message that says so."""
        self.read_from = read_from
        self._exported_at, self._exported_steady = session.exported_at, session.steady_at
        self.lifecycle.restore(session.state)
        self.lifecycle.events.restore(session.events)
        for job_id, text in session.logs.items():
            self.lifecycle.log(job_id).write(text)

    def looked_at(self) -> int:
        """Return the moment that the views show, in Unix nanoseconds: now, or the export of a session from a file."""
        return self._exported_at or time.time_ns()

    def steady_at(self) -> int:
        """Return the same moment on the steady clock, in nanoseconds; unfinished durations are measured up to it."""
        return self._exported_steady or self.lifecycle.steady()

    # Addresses and state

    @property
    def running(self) -> bool:
        """Whether it is started and serves requests."""
        return self._home is not None

    @property
    def uptime(self) -> int:
        """How many nanoseconds it has been running, or had been when it was exported, by the steady clock."""
        return self.steady_at() - self._started_steady

    @property
    def name(self) -> str:
        """The name of the variable that holds the emulator, for hints."""
        return self._name()

    @property
    def port(self) -> int:
        """The port that it listens on; before the first start, the port of the settings."""
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
        """The address for browsers behind a JupyterHub; None without a hub."""
        return proxy_url(self.port)

    @property
    def platform_url(self) -> str:
        """The HTTPS address of the platform routes."""
        return f"https://127.0.0.1:{self._tls_port}"

    @property
    def home(self) -> Home:
        """The owner of its event loop; `NotRunning` when it is stopped."""
        if self._home is None:
            raise self._not_running()
        return self._home

    @property
    def client(self) -> ContourClient:
        """The HTTP client on its event loop; `NotRunning` when it is stopped."""
        if self._home is None or self._client is None:
            raise self._not_running()
        return self._client

    def _not_running(self) -> NotRunning:
        start = f"{magic_line(self.name, 'start')} in a notebook, {self.name}.start() elsewhere."
        return NotRunning(self.read_from or f"The emulator is not running. Start it: {start}")

    def _note_nested_call(self) -> None:
        self.lifecycle.note(
            "nested_call",
            detail="a synchronous call was made on the emulator's own loop, which patches asyncio (nest-asyncio2); "
            f"in event callbacks use the awaitable twin, such as 'await {self.name}.acall(...)'",
        )

    # Changing

    def end_polls(self) -> None:
        """End every held poll as if its time were over; on the event loop."""
        self.application.context.long_polls.end_polls()

    def change(self, operation: Callable[[Lifecycle], T], *contents: bytes) -> T:
        """Call `operation(lifecycle)` on the event loop, and return its result once the journal has the change.

        `contents` are the bytes of files that the operation adds to datasets.
        """

        async def on_loop() -> T:
            async with self.identity.contents(contents):
                changed = operation(self.lifecycle)
            await self.identity.written()
            return changed

        return self.home.run(on_loop())
