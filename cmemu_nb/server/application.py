"""The application: everything a request passes before its handler, and all that handlers share."""

from __future__ import annotations

import hmac
import secrets
import traceback
from typing import TYPE_CHECKING
from urllib.parse import unquote

from cmemu_nb.errors import (
    ExecutionFailed,
    ForbiddenHost,
    ForbiddenOrigin,
    InjectedFault,
    InternalError,
    InvalidBearerToken,
    InvalidModuleAuthToken,
    JobFailed,
    JobNotReady,
    JobTimeout,
    NotebookProtected,
    NotFound,
    TooBusy,
    WireError,
)
from cmemu_nb.lifecycle.records import NOTEBOOK
from cmemu_nb.server.api import functions
from cmemu_nb.server.api.errors import api_error_response
from cmemu_nb.server.fault_points import faulty_receiver
from cmemu_nb.server.http import BufferedBody, Receiver, check_size
from cmemu_nb.server.origins import LOGIN_IS_NOT_ENOUGH, check_host, check_origin, forwarded_prefix
from cmemu_nb.server.response import Response, error_response
from cmemu_nb.server.routes import contour, documents, platform, runtime, tools
from cmemu_nb.server.routes import oauth as oauth_routes
from cmemu_nb.server.routing import Auth, Router, Surface
from cmemu_nb.server.waiting import Waiting
from cmemu_nb.version import __version__
from cmemu_nb.wire.jupyterhub import service_prefix
from cmemu_nb.wire.paths import API, MODULE_HEADER, PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cmemu_nb.calls.diagnosis import Diagnosis
    from cmemu_nb.executors.modules.environment import ModuleEnvironment
    from cmemu_nb.foundry.oauth import OAuthClient
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.server.faults import Faults
    from cmemu_nb.server.request import Request
    from cmemu_nb.settings import Settings
    from cmemu_nb.storage.journal import Journal
    from cmemu_nb.tokens import Token

MOST_OF_AN_ID = 200
MAX_SHOWN_OF_A_PATH = 200
# Answers given as errors to requests that were right themselves.
NO_REFUSALS = (ExecutionFailed, JobFailed, JobNotReady, JobTimeout, InjectedFault)
SURFACES = (
    Surface.of("runtime", runtime),
    Surface.of("contour", contour),
    Surface.of("platform", platform),
    Surface.of("oauth", oauth_routes),
    Surface.of("functions", functions),
    Surface.of("tool", tools),
    Surface.of("document", documents),
)
ROUTES = tuple(route for surface in SURFACES for route in surface.routes)


class Application:
    """One emulator's HTTP surface.

    `tokens` are the bearer tokens, besides those that `oauth` issues, `logins` who sends some of them. Answers wait
    until the `journal`, if there is one, has what they say; `waiters` says how many requests are held. `environment`
    adds a replica to a runtime, with so many tasks at a time, and returns its variables; `diagnose` says why a job has
    no result, and `identity` which emulator this is, for whoever found its file.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        tokens: tuple[str, ...],
        oauth: OAuthClient,
        settings: Settings,
        journal: Journal | None,
        logins: Mapping[Token, str],
        environment: Callable[[str, int], ModuleEnvironment],
        diagnose: Callable[[str], Diagnosis],
    ) -> None:
        self.lifecycle = lifecycle
        self.oauth = oauth
        self.journal = journal
        self.environment = environment
        self.diagnose = diagnose
        self.waiting = Waiting(lifecycle)
        self.faults: tuple[Faults, ...] = ()
        self.waiters = 0
        # Traits are slow to read, and these are read for every request.
        self.execute_timeout: float = settings.execute_timeout
        self.max_body_bytes: int = settings.max_body_bytes
        self.max_schema_bytes: int = settings.max_schema_bytes
        self.refusal_seconds: float = settings.refusal_seconds
        self.max_waiting: int = settings.max_waiting
        self.hide_tokens: bool = settings.hide_tokens
        self.protect_notebook: bool = settings.protect_notebook
        self.surfaces = SURFACES
        self.version = __version__
        self.identity = secrets.token_hex(8)
        self._router = Router(ROUTES, lifecycle.events.masked)
        self._tokens = tuple(token.encode() for token in tokens)
        self._logins = {token.encode(): login for token, login in logins.items()}
        self._hub_prefix = service_prefix()
        self._local_hostnames = frozenset(name.lower() for name in (*settings.local_hostnames, settings.host))

    def begin(self, request: Request) -> Receiver:
        """Check all that can be checked before the body is read, and return who takes the body."""
        if self._hub_prefix is not None:
            request.prefix = forwarded_prefix(request, self._hub_prefix)
        self._check_sender(request)
        route, request.params = self._router.match(request.method, request.path)
        if request.prefix:
            # The proxy decodes a path and encodes it anew, without slashes and question marks: so a URI for it is
            # encoded twice.
            request.params = {name: unquote(value) for name, value in request.params.items()}
        self.authorize(route.auth, request)
        check_size(self, request.declared_length)
        if self.faults and (faulty := faulty_receiver(self, route, request)):
            return faulty
        if route.receiver is not None:
            return route.receiver(self, request)
        assert route.handler is not None  # noqa: S101 - a route has one or the other
        return BufferedBody(self, request, route.handler, route.auth)

    def _check_sender(self, request: Request) -> None:
        try:
            check_host(request, self._local_hostnames)
            check_origin(request, self._local_hostnames)
        except (ForbiddenHost, ForbiddenOrigin) as refusal:
            if not request.prefix:
                raise
            if not self._has_token(request):
                raise type(refusal)(LOGIN_IS_NOT_ENOUGH) from None

    def _has_token(self, request: Request) -> bool:
        """Tell whether a request carries any token that is valid; whether it is the route's is another question."""
        if self._bearer_valid(request.headers.get("Authorization")):
            return True
        try:
            self.lifecycle.authenticate_replica(_only_token(request))
        except InvalidModuleAuthToken:
            return False
        return True

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
        scheme, value = _scheme_and_value(header)
        matches = [hmac.compare_digest(value, token) for token in self._tokens]
        return scheme.lower() == "bearer" and (any(matches) or self.oauth.accepts(value))

    def check_may_open(self, runtime_id: str, request: Request) -> None:
        """Refuse to reset the notebook's session, if it is protected, without its module token or a bearer token."""
        if not self.protect_notebook or runtime_id != NOTEBOOK:
            return
        if self._bearer_valid(request.headers.get("Authorization")):
            return
        try:
            self.lifecycle.authenticate(NOTEBOOK, _only_token(request))
        except NotFound:  # it is not open, so nothing is reset
            return
        except InvalidModuleAuthToken:
            raise NotebookProtected(
                "The session of the runtime 'notebook' is open, and the setting protect_notebook keeps it from being "
                "reset. Send its Module-Auth-Token or a bearer token, or choose another runtime id."
            ) from None

    def user(self, request: Request) -> str | None:
        """Return the login of the bearer token that an authorized request came with, if the seed file gives it one."""
        if not self._logins:
            return None
        return self._logins.get(_scheme_and_value(request.headers.get("Authorization"))[1])

    def waits_no_more(self, _: object) -> None:
        """Note that a held request has its answer, or is gone."""
        self.waiters -= 1

    def too_busy(self) -> TooBusy:
        """Return the refusal of a request that would have to wait, when as many as may do so already."""
        return TooBusy(
            f"{self.max_waiting} requests wait for a job already, as many as max_waiting allows. Ask again in a second."
        )

    def shown_path(self, request: Request) -> str:
        """Return the beginning of a request's path, as an event shows it: a secret in it must not be cut before."""
        return self.lifecycle.events.masked(request.path)[:MAX_SHOWN_OF_A_PATH]

    def _note_refusal(self, error: WireError, request: Request) -> None:
        # A token in the place of an id is a slip that happens.
        runtime_id, job_id = (
            self.lifecycle.events.masked(request.params.get(name, ""))[:MOST_OF_AN_ID] or None
            for name in ("runtimeId", "jobId")
        )
        detail = f"{error.status} {error.code}: {request.method[:20]} {self.shown_path(request)}: {error}"
        self.lifecycle.note("request_refused", runtime_id, job_id, detail)

    def answer_error(self, error: Exception, request: Request) -> Response:
        """Turn an error into its answer; one that nobody foresaw goes into the event log with its traceback."""
        if isinstance(error, WireError):
            if not isinstance(error, NO_REFUSALS):
                self._note_refusal(error, request)
            return self.error_response(error, request)
        self.lifecycle.note(
            "internal_error",
            detail=f"{request.method} {self.shown_path(request)}: {''.join(traceback.format_exception(error))}",
        )
        return self.error_response(
            InternalError("The emulator failed on this request; its events have the traceback."), request
        )

    def error_response(self, error: WireError, request: Request) -> Response:
        """Return the answer that a route's callers expect of an error."""
        if request.path.startswith(API):
            return api_error_response(error)
        response = error_response(error)
        if request.path.startswith(PLATFORM):
            response.delay = self.refusal_seconds
        return response


def _scheme_and_value(header: str | None) -> tuple[str, bytes]:
    scheme, _, given = (header or "").partition(" ")
    return scheme, given.strip().encode("latin-1", "replace")


def _only_token(request: Request) -> str | None:
    tokens = request.headers.get_list(MODULE_HEADER)
    return tokens[0] if len(tokens) == 1 else None
