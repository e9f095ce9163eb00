"""Values as readable text: times, durations, missing values, and text that came from outside."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cmemu_nb.lifecycle.records import NS_PER_MS, NS_PER_S, STATES, Outcome
from cmemu_nb.phrases import plural
from cmemu_nb.tokens import last_four

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cmemu_nb.lifecycle.state import State

__all__ = [
    "MISSING",
    "UNSEEN",
    "ago",
    "clock",
    "cut",
    "duration",
    "holdings",
    "last_four",
    "offsets_in_words",
    "say",
    "short_id",
    "short_text",
    "size_in_words",
    "tally",
    "visible",
    "when",
]

MISSING = "—"
_SIZES = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "␡"}
# C1 controls, line separators, lone surrogates, and characters that change the direction of the text around them.
_NOT_IN_XML = {code: f"[U+{code:X}]" for code in (0xFFFE, 0xFFFF)}
UNSEEN = re.compile("[\x80-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def ago(then: int | None, now: int) -> str:
    """Return how long ago a time was, in the largest unit: '3 s ago'. Both are Unix nanoseconds; None gives 'never'."""
    if then is None:
        return "never"
    seconds = (now - then) // NS_PER_S
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return "just now"


def duration(nanoseconds: int | None) -> str:
    """Return a duration in at most two units: '950 µs', '1.9 ms', '12 s', '3 min 4 s'; None gives '—'.

    It is rounded down, so that a duration never seems longer than it was.
    """
    if nanoseconds is None:
        return MISSING
    nanoseconds = max(0, nanoseconds)
    for unit, length in (("ns", 1), ("µs", 1_000), ("ms", NS_PER_MS), ("s", NS_PER_S)):
        if nanoseconds < length * 1_000 and nanoseconds < 60 * NS_PER_S:
            return f"{_to_two_digits(nanoseconds, length)} {unit}"
    seconds = nanoseconds // NS_PER_S
    for (large, length), (small, part) in itertools.pairwise(_UNITS):
        if seconds >= length:
            rest = seconds % length // part
            return f"{seconds // length} {large}" + (f" {rest} {small}" if rest else "")
    return f"{seconds} s"


def when(nanoseconds: int | None) -> str:
    """Return a time, given in Unix nanoseconds, as text: '2025-11-24 00:35:22.123 UTC'."""
    if nanoseconds is None:
        return MISSING
    return _moment(datetime.fromtimestamp(nanoseconds // NS_PER_S, UTC) + timedelta(0, 0, nanoseconds // 1_000 % 10**6))


def clock(nanoseconds: int, now: int, *, milliseconds: bool = False) -> str:
    """Return a time of day in UTC, to the second or the millisecond; with the date if it is not that of `now`."""
    day, _, at = when(nanoseconds).removesuffix(" UTC").partition(" ")
    at = at if milliseconds else at.partition(".")[0]
    return at if day == when(now).partition(" ")[0] else f"{day} {at}"


def short_id(job_id: str) -> str:
    """Return the end of a job's id, which identifies the job for a reader: '…a4c966'."""
    return f"…{job_id[-6:]}"


def say(value: object) -> str:
    """Return any value as plain text: a cell of a frame, a setting, a record's field."""
    if (
        value is None
        or type(value).__name__ in ("NaTType", "NAType")
        or (isinstance(value, float) and math.isnan(value))
    ):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, timedelta):
        # A Timedelta of pandas has nanoseconds.
        return duration(getattr(value, "value", value // timedelta(microseconds=1) * 1_000))
    if isinstance(value, datetime):
        return _moment(value)
    return str(value)


def tally(counts: Mapping[str, int]) -> str:
    """Return the number of jobs in each state that has any: '3 running, 470 ok, 30 function errors'."""
    return ", ".join(state_count(state, counts[state]) for state in STATES if counts[state])


def state_count(state: str, count: int) -> str:
    """Return the number of jobs in a state; only 'function error' is a noun and has a plural."""
    return plural(count, state) if state == Outcome.FUNCTION_ERROR else f"{count:,} {state}"


def holdings(state: State) -> str:
    """Return a summary of an emulator's records: '1 runtime, 500 jobs (470 ok, 30 function errors)'."""
    counts = state.outcomes()
    jobs = plural(sum(counts.values()), "job")
    how = f" ({tally(counts)})" if any(counts.values()) else ""
    return f"{plural(state.count_runtimes(), 'runtime')}, {jobs}{how}"


def visible(text: str, *, lines: bool = False) -> str:
    """Make invisible characters visible: control characters as their pictures (␀), others as their code points.

    With `lines=True`, line ends and tabs are not changed.
    """
    kept = {ord(each): each for each in "\n\t"} if lines else {}
    return UNSEEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", text.translate(_PICTURES | kept))


def short_text(text: str, columns: int) -> str:
    """Make text from outside visible, and cut it to `columns` columns with an ellipsis at the end."""
    shown = visible(text[: columns + 1]).translate(_NOT_IN_XML)
    widths = itertools.accumulate(1 + (unicodedata.east_asian_width(each) in "FW") for each in shown)
    fits = sum(width <= columns for width in widths)
    return shown if fits == len(shown) else f"{shown[: fits - 1]}…"


def cut(text: str, most: int) -> tuple[str, str]:
    """Cut a text to `most` characters; returns the text, and a note that says that it was cut, or ''."""
    if len(text) <= most:
        return text, ""
    return text[:most], f"… (the first {most:,} of {len(text):,} characters)"


def offsets_in_words(ends: Iterable[int]) -> str:
    """Return the offset of the next record of each partition: '0: 12, 1: 9'."""
    return ", ".join(f"{number}: {end}" for number, end in enumerate(ends))


def size_in_words(size: int) -> str:
    """Return a number of bytes in the largest unit: '999 bytes', '1.6 kB', '12 MB'; it is rounded down."""
    if size < 1_000:  # noqa: PLR2004 - below a kB
        return plural(size, "byte")
    unit, length = next((name, each) for name, each in _SIZES if size >= each)
    return f"{_to_two_digits(size, length)} {unit}"


def _to_two_digits(value: int, unit: int) -> str:
    whole, tenth = value // unit, value * 10 // unit % 10
    return f"{whole}.{tenth}" if whole < 10 and tenth else str(whole)  # noqa: PLR2004 - one digit


def _moment(value: datetime) -> str:
    zone = f" {value.tzname()}" if value.tzinfo else ""
    return f"{value:%Y-%m-%d %H:%M:%S}.{value.microsecond // 1_000:03}{zone}"
