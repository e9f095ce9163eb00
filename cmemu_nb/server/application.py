"""The application: it checks each request and finds the handler of its route."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from cmemu_nb.errors import ApiError, ForbiddenHost, ForbiddenOrigin
from cmemu_nb.server.api import (
    dataset_files,
    dataset_transactions,
    datasets,
    functions,
    ontologies,
    ontologies_v1,
    streams_v2,
    subscribers,
)
from cmemu_nb.server.call_limits import is_limited
from cmemu_nb.server.cors import SharedRoutes, is_preflight
from cmemu_nb.server.fault_points import faulty_receiver
from cmemu_nb.server.handlers import BufferedBody, check_size
from cmemu_nb.server.origins import LOGIN_IS_NOT_ENOUGH, check_host, check_origin, forwarded_prefix
from cmemu_nb.server.routes import (
    authorize,
    contour,
    data,
    deployed_apps,
    documents,
    history,
    platform,
    runtime,
    scratch,
    stream_proxy,
    tools,
    ui,
    users,
)
from cmemu_nb.server.routes import oauth as oauth_routes
from cmemu_nb.server.routing import Router, Surface
from cmemu_nb.wire.jupyterhub import service_prefix
from cmemu_nb.wire.paths import MEDIA_SETS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.server.context import Context
    from cmemu_nb.server.handlers import Receiver
    from cmemu_nb.server.request import Request
    from cmemu_nb.server.routing import Route

SURFACES = (
    Surface.of("runtime", runtime),
    Surface.of("contour", contour),
    Surface.of("deployed_app", deployed_apps),
    Surface.of("platform", platform),
    Surface.of("scratch", scratch),
    Surface.of("oauth", oauth_routes),
    Surface.of("sign_in", authorize),
    Surface.of("users", users),
    Surface.of("functions", functions),
    Surface.of("ontologies", ontologies),
    Surface.of("ontologies_v1", ontologies_v1),
    Surface.of("streams", streams_v2),
    Surface.of("subscribers", subscribers),
    Surface.of("stream_proxy", stream_proxy),
    Surface.of("datasets", datasets),
    Surface.of("dataset_transactions", dataset_transactions),
    Surface.of("dataset_files", dataset_files),
    Surface.of("tool", tools),
    Surface.of("history", history),
    Surface.of("data", data),
    Surface.of("document", documents),
    Surface.of("dashboard", ui),
)
ROUTES = tuple(route for surface in SURFACES for route in surface.routes)


def _check_emulated(request: Request) -> None:
    """Say of what clients know, and this emulator does not have, that it is missing, not that the route is unknown."""
    if request.path.startswith(MEDIA_SETS):
        message = "Media sets are not emulated, so there is none of them. Keep the bytes as files of a dataset instead."
        raise ApiError(
            404, "MediaSetNotFound", message, mediaSetRid=request.path.removeprefix(f"{MEDIA_SETS}/").partition("/")[0]
        )


class Application:
    """The routes of one emulator.

    `local_hostnames` are further host names that requests may use, and pages of the `allowed_origins` may call the
    routes for applications.
    """

    def __init__(
        self,
        context: Context,
        local_hostnames: Iterable[str] = (),
        allowed_origins: Iterable[str] = (),
        routes: Iterable[Route] = ROUTES,
    ) -> None:
        self.context = context
        self._router = Router(routes, context.lifecycle.events.masked)
        self._shared = SharedRoutes(allowed_origins, self._router.methods)
        self._hub_prefix = service_prefix()
        self._local_hostnames = frozenset(name.lower() for name in local_hostnames)

    def begin(self, request: Request) -> Receiver:
        """Make every check that is possible before the body is read, and return the receiver of the body."""
        context = self.context
        if self._hub_prefix is not None:
            request.prefix = forwarded_prefix(request, self._hub_prefix)
        self._check_sender(request)
        if is_preflight(request):
            return BufferedBody(context, request, lambda _, asked: self._shared.preflight(asked))
        _check_emulated(request)
        route, request.params = self._router.match(request.method, request.path)
        if request.prefix:
            # The proxy decodes the path and encodes it again, except for slashes and question marks. URIs for the
            # proxy are therefore encoded twice.
            request.params = {name: unquote(value) for name, value in request.params.items()}
        context.tokens.authorize(route.auth, request)
        if context.call_limits.on and is_limited(route):
            request.caller = context.tokens.caller(request)
            context.call_limits.count(request.caller)
        if route.denied:
            context.tokens.check_reach(request, route.denied)
        check_size(context, request.declared_length)
        if context.faults and (faulty := faulty_receiver(context, route, request)):
            return faulty
        if route.receiver is not None:
            return route.receiver(context, request)
        assert route.handler is not None  # noqa: S101 - a route has either a handler or a receiver
        return BufferedBody(context, request, route.handler, route.auth)

    def _check_sender(self, request: Request) -> None:
        try:
            check_host(request, self._local_hostnames)
            if not self._shared.admits(request):
                check_origin(request, self._local_hostnames)
        except (ForbiddenHost, ForbiddenOrigin) as refusal:
            if not request.prefix:
                raise
            if request.path not in ui.FILES and not self.context.tokens.has_token(request):
                raise type(refusal)(LOGIN_IS_NOT_ENOUGH) from None
