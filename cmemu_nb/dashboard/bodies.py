"""Queries and results as readable text: JSON is indented, other bytes are shown in hex, and long ones are cut."""

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

MAX_PARSED = 200_000
MAX_SHOWN = 20_000
MAX_HEX = 1_024
HEX_WIDTH = 16
_BLANKS = re.compile(r"[ \t\r\n]*")
_ESCAPE = re.compile(r"\\(?:u(d[89ab]..)\\u(d[c-f]..)|u([0-9a-f]{4})|.)", re.IGNORECASE)


def readable(body: bytes, *, complete: bool = True) -> dict[str, str]:
    """Return a body as `{"text", "kind", "note"}`; the note says its size, or how much of it is shown.

    A body that is not `complete` may end in the middle of a character.
    """
    size = plural(len(body), "byte")
    try:
        text = _beginning(body, complete=complete)
    except UnicodeDecodeError:
        return {"text": _hex(body[:MAX_HEX]), "kind": "binary", "note": _note(size, "bytes", MAX_HEX, len(body))}
    if len(body) > MAX_PARSED:
        note = f"the first {MAX_SHOWN:,} characters of {size} are shown"
        return {"text": visible(text[:MAX_SHOWN], lines=True), "kind": "text", "note": note}
    kind, shown = _pretty(text)
    note = _note(size, "characters", MAX_SHOWN, len(shown))
    return {"text": visible(shown[:MAX_SHOWN], lines=True), "kind": kind, "note": note}


def _beginning(body: bytes, *, complete: bool) -> str:
    """Decode as much of a body as may be shown, without an incomplete character at its end."""
    final = complete and len(body) <= MAX_PARSED
    return codecs.getincrementaldecoder("utf-8")().decode(body[:MAX_PARSED], final=final)


def _pretty(text: str) -> tuple[str, str]:
    if not text.strip():
        return "nothing", text
    try:
        # Numbers keep every digit that was sent, also those that a float would lose.
        values = [msgspec.json.format(each, indent=2) for each in _values(text)]
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return "text", text
    kind = "JSON" if len(values) == 1 else f"{len(values):,} JSON values, one after the other"
    return kind, unescaped("\n".join(values))


def unescaped(text: str) -> str:
    """Return JSON text with its escaped letters as letters; characters that must be escaped stay escaped."""
    return _ESCAPE.sub(_letter, text)


def _values(text: str) -> Iterator[str]:
    """Split JSON values that follow each other; raises ValueError where the end of a value is ambiguous."""
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
    """Return the character of an escape sequence; a character that must be escaped stays escaped."""
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


def _note(size: str, unit: str, most: int, count: int) -> str:
    return size if count <= most else f"the first {most:,} of {count:,} {unit} are shown"
