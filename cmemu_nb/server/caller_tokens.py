"""The bearer tokens of callers, for the envelopes of their jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.lifecycle.events import ENDS_JOB
from cmemu_nb.tokens import Token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.lifecycle.records import Job


class CallerTokens:
    """The tokens with which the unfinished jobs of the runtimes in `caller_token_runtimes` were submitted.

    They are kept beside the records of the jobs, and in memory only, so that no view, export or journal has them.
    `runtimes` are the ids of the runtimes.
    """

    def __init__(self, lifecycle: Lifecycle, runtimes: Iterable[str]) -> None:
        self.runtimes = frozenset(runtimes)
        self._tokens: dict[str, Token] = {}
        subscribe = lifecycle.events.subscribe
        self.close: Callable[[], None] = subscribe(self._on_event) if self.runtimes else lambda: None

    def keep(self, job: Job, token: str | None) -> None:
        """Keep the token with which a job was submitted, if there was one."""
        if token is not None:
            self._tokens[job.job_id] = Token(token)

    def members(self, job: Job) -> dict[str, str]:
        """Return the members of the envelope of a job that hold its caller's token; none if that was not kept.

        `authHeader` is a whole header, `Bearer` and the token, as Palantir's libraries call an authorization header
        [ours].
        """
        token = self._tokens.get(job.job_id)
        if token is None:
            return {}
        return {"authHeader": f"Bearer {token}", "temporaryCredentialsAuthToken": str(token)}

    def _on_event(self, event: Event) -> None:
        if event.kind in ENDS_JOB:
            self._tokens.pop(event.job_id or "", None)
