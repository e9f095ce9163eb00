"""Handlers, which answer requests, and receivers, which take the bodies of requests.

A handler is a plain function of the `Context` and a `Request`. It returns a `Response` or an awaitable of one. A route
that processes the body while it arrives has a receiver instead.
"""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from cmemu_nb.errors import InvalidRequest, PayloadTooLarge
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.request import Request
from cmemu_nb.server.response import Answer

if TYPE_CHECKING:
    from cmemu_nb.server.context import Context

Handler = Callable[["Context", Request], Answer | Awaitable[Answer]]


class Receiver(Protocol):
    """Takes a request's body as it arrives, and answers. `patient` is True if the client may make long pauses."""

    patient: bool

    def receive(self, chunk: bytes) -> None:
        """Take the next chunk of the body."""

    def finish(self) -> Answer | Awaitable[Answer]:
        """Answer the request; the body is complete."""

    def break_off(self) -> None:
        """Handle that the rest of the body will never arrive."""


class BufferedBody:
    """The usual receiver: collects the body, then calls the handler.

    While the body arrives, the session may end to which the token belongs, so `auth` is checked again at the end.
    """

    patient = False

    def __init__(self, context: Context, request: Request, handler: Handler, auth: Auth = Auth.NONE) -> None:
        self._context = context
        self._request = request
        self._handler = handler
        self._auth = auth
        # Joining chunks at the end would need a second copy of a large body; a BytesIO does not.
        self._body = io.BytesIO()

    def receive(self, chunk: bytes) -> None:
        """Append the next chunk. Raises `PayloadTooLarge` for a body over the limit."""
        check_size(self._context, self._body.tell() + len(chunk))
        self._body.write(chunk)

    def finish(self) -> Answer | Awaitable[Answer]:
        """Call the handler with the whole body."""
        if self._body.tell():
            self._context.tokens.authorize(self._auth, self._request)
        self._request.body = self._body.getvalue()
        self._body.close()
        return self._handler(self._context, self._request)

    def break_off(self) -> None:
        """Do nothing: an incomplete request has changed nothing."""


def check_size(context: Context, size: int) -> None:
    """Refuse a body of more than `max_body_bytes`."""
    limit = context.max_body_bytes
    if size > limit:
        raise PayloadTooLarge(
            f"The body is larger than {limit} bytes. Send less, or start with a larger max_body_bytes."
        )


def check_chunked(request: Request) -> None:
    """Refuse a chunked body that Tornado would refuse later: it would begin a streamed result and then break it off."""
    if request.headers["Transfer-Encoding"].lower() != "chunked" or "Content-Length" in request.headers:
        raise InvalidRequest(
            "The end of the body is ambiguous. Send it with 'Transfer-Encoding: chunked' alone, or with a "
            "Content-Length."
        )
