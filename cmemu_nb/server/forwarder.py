"""The forwarder: what listens on a loopback port beside each replica, so that the Java SDK can reach the platform.

The port identifies the replica, so that its requests need no token. A web page must not reach such a port, because a
browser sends a simple GET to any address: requests of browsers are refused.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from cmemu_nb.errors import ForbiddenOrigin
from cmemu_nb.server.application import Application
from cmemu_nb.server.http import Exchange
from cmemu_nb.server.response import Response
from cmemu_nb.server.routes.forwarder import routes
from cmemu_nb.server.routes.runtime import END_OF_ENVELOPE, START_OF_ENVELOPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.lifecycle.session import Replica
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.handlers import Receiver
    from cmemu_nb.server.request import Request

# Browsers send at least the first of these to loopback addresses, even where they send no Origin.
OF_BROWSERS = ("Sec-Fetch-Site", "Sec-Fetch-Mode", "Origin", "Referer")


class Forwarder(Application):
    """The forwarder's routes. `sender(request)` returns the replica of a request, None to require its token."""

    def __init__(self, context: Context, sender: Callable[[Request], Replica | None]) -> None:
        super().__init__(context, routes=routes)
        self._hub_prefix = None
        self._sender = sender

    def begin(self, request: Request) -> Receiver:
        """Make every check that is possible before the body is read, and return the receiver of the body."""
        if any(name in request.headers for name in OF_BROWSERS):
            raise ForbiddenOrigin("Web pages may not use the forwarder of a replica: it is for the replica's program.")
        request.replica = self._sender(request)
        return super().begin(request)


class ForwarderExchange(Exchange):
    """One request to a forwarder, which answers with jobs that have no wrapper, and accepts results with 202."""

    def _write(self, response: Response) -> None:
        body = response.body
        if body.startswith(START_OF_ENVELOPE):
            bare = body[len(START_OF_ENVELOPE) : -len(END_OF_ENVELOPE)]
            super()._write(Response(200, bare, headers=response.headers))
        elif response.status == HTTPStatus.NO_CONTENT and "jobId" in self._request.params:
            super()._write(Response(202))
        else:
            super()._write(response)
