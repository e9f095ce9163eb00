"""Tables for a terminal: plain text, in columns, whatever the names in it are."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from cmemu_nb.display.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

GAP = "  "
MOST_OF_A_CELL = 200


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Return rows as lines of text under their headings, none of them wider than `width`.

    Line ends, control characters and what turns the direction of text are shown, not obeyed.
    """
    lines = [[heading.upper() for heading in headings], *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_fit(_line(line, widths), width) for line in lines)


def _cell(text: str) -> str:
    shown = visible(text[: MOST_OF_A_CELL + 1])
    return f"{shown[:MOST_OF_A_CELL]}…" if len(shown) > MOST_OF_A_CELL else shown


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True))
    return GAP.join(padded).rstrip()


def _width(text: str) -> int:
    """Return how many columns a terminal needs for a text."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _fit(line: str, width: int | None) -> str:
    if width is None or _width(line) <= width:
        return line
    used, kept = 1, ""
    for character in line:
        used += _columns(character)
        if used > width:
            break
        kept += character
    return f"{kept}…"
