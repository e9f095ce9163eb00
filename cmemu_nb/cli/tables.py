"""Tables for a terminal: plain text in aligned columns, whatever characters the cells contain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wcwidth import clip, ljust, width

from cmemu_nb.display.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

GAP = "  "
MAX_CELL = 200


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], columns: int | None = None) -> str:
    """Return rows as lines of text below their headings, none of them wider than `columns` of the terminal.

    Line ends, control characters and characters that change the direction of text are made visible.
    """
    lines = [[heading.upper() for heading in headings], *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(map(width, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(_fit(_line(line, widths), columns) for line in lines)


def _cell(text: str) -> str:
    shown = visible(text[: MAX_CELL + 1])
    return f"{shown[:MAX_CELL]}…" if len(shown) > MAX_CELL else shown


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return GAP.join(map(ljust, cells, widths)).rstrip()


def _fit(line: str, columns: int | None) -> str:
    return line if columns is None or width(line) <= columns else f"{clip(line, 0, columns - 1)}…"
