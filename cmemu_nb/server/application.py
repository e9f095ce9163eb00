"""The application: everything a request passes before its handler, and all that handlers share."""

from __future__ import annotations

import hmac
import secrets
import traceback
from typing import TYPE_CHECKING

from cmemu_nb.errors import (
    InjectedFault,
    InternalError,
    InvalidBearerToken,
    JobFailed,
    JobNotReady,
    JobTimeout,
    TooBusy,
    WireError,
)
from cmemu_nb.server import contour_routes, openapi, platform_routes, runtime_routes, tool_routes
from cmemu_nb.server.fault_points import faulty_receiver
from cmemu_nb.server.http import BufferedBody, Receiver, Response, check_size, error_response
from cmemu_nb.server.origins import check_host, check_origin
from cmemu_nb.server.routing import MODULE_HEADER, Auth, Router
from cmemu_nb.server.waiting import Waiting
from cmemu_nb.tokens import masked
from cmemu_nb.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.executors.environment import ModuleEnvironment
    from cmemu_nb.faults import Faults
    from cmemu_nb.journal import Journal
    from cmemu_nb.lifecycle import Lifecycle
    from cmemu_nb.server.request import Request
    from cmemu_nb.session import Replica
    from cmemu_nb.settings import Settings

# Answers given as errors to requests that were right themselves.
NO_REFUSALS = (JobFailed, JobNotReady, JobTimeout, InjectedFault)
ROUTES = (*runtime_routes.routes, *contour_routes.routes, *platform_routes.routes, *tool_routes.routes, *openapi.routes)


class Application:
    """One emulator's HTTP surface.

    `tokens` are the bearer tokens. Answers wait until the `journal`, if there is one, has what they say; `waiters` says
    how many requests are held, `environment` makes that of a replica, and `identity` says which emulator this is, for
    whoever found its file.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        tokens: tuple[str, ...],
        settings: Settings,
        journal: Journal | None,
        environment: Callable[[Replica], ModuleEnvironment],
    ) -> None:
        self.lifecycle = lifecycle
        self.journal = journal
        self.environment = environment
        self.waiting = Waiting(lifecycle)
        self.faults: tuple[Faults, ...] = ()
        self.waiters = 0
        # Traits are slow to read, and these are read for every request.
        self.execute_timeout: float = settings.execute_timeout
        self.max_body_bytes: int = settings.max_body_bytes
        self.refusal_seconds: float = settings.refusal_seconds
        self.max_waiting: int = settings.max_waiting
        self.hide_tokens: bool = settings.hide_tokens
        self.routes = ROUTES
        self.version = __version__
        self.identity = secrets.token_hex(8)
        self._router = Router(ROUTES)
        self._texts = tokens
        self._tokens = tuple(token.encode() for token in tokens)
        self._local_hostnames = frozenset(name.lower() for name in (*settings.local_hostnames, settings.host))

    def begin(self, request: Request) -> Receiver:
        """Check all that can be checked before the body is read, and return who takes the body."""
        check_host(request, self._local_hostnames)
        check_origin(request, self._local_hostnames)
        route, request.params = self._router.match(request.method, request.path)
        self.authorize(route.auth, request)
        check_size(self, request.declared_length)
        if self.faults and (faulty := faulty_receiver(self, route, request)):
            return faulty
        if route.receiver is not None:
            return route.receiver(self, request)
        assert route.handler is not None  # noqa: S101 - a route has one or the other
        return BufferedBody(self, request, route.handler, route.auth)

    def authorize(self, auth: Auth, request: Request) -> None:
        """Refuse a request without the token that a route wants, and set whose it is."""
        bearer = request.headers.get("Authorization")
        if auth is Auth.MODULE:
            self.authorize_runtime(request)
        elif auth is Auth.REPLICA:
            request.replica = self.lifecycle.authenticate_replica(_only_token(request))
            request.replica.heard = True
            request.params["runtimeId"] = request.replica.runtime_id
        elif auth is Auth.BEARER and not self._bearer_valid(bearer):
            raise InvalidBearerToken
        elif auth is Auth.EITHER:
            self.lifecycle.runtime(request.params["runtimeId"])
            if bearer is None:
                self.authorize_runtime(request)
            elif not self._bearer_valid(bearer):
                raise InvalidBearerToken

    def authorize_runtime(self, request: Request) -> None:
        """Refuse an unknown runtime (404), then a token that is not its session's (401)."""
        self.lifecycle.authenticate(request.params["runtimeId"], _only_token(request))

    def _bearer_valid(self, header: str | None) -> bool:
        scheme, _, given = (header or "").partition(" ")
        value = given.strip().encode("latin-1", "replace")
        matches = [hmac.compare_digest(value, token) for token in self._tokens]
        return scheme.lower() == "bearer" and any(matches)

    def waits_no_more(self, _: object) -> None:
        """Note that a held request has its answer, or is gone."""
        self.waiters -= 1

    def too_busy(self) -> TooBusy:
        """Return the refusal of a request that would have to wait, when as many as may do so already."""
        return TooBusy(
            f"{self.max_waiting} requests wait for a job already, as many as max_waiting allows. Ask again in a second."
        )

    def _note_refusal(self, error: WireError, request: Request) -> None:
        # A token in the place of an id is a slip that happens.
        runtime_id, job_id = (
            masked(request.params.get(name, ""), self._texts) or None for name in ("runtimeId", "jobId")
        )
        detail = f"{error.status} {error.code}: {request.method} {request.path[:200]}: {error}"
        self.lifecycle.note("request_refused", runtime_id, job_id, detail)

    def answer_error(self, error: Exception, request: Request) -> Response:
        """Turn an error into its answer; one that nobody foresaw goes into the event log with its traceback."""
        if isinstance(error, WireError):
            if not isinstance(error, NO_REFUSALS):
                self._note_refusal(error, request)
            return self._error_response(error, request)
        self.lifecycle.note(
            "internal_error",
            detail=f"{request.method} {request.path[:200]}: {''.join(traceback.format_exception(error))}",
        )
        return self._error_response(
            InternalError("The emulator failed on this request; emu.events has the traceback."), request
        )

    def _error_response(self, error: WireError, request: Request) -> Response:
        response = error_response(error)
        if request.path.startswith(platform_routes.PLATFORM):
            response.delay = self.refusal_seconds
        return response


def _only_token(request: Request) -> str | None:
    tokens = request.headers.get_list(MODULE_HEADER)
    return tokens[0] if len(tokens) == 1 else None
