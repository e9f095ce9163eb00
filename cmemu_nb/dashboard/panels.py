"""The texts of the dashboard's data.

External text is cut, and its control characters are made visible, here; the browser inserts it as text, never as HTML.
"""

from __future__ import annotations

import time
from typing import Any

from cmemu_nb.display.text import cut, visible
from cmemu_nb.lifecycle.records import NS_PER_S, JobStatus, Outcome

MAX_TEXT = 120
TONES: dict[str, str] = {
    JobStatus.QUEUED: "grey",
    JobStatus.RUNNING: "blue",
    Outcome.OK: "green",
    Outcome.FUNCTION_ERROR: "amber",
    Outcome.FAILED: "red",
}

Part = dict[str, Any]


def plain(text: object, most: int = MAX_TEXT) -> str:
    """Return a short text of one line for any external value."""
    shown, note = cut(str(text), most)
    return visible(shown).encode(errors="replace").decode() + ("…" if note else "")


def time_of_day(at: int) -> str:
    """Return the UTC time of a moment in Unix nanoseconds: '00:35:22'."""
    return time.strftime("%H:%M:%S", time.gmtime(at // NS_PER_S))


def last_line(text: str) -> str:
    """Return the last line of a text, where a traceback says what happened."""
    return text.rstrip().rpartition("\n")[2]


def badge(text: str, tone: str) -> Part:
    """Return a badge: a word, and the colour of the dot beside it."""
    return {"badge": text, "tone": tone}
