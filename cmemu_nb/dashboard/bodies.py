"""Queries and results as people read them: JSON indented, text as it is, other bytes in hex; large ones cut."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.display.text import visible
from cmemu_nb.phrases import plural
from cmemu_nb.wire.json_values import read_first

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_PARSED = 200_000
MOST_SHOWN = 20_000
MOST_HEX = 1_024
HEX_WIDTH = 16
_BLANKS = re.compile(r"[ \t\r\n]*")
_ESCAPE = re.compile(r"\\(?:u(d[89ab]..)\\u(d[c-f]..)|u([0-9a-f]{4})|.)", re.IGNORECASE)


def readable(body: bytes, *, complete: bool = True) -> dict[str, str]:
    """Return a body as `{"text", "kind", "note"}`; the note says how much there is when not all of it is shown.

    One that is not `complete` may end in the middle of a character.
    """
    size = plural(len(body), "byte")
    try:
        text = _beginning(body, complete=complete)
    except UnicodeDecodeError:
        return {"text": _hex(body[:MOST_HEX]), "kind": "binary", "note": _note(size, "bytes", MOST_HEX, len(body))}
    if len(body) > MOST_PARSED:
        note = f"the first {MOST_SHOWN:,} characters of {size} are shown"
        return {"text": visible(text[:MOST_SHOWN], lines=True), "kind": "text", "note": note}
    kind, shown = _pretty(text)
    note = _note(size, "characters", MOST_SHOWN, len(shown))
    return {"text": visible(shown[:MOST_SHOWN], lines=True), "kind": kind, "note": note}


def _beginning(body: bytes, *, complete: bool) -> str:
    """Decode as much of a body as may be shown, without a last character that is cut off or not there yet."""
    final = complete and len(body) <= MOST_PARSED
    return codecs.getincrementaldecoder("utf-8")().decode(body[:MOST_PARSED], final=final)


def _pretty(text: str) -> tuple[str, str]:
    if not text.strip():
        return "nothing", text
    try:
        # Numbers stay as they were sent: digits beyond a float's are somebody's data.
        values = [msgspec.json.format(each, indent=2) for each in _values(text)]
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return "text", text
    kind = "JSON" if len(values) == 1 else f"{len(values):,} JSON values, one after the other"
    return kind, _ESCAPE.sub(_letter, "\n".join(values))


def _values(text: str) -> Iterator[str]:
    """Split JSON values that stand one after the other; a ValueError where nobody can tell the end of one."""
    position, end = _after_blanks(text, 0), 0
    while position < len(text):
        if position == end > 0 and text[end - 1] not in '}]"' and text[end] not in '{["':
            raise ValueError(text[end])
        _, end = read_first(text, position)
        yield text[position:end]
        position = _after_blanks(text, end)


def _after_blanks(text: str, position: int) -> int:
    found = _BLANKS.match(text, position)
    return found.end() if found else position


def _letter(found: re.Match[str]) -> str:
    """Show an escaped letter as the letter; what must be escaped stays so."""
    if found[1]:
        return bytes.fromhex(found[1] + found[2]).decode("utf-16-be", errors="replace")
    letter = chr(int(found[3], 16)) if found[3] else ""
    return letter if letter.isprintable() and letter not in '"\\' and letter else found[0]


def _hex(body: bytes) -> str:
    lines = []
    for start in range(0, len(body), HEX_WIDTH):
        part = body[start : start + HEX_WIDTH]
        letters = "".join(chr(each) if 0x20 <= each < 0x7F else "." for each in part)  # noqa: PLR2004 - ASCII
        lines.append(f"{start:06x}  {part.hex(' '):<{HEX_WIDTH * 3}} {letters}")
    return "\n".join(lines)


def _note(size: str, unit: str, most: int, there: int) -> str:
    return size if there <= most else f"the first {most:,} of {there:,} {unit} are shown"
