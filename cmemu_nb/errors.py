"""Every error of the package, one tree.

::

    CmemuError
    ├── WireError                  has a code and an HTTP status, so the server answers with it
    │   ├── InvalidRequest             400 invalid_request
    │   ├── UnsupportedGrant           400 unsupported_grant_type
    │   ├── InvalidModuleAuthToken     401 invalid_module_auth_token
    │   ├── InvalidBearerToken         401 invalid_bearer_token
    │   ├── InvalidClient              401 invalid_client
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
    │   ├── TooManyRuntimes            429 too_many_runtimes
    │   ├── ApiError                   an error of Foundry's public API: its name and status are the instance's
    │   │   └── ExecutionFailed            the function raised, or its job failed
    │   ├── JobFailed                  500 job_failed
    │   ├── InjectedFault              500 injected_fault
    │   │   └── PollRejected               503 injected_fault
    │   ├── InternalError              500 internal_error
    │   ├── JournalBehind              503 journal_behind
    │   ├── NotPrivate                 503 not_private
    │   ├── TooBusy                    503 too_busy
    │   └── JobTimeout                 504 job_timeout
    ├── FunctionRefused            the function can't be a compute module's, as it is defined
    ├── LaunchFailed               a program that was launched ended, or does not poll for jobs
    ├── ExportRefused              the served functions can't be written as a module faithfully
    ├── FunctionError              the function itself raised; the job succeeded on the wire
    ├── ResultError                the result's bytes are not what was asked for
    ├── NotRunning                 the emulator is stopped, or was not started yet
    ├── JournalError               the journal's file can't be used
    ├── SessionFileError           an exported session can't be written or read
    ├── HomeError                  the emulator's loop can't be used in this way
    └── SettingError               a setting is unknown or has a wrong value
        └── SeedError                  a seed file can't be read, or says what can't be
    PortTakenWarning           the wanted port is in use, so another one was taken
    ExposedWarning             the emulator listens for other machines too
    StopWarning                the emulator is stopped, but a part of it failed when it ended
    DefinitionWarning          the official SDK takes the function, and hands over or posts other types than it says

A message says what was attempted, why it failed and what to do next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from cmemu_nb.phrases import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_NAMES = 10


class CmemuError(Exception):
    """The root of every error that this package raises on purpose.

    A notebook shows one with the user's own lines only; `%tb` has all of them.
    """

    def _render_traceback_(self) -> list[str]:
        from cmemu_nb.tracebacks import render  # noqa: PLC0415 - only IPython asks

        return render(self)


class WireError(CmemuError):
    """An error that has a place in the protocol: a code and an HTTP status."""

    code = "internal_error"
    status = 500
    retry_after: ClassVar[int | None] = None
    """After how many seconds the request is worth another try."""


class InvalidRequest(WireError):
    """The request can't be understood: its JSON, a field or its path."""

    code = "invalid_request"
    status = 400


class InvalidModuleAuthToken(WireError):
    """The `Module-Auth-Token` header is missing, wrong or of an earlier session."""

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
            "The bearer token is missing or wrong. Send 'Authorization: Bearer <token>'; "
            "the emulator's token is the attribute .token of its variable in the notebook, "
            "or what 'cmemu serve --print-token' shows."
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
            "The client's id or secret is missing or wrong. Send client_id and client_secret as fields of a form; "
            "they are the emulator's .client_id and .client_secret in its notebook, or settings of those names."
        ),
    ) -> None:
        super().__init__(message)


class UnsupportedGrant(WireError):
    """An access token was asked for in another way than by client credentials."""

    code = "unsupported_grant_type"
    status = 400


class ForbiddenHost(WireError):
    """The `Host` header names neither this machine nor one of the `local_hostnames`."""

    code = "forbidden_host"
    status = 403


class ForbiddenOrigin(WireError):
    """A web page of another site sent the request."""

    code = "forbidden_origin"
    status = 403


class NotFound(WireError):
    """No such route, runtime, job, function or bound app."""

    code = "not_found"
    status = 404


class MethodNotAllowed(WireError):
    """The route exists, with other methods."""

    code = "method_not_allowed"
    status = 405

    def __init__(self, method: str, path: str, allowed: Iterable[str]) -> None:
        self.allowed = sorted(allowed)
        super().__init__(f"{method[:20]} is not possible on {path}. It takes {', '.join(self.allowed)}.")


class JobNotReady(WireError):
    """The result was asked for before the job was done."""

    code = "job_not_ready"
    status = 409


class JobNotRunning(WireError):
    """A result came for a job that no runtime has taken."""

    code = "job_not_running"
    status = 409


class JobAlreadyCompleted(WireError):
    """A different result came for a job that is done."""

    code = "job_already_completed"
    status = 409


class NotebookProtected(WireError):
    """Somebody without a token tried to reset the notebook's session, which `protect_notebook` forbids."""

    code = "notebook_protected"
    status = 409


class JobEvicted(WireError):
    """The finished job was let go to make room for newer ones."""

    code = "job_evicted"
    status = 410


class PayloadTooLarge(WireError):
    """A body is larger than `max_body_bytes`, schemas than `max_schema_bytes`, or a record than a journal can take."""

    code = "payload_too_large"
    status = 413


class QueueFull(WireError):
    """The runtime has `max_queued` jobs queued already."""

    code = "queue_full"
    status = 429
    retry_after = 1


class TooManyRuntimes(WireError):
    """There are `max_runtimes` runtimes already."""

    code = "too_many_runtimes"
    status = 429


class ApiError(WireError):
    """An error of Foundry's public API, of which its client SDK makes an exception [foundry].

    `name` is its errorName, `parameters` its own fields; its errorCode follows from the status.
    """

    def __init__(self, status: int, name: str, message: str, /, **parameters: Any) -> None:
        self.status = status
        self.code = name
        self.parameters = parameters
        super().__init__(message)


class ExecutionFailed(ApiError):
    """A function was called through the public API, and raised, or its job failed or was not done in time."""


class JobFailed(WireError):
    """The job failed: its error message says why."""

    code = "job_failed"
    status = 500


class InjectedFault(WireError):
    """A fault that was asked for with `emu.faults(...)` struck: nothing was kept."""

    code = "injected_fault"
    status = 500


class PollRejected(InjectedFault):
    """The fault `reject_poll` struck a poll."""

    status = 503


class InternalError(WireError):
    """A fault of the emulator itself; the details are in its log."""

    code = "internal_error"
    status = 500


class JournalBehind(WireError):
    """What the request did is not in the journal, because it can't be written."""

    code = "journal_behind"
    status = 503
    retry_after = 1


class NotPrivate(WireError):
    """A file or folder for tokens, keys and the like is not used, because others could read or replace it."""

    code = "not_private"
    status = 503


class TooBusy(WireError):
    """As many connections or held requests as `max_connections` and `max_waiting` allow; ask again in a second."""

    code = "too_busy"
    status = 503
    retry_after = 1


class JobTimeout(WireError, TimeoutError):
    """The job was not done in the time allowed; the message says why. The job stays as it is."""

    code = "job_timeout"
    status = 504


class FunctionRefused(CmemuError):
    """The function can't be a compute module's: the official SDK refuses it, or it could never work."""


class LaunchFailed(CmemuError):
    """A program that was launched ended, or does not poll for jobs; the message has its last lines."""


class ExportRefused(CmemuError):
    """The functions can't be written as a module faithfully; the message names what hinders."""


class FunctionError(CmemuError):
    """The function raised: what it posted is an error object, though the job succeeded on the wire."""


class ResultError(CmemuError):
    """The result can't be read as JSON; `job.raw()` has the bytes."""


class NotRunning(CmemuError):
    """The emulator is stopped, or was not started yet."""


class JournalError(CmemuError):
    """The journal's file can't be used; it was left as it is."""


class SessionFileError(CmemuError):
    """An exported session can't be written to a file, or read from one."""


class HomeError(CmemuError):
    """The emulator's loop can't be used in this way, from this process or from this thread."""


class SettingError(CmemuError):
    """A setting is unknown or has a wrong value."""


class SeedError(SettingError):
    """A seed file can't be read, or says what can't be; the message has the line, and never a token."""


class JobEnded(KeyboardInterrupt):
    """Raised in a function whose job was cancelled, has failed or timed out, to end its thread; no `CmemuError`.

    It is an interrupt of the function: `finally` and `with` run, `except Exception` does not catch it, and asyncio and
    other libraries let it pass. A function that catches it runs on, and its result is dropped.
    """

    def __init__(self, message: str = "the job of this function was ended") -> None:
        super().__init__(message)


class PortTakenWarning(UserWarning):
    """The wanted port is in use by another program, so the emulator took a free one."""


class ExposedWarning(UserWarning):
    """The emulator listens on an address that other machines reach; the message says what they can do."""


class StopWarning(UserWarning):
    """The emulator is stopped, but a part of it failed when it ended; the message says why."""


class DefinitionWarning(UserWarning):
    """The official SDK takes the function, but hands over, or posts as the schema, other types than it says."""


WARNINGS = (PortTakenWarning, ExposedWarning)
"""What `start()` may warn of."""


def known(names: Iterable[str], what: str) -> str:
    """Say which names there are, for the end of an error message.

    Returns a sentence such as "Known runtimes: a, b." or "There are no runtimes yet.";
    of more than ten names it gives the first ten and how many more there are.
    """
    listed = sorted(names)
    if not listed:
        return f"There are no {what} yet."
    more = f" and {len(listed) - MAX_NAMES} more" if len(listed) > MAX_NAMES else ""
    names = ", ".join(map(quoted, listed[:MAX_NAMES]))
    return f"Known {what}: {names}{more}."
