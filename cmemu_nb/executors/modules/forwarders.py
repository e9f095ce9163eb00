"""The forwarders of launched programs: loopback ports on which the Java SDK asks for jobs [foundry].

Newer versions of this SDK find the port of their replica in three variables of the environment. Versions up to 0.1.0
know only port 8946, where they send the replica's token, and newer ones report a restart there, without a token. A
request without a token is that of the replica whose process sends it, where /proc shows that.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from cmemu_nb.engine.sockets import IPV4, bind, stop_listening
from cmemu_nb.eventloop.forks import close_in_children
from cmemu_nb.executors.modules.connections import has_connection
from cmemu_nb.server.connection_limits import GuardedServer
from cmemu_nb.server.forwarder import Forwarder, ForwarderExchange
from cmemu_nb.server.http import Connections
from cmemu_nb.server.routes.forwarder import RESTART
from cmemu_nb.wire.paths import MODULE_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.lifecycle.session import Replica
    from cmemu_nb.server.request import Request

FIXED_PORT = 8946
TAKEN = (
    f"Port {FIXED_PORT} of 127.0.0.1 is in use. If this program uses the Java SDK, version 0.1.0 or older, it gets no "
    "jobs, because these versions know no other port. End the program that uses the port, such as a module of another "
    "notebook, and restart this one."
)


class Listening:
    """A forwarder that listens on a port of 127.0.0.1, a free one if `port` is 0. `OSError` if the port is taken."""

    def __init__(self, engine: Engine, sender: Callable[[Request], Replica | None], port: int = 0) -> None:
        self._sockets = bind([IPV4], port)
        close_in_children(self._sockets)
        forwarder = Forwarder(engine.application.context, sender)
        self._server = GuardedServer(Connections(forwarder, ForwarderExchange), guard=engine.guard)
        self._server.add_sockets(self._sockets)
        self.port: int = self._sockets[0].getsockname()[1]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that tell the Java SDK this port [foundry]."""
        url = f"http://{IPV4}:{self.port}"
        return {
            "GET_JOB_URI_V2": f"{url}/job",
            "POST_RESULT_URI_V2": f"{url}/results",
            "POST_SCHEMA_URI_V2": f"{url}/schemas",
        }

    def free_port(self) -> None:
        """Accept no more connections, and free the port."""
        stop_listening(self._sockets)
        self._server.stop()

    async def close_connections(self) -> None:
        """Close the connections, and wait until they are closed."""
        await self._server.close_all_connections()


class Forwarders:
    """The forwarders of the launched programs of one emulator: a port for each replica, and port 8946 for all of them.

    Port 8946 is used while a program runs that may need it, unless another process of this machine uses it.
    `pid(replica)` returns the process id of a replica's program, which leads a process group.
    """

    def __init__(self, engine: Engine, pid: Callable[[Replica], int | None]) -> None:
        self._engine = engine
        self._pid = pid
        self._own: dict[Replica, Listening] = {}
        self._fixed: Listening | None = None
        self._need_fixed: set[Replica] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def open(self, replica: Replica, *, fixed: bool) -> dict[str, str]:
        """Open the port of a replica, and port 8946 too if its program may need that and if it is free.

        Returns the variables for the program's environment.
        """
        if fixed:
            self._need_fixed.add(replica)
            with contextlib.suppress(OSError):
                self._fixed = self._fixed or Listening(self._engine, self._sender, FIXED_PORT)
        own = self._own[replica] = Listening(self._engine, lambda _: replica)
        return own.environment

    def warning(self, *, fixed: bool) -> str:
        """Return the warning for a running program that may need port 8946 if another process uses it, else ""."""
        return TAKEN if fixed and self._fixed is None else ""

    def _sender(self, request: Request) -> Replica | None:
        """Return the replica whose program sends a request without its token; None if that is unknown."""
        if MODULE_HEADER in request.headers:
            return None
        connection = request.connection.stream.socket
        try:
            port, to_port = connection.getpeername()[1], connection.getsockname()[1]
        except OSError:  # it has disconnected
            return None
        for replica in self._own:
            if (pid := self._pid(replica)) is not None and has_connection(pid, port, to_port):
                return replica
        if request.path != RESTART:
            return None
        # Where processes are unknown, it may be a program that has just started: a replica without polls has no jobs.
        return next((replica for replica in self._own if not replica.polls and not replica.revoked), None)

    def close(self, replica: Replica) -> None:
        """Close the port of a replica whose program has ended, and port 8946 with the last one that may need it."""
        own = self._own.pop(replica, None)
        if own is not None:
            self._close(own)
        self._need_fixed.discard(replica)
        if self._fixed is not None and not self._need_fixed:
            self._close(self._fixed)
            self._fixed = None

    def _close(self, listening: Listening) -> None:
        listening.free_port()
        task = self._engine.home.loop.create_task(listening.close_connections())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close_all(self) -> None:
        """Close every port, and wait until all connections are closed."""
        for replica in list(self._own):
            self.close(replica)
        await asyncio.gather(*self._closing)
