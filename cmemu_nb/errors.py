"""All errors and warnings of the package, in one tree.

::

    CmemuError
    ├── WireError                  an error with a code and an HTTP status, which the server can answer with
    │   ├── InvalidRequest             400 invalid_request
    │   ├── InvalidGrant               400 invalid_grant
    │   ├── InvalidScope               400 invalid_scope
    │   ├── UnsupportedGrant           400 unsupported_grant_type
    │   ├── InvalidModuleAuthToken     401 invalid_module_auth_token
    │   ├── InvalidBearerToken         401 invalid_bearer_token
    │   ├── InvalidClient              401 invalid_client
    │   ├── InvalidScratchToken        403 invalid_scratch_token
    │   ├── ForbiddenHost              403 forbidden_host
    │   ├── ForbiddenOrigin            403 forbidden_origin
    │   ├── NotFound                   404 not_found
    │   ├── MethodNotAllowed           405 method_not_allowed
    │   ├── JobNotReady                409 job_not_ready
    │   ├── JobNotRunning              409 job_not_running
    │   ├── JobAlreadyCompleted        409 job_already_completed
    │   ├── NotebookProtected          409 notebook_protected
    │   ├── JobEvicted                 410 job_evicted
    │   ├── PayloadTooLarge            413 payload_too_large
    │   ├── QueueFull                  429 queue_full
    │   ├── TooManyLocks               429 too_many_locks
    │   ├── TooManyRequests            429 too_many_requests
    │   ├── TooManyRuntimes            429 too_many_runtimes
    │   ├── ApiError                   an error of Foundry's public API; each instance has its own name and status
    │   │   ├── ExecutionFailed            the function raised an exception, or its job failed
    │   │   └── UnknownData                there is no dataset or data stream of this name or RID
    │   ├── JobFailed                  500 job_failed
    │   ├── InjectedFault              500 injected_fault
    │   │   └── PollRejected               503 injected_fault
    │   ├── InternalError              500 internal_error
    │   ├── JournalBehind              503 journal_behind
    │   ├── NotPrivate                 503 not_private
    │   ├── TooBusy                    503 too_busy
    │   └── JobTimeout                 504 job_timeout
    ├── FunctionRefused            the function, as it is defined, can't be served by a compute module
    ├── LaunchFailed               a launched program ended, or does not poll for jobs
    ├── ExportRefused              the served functions can't be written faithfully as a module
    ├── FunctionError              the function itself raised an exception; the job succeeded on the wire
    ├── ResultError                the bytes of the result can't be read as requested
    ├── NotRunning                 the emulator is stopped, or has not been started
    ├── JournalError               the journal file can't be used
    ├── SessionFileError           an exported session can't be written or read
    ├── HomeError                  the emulator's loop can't be used in this way
    └── SettingError               a setting is unknown or has a wrong value
        └── SeedError                  a seed file can't be read, or its content is invalid
    PortTakenWarning           the requested port is in use, so the emulator uses another one
    ExposedWarning             other machines can reach the emulator
    StopWarning                the emulator is stopped, but a part of it failed while stopping
    ExportWarning              an exported session does not have some datasets or streams
    DefinitionWarning          the official SDK accepts the function, but its types or its name differ on the platform
    ResultWarning              the result contains NaN or Infinity, which JSON does not have

A message says what was attempted, why it failed and what to do next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmemu_nb.phrases import closest, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_NAMES = 10


class CmemuError(Exception):
    """The base class of every error that this package raises on purpose.

    A notebook shows it with the frames of the user's own code only; `%tb` shows the complete traceback.
    """

    def _render_traceback_(self) -> list[str]:
        from cmemu_nb.tracebacks import render  # noqa: PLC0415 - only IPython asks

        return render(self)


class WireError(CmemuError):
    """An error that the protocol defines, with a code and an HTTP status."""

    code = "internal_error"
    status = 500
    retry_after: int | None = None
    """The number of seconds after which the client should try again; None if a retry does not help."""


class InvalidRequest(WireError):
    """The request is invalid: its JSON, one of its fields or its path."""

    code = "invalid_request"
    status = 400


class InvalidModuleAuthToken(WireError):
    """The `Module-Auth-Token` header is missing or wrong, or its token belongs to an earlier session."""

    code = "invalid_module_auth_token"
    status = 401

    def __init__(self, message: str = "The Module-Auth-Token header is invalid.") -> None:
        super().__init__(message)


class InvalidBearerToken(WireError):
    """The `Authorization: Bearer` header is missing or wrong."""

    code = "invalid_bearer_token"
    status = 401

    def __init__(
        self,
        message: str = (
            "The bearer token is missing or wrong. Send 'Authorization: Bearer <token>'. "
            "The emulator's token is the attribute .token of its variable in the notebook; "
            "'cmemu serve --print-token' prints it."
        ),
    ) -> None:
        super().__init__(message)


class InvalidClient(WireError):
    """The OAuth client's id or secret is missing or wrong."""

    code = "invalid_client"
    status = 401

    def __init__(
        self,
        message: str = (
            "The client's id or secret is missing or wrong. Send client_id and client_secret as fields of a form, or "
            "as HTTP Basic authentication. In the notebook they are the emulator's attributes .client_id and "
            ".client_secret; there are settings of the same names."
        ),
    ) -> None:
        super().__init__(message)


class InvalidScratchToken(WireError):
    """The `Authorization` header of a scratch route is missing or wrong, or its token belongs to an ended replica."""

    code = "invalid_scratch_token"
    status = 403

    def __init__(
        self,
        message: str = (
            "The scratch token is missing or wrong. Send the variable SCRATCH_TOKEN of a replica's environment as the "
            "Authorization header, without 'Bearer'. It is valid as long as the replica's module token."
        ),
    ) -> None:
        super().__init__(message)


class InvalidGrant(WireError):
    """The code or the refresh token of the request for an access token is wrong, expired, used or revoked."""

    code = "invalid_grant"
    status = 400


class InvalidScope(WireError):
    """The request for another access token asks for scopes that the sign-in did not ask for."""

    code = "invalid_scope"
    status = 400


class UnsupportedGrant(WireError):
    """The `grant_type` is none of `client_credentials`, `authorization_code` and `refresh_token`."""

    code = "unsupported_grant_type"
    status = 400


class ForbiddenHost(WireError):
    """The `Host` header names neither this machine nor one of the names in the setting `local_hostnames`."""

    code = "forbidden_host"
    status = 403


class ForbiddenOrigin(WireError):
    """A web page of another site sent the request."""

    code = "forbidden_origin"
    status = 403


class NotFound(WireError):
    """The route, runtime, job, function or bound app does not exist."""

    code = "not_found"
    status = 404


class MethodNotAllowed(WireError):
    """The path exists, but not for this method."""

    code = "method_not_allowed"
    status = 405

    def __init__(self, method: str, path: str, allowed: Iterable[str]) -> None:
        self.allowed = sorted(allowed)
        super().__init__(f"{method[:20]} is not allowed on {path}. Allowed methods: {', '.join(self.allowed)}.")


class JobNotReady(WireError):
    """The job has not finished, so it has no result yet."""

    code = "job_not_ready"
    status = 409


class JobNotRunning(WireError):
    """A result was posted for a job that is not running: no runtime has taken it."""

    code = "job_not_running"
    status = 409


class JobAlreadyCompleted(WireError):
    """A different result was posted for a job that has finished."""

    code = "job_already_completed"
    status = 409


class NotebookProtected(WireError):
    """A request without a valid token tried to reset the notebook's session, which `protect_notebook` forbids."""

    code = "notebook_protected"
    status = 409


class JobEvicted(WireError):
    """The job had finished and was evicted to make room for newer jobs."""

    code = "job_evicted"
    status = 410


class PayloadTooLarge(WireError):
    """A body exceeds `max_body_bytes`, schemas exceed `max_schema_bytes`, or a record is too large for the journal."""

    code = "payload_too_large"
    status = 413


class QueueFull(WireError):
    """The queue of the runtime is full: it already holds `max_queued` jobs."""

    code = "queue_full"
    status = 429
    retry_after = 1


class TooManyLocks(WireError):
    """The replicas of the runtime hold as many locks as they may already."""

    code = "too_many_locks"
    status = 429
    retry_after = 1


class TooManyRequests(WireError):
    """The caller has sent as many requests in the last minute, or at once, as the settings allow [foundry]."""

    code = "too_many_requests"
    status = 429
    retry_after = 1

    def __init__(self, message: str, retry_after: int = 1) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class TooManyRuntimes(WireError):
    """The emulator already has `max_runtimes` runtimes."""

    code = "too_many_runtimes"
    status = 429


class ApiError(WireError):
    """An error of Foundry's public API, which its client SDK raises as an exception [foundry].

    `name` becomes the `errorName`, and `parameters` are the error's own fields. The `errorCode` follows from the
    status.
    """

    def __init__(self, status: int, name: str, message: str, /, **parameters: Any) -> None:
        self.status = status
        self.code = name
        self.parameters = parameters
        super().__init__(message)


class ExecutionFailed(ApiError):
    """A function called through the public API raised an exception, or its job failed or did not finish in time."""


class UnknownData(ApiError, KeyError):
    """There is no dataset or data stream of this name or RID."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # that of KeyError would show the message in quotes


class JobFailed(WireError):
    """The job failed. Its error message says why."""

    code = "job_failed"
    status = 500


class InjectedFault(WireError):
    """A fault injected with `emu.faults(...)` struck the request, so nothing was stored."""

    code = "injected_fault"
    status = 500


class PollRejected(InjectedFault):
    """The injected fault `reject_poll` struck the poll."""

    status = 503


class InternalError(WireError):
    """The emulator itself failed. Its event log has the details."""

    code = "internal_error"
    status = 500


class JournalBehind(WireError):
    """The changes of the request are not in the journal, because the journal can't be written."""

    code = "journal_behind"
    status = 503
    retry_after = 1


class NotPrivate(WireError):
    """A file or folder for secrets, such as tokens and keys, can't be used: other users could read or replace it."""

    code = "not_private"
    status = 503


class TooBusy(WireError):
    """The limit `max_connections` or `max_waiting` is reached. Try again in a second."""

    code = "too_busy"
    status = 503
    retry_after = 1


class JobTimeout(WireError, TimeoutError):
    """The job did not finish within the time limit; the message says why. The job itself is unchanged."""

    code = "job_timeout"
    status = 504


class FunctionRefused(CmemuError):
    """The function can't be served by a compute module: the official SDK rejects it, or no call could succeed."""


class LaunchFailed(CmemuError):
    """A launched program ended, or does not poll for jobs; the message has the last lines of its output.

    `exit_code` is that of the program, None if it has not ended.
    """

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ExportRefused(CmemuError):
    """The functions can't be written faithfully as a module; the message names the obstacle."""


class FunctionError(CmemuError):
    """The function raised an exception: its result is an error object, although the job succeeded on the wire."""


class ResultError(CmemuError):
    """The result can't be read as JSON; `job.raw()` has the bytes."""


class NotRunning(CmemuError):
    """The emulator is stopped, or has not been started."""


class JournalError(CmemuError):
    """The journal file can't be used; it was not changed."""


class SessionFileError(CmemuError):
    """An exported session can't be written to a file or read from one."""


class HomeError(CmemuError):
    """The emulator's event loop can't be used in this way, from this process or from this thread."""


class SettingError(CmemuError):
    """A setting is unknown or has a wrong value."""


class SeedError(SettingError):
    """A seed file can't be read, or its content is invalid. The message names the line and never contains a token."""


class JobEnded(KeyboardInterrupt):
    """Raised in a function whose job was cancelled, failed or timed out, to end its thread. It is not a `CmemuError`.

    It interrupts the function: `finally` and `with` blocks run, `except Exception` does not catch it, and asyncio and
    other libraries let it pass. A function that catches it continues to run, and its result is discarded.
    """

    def __init__(self, message: str = "the job of this function was ended") -> None:
        super().__init__(message)


class PortTakenWarning(UserWarning):
    """The requested port is in use by another program, so the emulator listens on a free one."""


class ExposedWarning(UserWarning):
    """The emulator listens on an address that other machines can reach; the message says what they can do."""


class StopWarning(UserWarning):
    """The emulator is stopped, but a part of it failed while stopping; the message says why."""


class ExportWarning(UserWarning):
    """An exported session does not have some datasets or streams: they are too large. The message names them."""


class DefinitionWarning(UserWarning):
    """The official SDK accepts the function, but its types are not those that it says, or its name is no API name."""


class ResultWarning(UserWarning):
    """The result of a function contains NaN or Infinity, which Python reads and most other clients do not."""


WARNINGS = (PortTakenWarning, ExposedWarning)
"""The warnings that `start()` may give."""


def known(names: Iterable[str], what: str) -> str:
    """Return a sentence that lists the known names, for the end of an error message.

    Examples are "Known runtimes: a, b." and "There are no runtimes yet."; of more than ten names it lists the first
    ten and says how many more there are.
    """
    listed = sorted(names)
    return f"Known {what}: {quoted_names(listed)}." if listed else f"There are no {what} yet."


def not_served(function: str, names: Iterable[str], where: str = "") -> str:
    """Return the sentences about a function that is not served: the most similar name, and the known ones."""
    names = list(names)
    return f"No function {quoted(function)} is served{where}.{closest(function, names)} {known(names, 'functions')}"


def quoted_names(names: Iterable[str]) -> str:
    """Return the first ten names in quotes, separated by commas, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - MAX_NAMES} more" if len(listed) > MAX_NAMES else ""
    return ", ".join(map(quoted, listed[:MAX_NAMES])) + more
