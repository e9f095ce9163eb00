"""HTML for objects and tables: self-contained, without scripts, and readable on every page.

Colours are JupyterLab's with fallbacks, and text has the page's own colour, so it is readable in light and dark themes,
in VS Code and on GitHub, which removes even the styles. Every value that is not `Html` is text from outside: it is cut
and escaped, its control characters are made visible, and it can't change the direction of the text around it. It is
never put into an attribute, except for the address of a `link()`.
"""

from __future__ import annotations

import html
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cmemu_nb.display.text import MISSING, cut, say, visible
from cmemu_nb.phrases import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Row = Mapping[Any, object]

MAX_IN_CELL = 120
MAX_IN_CARD = 2_000
MAX_ROWS = 60
MAX_ON_ONE_LINE = 48
MAX_IN_TWO_LINES = 100
MAX_UNWRAPPED = 12

_LINE = "var(--jp-border-color2,rgba(128,128,128,.4))"
_MUTED = "var(--jp-ui-font-color2,inherit)"
_GREY = "var(--jp-ui-font-color3,#808080)"
_BLUE = "var(--jp-info-color1,#1e88e5)"
_GREEN = "var(--jp-success-color1,#43a047)"
_AMBER = "var(--jp-warn-color1,#f57c00)"
_RED = "var(--jp-error-color1,#e53935)"
_COLOURS = {
    "queued": _GREY,
    "running": _BLUE,
    "succeeded": _GREEN,
    "ok": _GREEN,
    "connected": _GREEN,
    "responsive": _GREEN,
    "function error": _AMBER,
    "failed": _RED,
    "lost": _RED,
}

_BOX = "overflow-x:auto;margin:4px 0"
_TABLE = "border-collapse:collapse;margin:0;font-size:inherit;color:inherit;table-layout:auto"
_CAPTION = "caption-side:top;text-align:left;padding:2px 0 6px;font-weight:600;color:inherit;white-space:nowrap"
_CELL = f"text-align:left;vertical-align:top;padding:3px 12px 3px 0;border-bottom:1px solid {_LINE}"
_COMPACT_TABLE = _TABLE.replace("font-size:inherit", "font-size:13px;line-height:1.3")
_COMPACT_CELL = _CELL.replace("3px 12px 3px 0", "2px 9px 2px 0")
_HEAD = f"{_CELL};font-weight:600;white-space:nowrap"
_RIGHT = "text-align:right;font-variant-numeric:tabular-nums"
_KEY = f"{_CELL};font-weight:normal;white-space:nowrap;color:{_MUTED}"
_TEXT = "unicode-bidi:isolate"
_SHORT = f"{_TEXT};white-space:nowrap"
_LONG = f"{_TEXT};overflow-wrap:anywhere;display:inline-block;min-width:24ch"
_TWO_LINES = (
    f"{_TEXT};display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:2;overflow:hidden;"
    "overflow-wrap:anywhere;min-width:11ch"
)
_LINES = f"{_TEXT};overflow-wrap:anywhere;white-space:pre-wrap"


class Html(str):
    """Markup that is safe as it is. The result of `+`, `%` or `format` with it is a plain text again."""

    __slots__ = ()


def table(
    caption: object,
    columns: Sequence[str],
    rows: Sequence[Row],
    empty_hint: object = "",
    *,
    every: int = 0,
    note: str = "",
    compact: bool = False,
) -> Html:
    """Return a table of `rows` with the columns that `columns` names.

    A cell is `Html` (such as a badge) or any value, which is shown as text of at most 120 characters. If there are
    more than 60 rows, the table shows the first and the last 30 and the number of those between; without rows it shows
    `empty_hint`, in which backticks enclose `code`. If `rows` are only the first and last rows, `every` is the number
    of all. The `note` is shown below the table. A `compact` table has a small font, and its headings may wrap.
    """
    cell, look = (_COMPACT_CELL, _COMPACT_TABLE) if compact else (_CELL, _TABLE)
    heading = f"{cell};font-weight:600;vertical-align:bottom" if compact else _HEAD
    say_heading = html.escape if compact else _text
    shown, left_out = _shorten(rows)
    left_out = left_out or max(0, every - len(rows))
    styles = {name: f";{_RIGHT}" if _all_numbers(row.get(name) for row in shown) else "" for name in columns}
    head = "".join(
        f'<th scope="col" style="{heading}{style}">{say_heading(name)}</th>' for name, style in styles.items()
    )
    body = [_row(styles, row, cell) for row in shown]
    if not rows:
        body = [_across(columns, _hint(empty_hint))]
    if left_out:
        body.insert(len(shown) // 2, _across(columns, f"… {plural(left_out, 'more row')} …"))
    inside = f"{_caption(_content(caption))}<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
    return _box(inside, _below(_text(note)) if note else "", look)


def two_lines(value: object) -> Html:
    """Return text from outside for a cell of at most two lines; longer text is cut."""
    shown, note = cut(say(value), MAX_IN_TWO_LINES)
    safe = html.escape(visible(shown) + ("…" if note else ""))
    return Html(f'<bdi style="{_SHORT if len(shown) <= MAX_UNWRAPPED else _TWO_LINES}">{safe}</bdi>')


def wrapped(value: object) -> Html:
    """Return text from outside for a cell that is as narrow as it has to be; it keeps 2,000 characters."""
    return Html(_text(say(value), MAX_IN_CARD, lines=True))


def card(
    title: object,
    pairs: Mapping[str, object] | Iterable[tuple[str, object]],
    badge: object = None,
    hint: object = None,
) -> Html:
    """Return a card for one object: its title, its state as a badge, its fields, and a hint about the next step.

    Values are shown as in `table()`, but keep their line breaks and are cut to 2,000 characters. In the hint, backticks
    enclose `code`.
    """
    rows = "".join(
        f'<tr><th scope="row" style="{_KEY}">{_text(name)}</th>'
        f'<td style="{_CELL}">{_content(value, MAX_IN_CARD, lines=True)}</td></tr>'
        for name, value in dict(pairs).items()
    )
    heading = _content(title) if badge is None else f"{_content(title)} {_content(badge)}"
    return _box(f"{_caption(heading)}<tbody>{rows}</tbody>", "" if hint is None else _below(_hint(hint)))


def status_badge(status: object, outcome: object = None) -> Html:
    """Return a state as a word beside a dot of its colour, with the outcome if it adds information to the status.

    `status` is the status of a job, or any other word, such as 'connected'; unknown words have a grey dot.
    """
    word, end = say(status), say(outcome)
    colour = _COLOURS.get(end, _COLOURS.get(word, _GREY))
    label = word if end in (MISSING, word) else f"{word} · {end}"
    return Html(
        f'<span style="display:inline-block;padding:0 8px;border:1px solid {colour};border-radius:9px;'
        f'font-weight:normal;white-space:nowrap"><span style="color:{colour}">●</span> {_text(label)}</span>'
    )


def link(url: str, text: str | None = None) -> Html:
    """Return an address as a link that opens in a new tab; an address that is not an http or https URL is text.

    The `text` of the link is the address by default.
    """
    if not url.startswith(("http://", "https://")):
        return Html(_text(url))
    return Html(f'<a href="{html.escape(url)}" target="_blank" rel="noopener noreferrer">{_text(text or url)}</a>')


def mimebundle(text: str, markup: str) -> dict[str, str]:
    """Return the value of `_repr_mimebundle_`: the plain text, and the HTML for front ends that can show it."""
    # Jupyter can't send a message with a lone surrogate, so nothing would be shown at all.
    return {
        "text/plain": text.encode(errors="replace").decode(),
        "text/html": markup.encode(errors="replace").decode(),
    }


def _shorten(rows: Sequence[Row]) -> tuple[list[Row], int]:
    if len(rows) <= MAX_ROWS:
        return list(rows), 0
    half = MAX_ROWS // 2
    return [*rows[:half], *rows[-half:]], len(rows) - 2 * half


def _all_numbers(values: Iterable[object]) -> bool:
    """Return whether all values of a column are numbers, except missing ones."""
    present = [value for value in values if say(value) != MISSING]
    return bool(present) and all(
        isinstance(value, int | float | timedelta) and not isinstance(value, bool) for value in present
    )


def _row(styles: Mapping[str, str], row: Row, look: str) -> str:
    cells = (f'<td style="{look}{style}">{_content(row.get(name))}</td>' for name, style in styles.items())
    return f"<tr>{''.join(cells)}</tr>"


def _across(columns: Sequence[str], content: str) -> str:
    return f'<tr><td colspan="{max(1, len(columns))}" style="{_CELL};color:{_MUTED}">{content}</td></tr>'


def _content(value: object, most: int = MAX_IN_CELL, *, lines: bool = False) -> str:
    return value if isinstance(value, Html) else _text(say(value), most, lines=lines)


def _text(text: str, most: int = MAX_IN_CELL, *, lines: bool = False) -> str:
    """Make text from outside safe for any place between tags."""
    shown, note = cut(text, most)
    safe = html.escape(visible(shown, lines=lines))
    cut_off = f'<span style="color:{_MUTED}">{note}</span>' if note else ""
    style = _LINES if lines else _SHORT if len(shown) <= MAX_ON_ONE_LINE else _LONG
    return f'<bdi style="{style}">{safe}</bdi>{cut_off}'


def _hint(hint: object) -> str:
    """Show the pieces between backticks as code."""
    if isinstance(hint, Html):
        return hint
    shown, note = cut(say(hint), MAX_IN_CARD)
    pieces = [_text(piece, MAX_IN_CARD, lines=True) for piece in f"{shown}{note}".split("`")]
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))


def _caption(content: str) -> str:
    return f'<caption style="{_CAPTION}">{content}</caption>'


def _below(content: str) -> str:
    return f'<div style="padding:6px 0 2px;color:{_MUTED}">{content}</div>'


def _box(inside: str, below: str = "", look: str = _TABLE) -> Html:
    return Html(f'<div style="{_BOX}"><table style="{look}">{inside}</table>{below}</div>')
