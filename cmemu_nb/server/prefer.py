"""`Prefer: wait=N` (RFC 7240): how long a client lets the server hold its answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmemu_nb.server.request import Request

LONGEST_WAIT = 60
_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=[,;]|$)', re.IGNORECASE)


def preferred_wait(request: Request) -> int:
    """Return the seconds of the request's `Prefer: wait=N`, at most 60; 0 when there is none."""
    for value in request.headers.get_list("Prefer"):
        match = _WAIT.search(value)
        if match:
            return min(int(match[1]), LONGEST_WAIT)
    return 0


def applied(seconds: int) -> dict[str, str]:
    """Return the response header that says that the wait was granted."""
    return {"Preference-Applied": f"wait={seconds}"} if seconds else {}
