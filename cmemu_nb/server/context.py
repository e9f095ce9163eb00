"""The context that all handlers share: the Lifecycle, held requests, limits, and how errors are answered."""

from __future__ import annotations

import secrets
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmemu_nb.errors import (
    ExecutionFailed,
    InjectedFault,
    InternalError,
    JobFailed,
    JobNotReady,
    JobTimeout,
    TooBusy,
    TooManyRequests,
    WireError,
)
from cmemu_nb.foundry.sign_in import SignIns
from cmemu_nb.server.api.errors import api_error_response
from cmemu_nb.server.api.tables import Tables
from cmemu_nb.server.call_limits import CallLimits, CallTimers
from cmemu_nb.server.caller_tokens import CallerTokens
from cmemu_nb.server.job_status import FOUNDRY, foundry_error
from cmemu_nb.server.long_polls import LongPolls
from cmemu_nb.server.response import Response, error_response, json_response
from cmemu_nb.version import __version__
from cmemu_nb.wire.paths import CONTOUR, DEPLOYED_APPS, PLATFORM, PUBLIC_API

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from cmemu_nb.calls.diagnosis import Diagnosis
    from cmemu_nb.executors.modules.environment import ModuleEnvironment
    from cmemu_nb.foundry.oauth import OAuthClient
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.server.auth import TokenChecks
    from cmemu_nb.server.faults import Faults
    from cmemu_nb.server.request import Request
    from cmemu_nb.server.routes.ui import Pages
    from cmemu_nb.server.routing import Surface
    from cmemu_nb.settings import Settings
    from cmemu_nb.storage.journal import Journal

MAX_SHOWN_OF_AN_ID = 200
MAX_SHOWN_OF_A_PATH = 200
# Errors that answer valid requests, so they are not refusals.
NO_REFUSALS = (ExecutionFailed, JobFailed, JobNotReady, JobTimeout, InjectedFault)


@dataclass(frozen=True)
class Services:
    """What handlers use of the layers above the server.

    `environment(runtime_id, configuration)` adds a replica to a runtime, with these keys of a module's configuration,
    and returns its environment variables; `diagnose(job_id)` says why a job has no result yet; `pages()` returns the
    dashboard for browsers.
    """

    environment: Callable[[str, Mapping[str, Any]], ModuleEnvironment]
    diagnose: Callable[[str], Diagnosis]
    pages: Callable[[], Pages]


class Context:
    """What handlers need of one emulator.

    An answer waits until the `journal`, if there is one, contains the changes of its request. `waiters` is the number
    of held requests. `surfaces` are those of the OpenAPI document, and `identity` lets clients check that this is the
    emulator whose live file they have found.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        tokens: TokenChecks,
        oauth: OAuthClient,
        settings: Settings,
        journal: Journal | None,
        services: Services,
        surfaces: tuple[Surface, ...],
    ) -> None:
        self.lifecycle = lifecycle
        self.tokens = tokens
        self.oauth = oauth
        self.journal = journal
        self.environment = services.environment
        self.diagnose = services.diagnose
        self.pages = services.pages
        self.surfaces = surfaces
        self.long_polls = LongPolls(lifecycle)
        self.sign_ins = SignIns(oauth, settings.redirect_uris)
        self.sign_in_as: str | None = settings.sign_in_as
        self.caller_tokens = CallerTokens(lifecycle, settings.caller_token_runtimes)
        self.tables = Tables(lifecycle)
        self.call_limits = CallLimits(
            settings.max_requests_per_minute, settings.max_concurrent_requests, self._note_limited
        )
        self.call_timers = CallTimers(lifecycle, settings.function_timeout, services.diagnose)
        self.faults: tuple[Faults, ...] = ()
        self.waiters = 0
        # Traits are slow to read, and these are read for every request.
        self.contour: str = settings.contour
        self.execute_timeout: float = settings.execute_timeout
        self.max_body_bytes: int = settings.max_body_bytes
        self.max_schema_bytes: int = settings.max_schema_bytes
        self.refusal_seconds: float = settings.refusal_seconds
        self.ontology_rid: str = settings.ontology_rid
        self.ontology_api_name: str = settings.ontology_api_name
        self.max_waiting: int = settings.max_waiting
        self.hide_tokens: bool = settings.hide_tokens
        self.version = __version__
        self.identity = secrets.token_hex(8)

    def submitted(self, request: Request, job: Job) -> Job:
        """Return a job that a request has submitted, after keeping the caller's token for it if its runtime gets it."""
        if job.runtime_id in self.caller_tokens.runtimes:
            self.caller_tokens.keep(job, self.tokens.bearer(request))
        return job

    def release_waiter(self, _: object) -> None:
        """Record that a held request has its answer, or that its client has disconnected."""
        self.waiters -= 1

    def too_busy(self) -> TooBusy:
        """Return the error for a request that would have to wait although `max_waiting` requests are held already."""
        return TooBusy(
            f"{self.max_waiting} requests wait for a job already, as many as max_waiting allows. Try again in a second."
        )

    def shown_path(self, request: Request) -> str:
        """Return the beginning of a request's path for an event; secrets in it are masked before it is cut."""
        return self.lifecycle.events.masked(request.path)[:MAX_SHOWN_OF_A_PATH]

    def answer_error(self, error: Exception, request: Request) -> Response:
        """Return the answer for an error. An unexpected error is logged as an event with its traceback."""
        if isinstance(error, WireError):
            if not isinstance(error, (*NO_REFUSALS, TooManyRequests)):  # of those there are fewer events
                self._note_refusal(error, request)
            return self.error_response(error, request)
        self.lifecycle.note(
            "internal_error",
            detail=f"{request.method} {self.shown_path(request)}: {''.join(traceback.format_exception(error))}",
        )
        return self.error_response(
            InternalError("The emulator failed on this request. Its event log has the traceback."), request
        )

    def error_response(self, error: WireError, request: Request) -> Response:
        """Return the answer for an error in the format that the callers of the route expect."""
        if request.path.startswith(PUBLIC_API):
            return api_error_response(error)
        response = error_response(error)
        if self.contour == FOUNDRY and request.path.startswith((CONTOUR, DEPLOYED_APPS)):
            return json_response(error.status, foundry_error(error), headers=response.headers)
        if request.path.startswith(PLATFORM):
            response.delay = self.refusal_seconds
        return response

    def _note_limited(self, detail: str) -> None:
        self.lifecycle.note("request_refused", detail=detail)

    def _note_refusal(self, error: WireError, request: Request) -> None:
        # A token may have been sent by mistake where an id belongs, so ids are masked too.
        runtime_id, job_id = (
            self.lifecycle.events.masked(request.params.get(name, ""))[:MAX_SHOWN_OF_AN_ID] or None
            for name in ("runtimeId", "jobId")
        )
        detail = f"{error.status} {error.code}: {request.method[:20]} {self.shown_path(request)}: {error}"
        self.lifecycle.note("request_refused", runtime_id, job_id, detail)
