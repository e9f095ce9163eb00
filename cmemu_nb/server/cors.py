"""Which requests pages of other origins may send, and the headers that tell their browser so (CORS).

The setting `allowed_origins` names the origins, none by default. They may use what an application uses: Foundry's
public API, the contour routes, the OAuth routes and `/multipass/api/me`. A page that may send a request still needs the
token that the route requires; cookies are never used, so `Access-Control-Allow-Credentials` is never sent.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cmemu_nb.errors import ForbiddenOrigin
from cmemu_nb.server.response import Response
from cmemu_nb.wire.paths import API, AUTHORIZE, MULTIPASS, MULTIPLEXER, SCRATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cmemu_nb.server.request import Request

SHARED = (API, f"{MULTIPASS}/", f"{MULTIPLEXER}/")
# The scratch routes are for modules, and the sign-in page is for people.
NOT_SHARED = (SCRATCH, AUTHORIZE)
EXPOSED = "Preference-Applied, Retry-After"
MAX_AGE_SECONDS = 600
_HEADER_NAMES = re.compile(r"[\w-]+(?: *, *[\w-]+)*", re.ASCII)


class SharedRoutes:
    """The routes that pages of the allowed `origins` may use; `methods(path)` returns the methods of a path."""

    def __init__(self, origins: Iterable[str], methods: Callable[[str], Iterable[str]]) -> None:
        self._origins = frozenset(origins)
        self._methods = methods

    def admits(self, request: Request) -> bool:
        """Return whether a page of an allowed origin sent a request for a shared route, and prepare the answer."""
        origin = request.headers.get("Origin")
        if origin not in self._origins or not is_shared(request):
            return False
        request.answer_headers = {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": EXPOSED,
            "Vary": "Origin",
        }
        return True

    def preflight(self, request: Request) -> Response:
        """Answer a browser that asks whether a page may send a request. `ForbiddenOrigin` if it may not."""
        if not request.answer_headers:
            raise not_allowed(request)
        methods = ", ".join(self._methods(request.path))
        headers = {"Access-Control-Allow-Methods": methods, "Access-Control-Max-Age": str(MAX_AGE_SECONDS)}
        asked = request.headers.get("Access-Control-Request-Headers", "")
        if _HEADER_NAMES.fullmatch(asked):
            headers["Access-Control-Allow-Headers"] = asked
        return Response(204, headers=headers)


def is_preflight(request: Request) -> bool:
    """Return whether a browser asks, for a page, whether it may send a request for a shared route."""
    if request.method != "OPTIONS" or not is_shared(request):
        return False
    return "Origin" in request.headers and "Access-Control-Request-Method" in request.headers


def is_shared(request: Request) -> bool:
    """Return whether pages of allowed origins may use the route of a request."""
    return request.path.startswith(SHARED) and not request.path.startswith(NOT_SHARED)


def not_allowed(request: Request) -> ForbiddenOrigin:
    """Return the error for a page that may not use a shared route."""
    origin = request.headers.get("Origin", "")[:200]
    return ForbiddenOrigin(
        f"Web pages of '{origin}' may not call this emulator. If the page is yours, start the emulator with "
        f"allowed_origins=['{origin}'] (cmemu serve --allowed-origins {origin})."
    )
