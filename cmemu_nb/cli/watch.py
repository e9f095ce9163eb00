"""How commands show records: once, or again after each change."""

from __future__ import annotations

import asyncio
import select
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from cmemu_nb.cli.parser import complain
from cmemu_nb.cli.tables import table
from cmemu_nb.wire.json_values import write_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

REFRESH_SECONDS = 0.5
HOME_AND_CLEAR = "\x1b[H\x1b[2J"


class View(NamedTuple):
    """The headings and rows of a table, the same `records` as JSON values, and `nothing`, shown if there are none.

    `volatile` is a field of the records that changes all the time, so that a change of it does not count.
    """

    headings: list[str]
    rows: list[list[str]]
    records: list[dict[str, Any]]
    nothing: str
    note: str = ""
    volatile: str = ""

    def stable(self) -> list[str]:
        """Return the records as JSON lines, without the volatile field."""
        return [write_json({k: v for k, v in each.items() if k != self.volatile}) for each in self.records]


def show_once(view: View, *, as_json: bool) -> None:
    """Print the view once: the table, or the records as JSON."""
    if as_json:
        _print_records(view.records)
    elif view.rows:
        print(table(view.headings, view.rows, _width()))
    else:
        complain(view.nothing)
    if view.note:
        complain(view.note)


async def watch(fetch: Callable[[], Awaitable[View]], *, as_json: bool) -> int:
    """Print the view, and print it again after each change, until Ctrl-C. Raises `NotRunning` if the emulator ends."""
    last: list[Any] | None = None
    try:
        while not _is_closed():
            began = time.monotonic()
            view = await fetch()
            shown: list[Any] = view.rows if sys.stdout.isatty() and not as_json else view.stable()
            if as_json:
                seen = set(last or ())
                _print_records([each for each, line in zip(view.records, shown, strict=True) if line not in seen])
            elif shown != last:
                _draw(view)
            last = shown
            # Fetching may take a while; the pause keeps its share of the emulator's time below a tenth.
            await asyncio.sleep(max(REFRESH_SECONDS, 10 * (time.monotonic() - began)))
    except asyncio.CancelledError:
        return 0
    return 0


def _is_closed() -> bool:
    """Return whether the reader of stdout has closed it; a write would notice that only at the next change."""
    if not hasattr(select, "poll"):
        return False
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _draw(view: View) -> None:
    text = table(view.headings, view.rows, _width()) if view.rows else view.nothing
    if sys.stdout.isatty():
        lines = text.split("\n")
        rows = shutil.get_terminal_size().lines - 1
        text = HOME_AND_CLEAR + "\n".join([lines[0], *lines[1:][-(rows - 1) :]])
    print(text, flush=True)


def _print_records(records: list[dict[str, Any]]) -> None:
    # JSON in ASCII: a terminal can't interpret any name in it.
    for each in records:
        print(write_json(each))
    sys.stdout.flush()


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
