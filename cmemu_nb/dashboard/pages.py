"""The dashboard as a page of its own: `GET /ui`, for any browser, without a notebook.

Each open page is a reader of one endless answer, which begins with the page's id; its messages arrive as requests of
their own. A page that does not read holds nothing up: only the latest version of each part is kept for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.dashboard.actions import ACTIONS
from cmemu_nb.dashboard.assets import script, static, style
from cmemu_nb.dashboard.view import Options, View
from cmemu_nb.errors import InvalidRequest, NotFound
from cmemu_nb.lifecycle.records import JobStatus

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from cmemu_nb.emulator import Emulator

# Of what must arrive in order, such as answers to buttons; the oldest are dropped for a page that reads too slowly.
MAX_ANSWER_BYTES = 4_000_000
# A page without updates for several of these intervals knows that its connection is lost.
BEAT_SECONDS = 5.0
FILES: dict[str, Callable[[], str]] = {
    "page.html": lambda: static("page.html"),
    "page.js": lambda: static("page.js"),
    "page.css": lambda: f"{style()}\n{static('page.css')}",
    "dashboard.js": script,
}


class Pages:
    """The open pages of one emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._open: dict[str, Page] = {}

    def file(self, name: str) -> bytes:
        """Return one of the `FILES` of which the page consists. They are the same for everybody."""
        return FILES[name]().encode()

    async def updates(self, most: int | None) -> AsyncGenerator[bytes]:
        """Open a page, and give its updates as JSON, at most `most`. The end of the iteration closes the page."""
        page = Page(self._emulator)
        self._open[page.id] = page
        self._emulator.board.open()
        try:
            sent = 0
            while most is None or sent < most:
                yield page.take()
                sent += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(page.changed.wait(), BEAT_SECONDS)
        finally:
            del self._open[page.id]
            page.close()

    def receive(self, page_id: str, messages: Sequence[dict[str, Any]]) -> None:
        """Accept messages of an open page, in their order.

        Raises `NotFound` for a page that is not open, and `InvalidRequest` for a message that no page would send.
        """
        page = self._open.get(page_id)
        if page is None:
            raise NotFound("This page is not open. Its first update has its id; it is open until the answer ends.")
        for message in messages:
            _check(message)
        for message in messages:
            page.view.receive(message)


class Page:
    """One open page: its view, and what it has not been sent yet."""

    def __init__(self, emulator: Emulator) -> None:
        self.id = secrets.token_urlsafe(16)
        self.changed = asyncio.Event()
        self.view = View(emulator.board, self._show, self._answer, lambda: None)
        self._emulator = emulator
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._parts: dict[str, msgspec.Raw] = {}
        self._answers: deque[bytes] = deque()
        self._answer_bytes = 0
        self._show({"name": emulator.name, "summary": "", "options": msgspec.to_builtins(Options())})

    def take(self) -> bytes:
        """Return the next update: all that has changed since the update before."""
        with self._lock:
            self.changed.clear()
            parts, self._parts = self._parts, {}
            answers = [msgspec.Raw(each) for each in self._answers]
            self._answers.clear()
            self._answer_bytes = 0
        update = {"page": self.id, "title": _title(self._emulator), "parts": parts, "answers": answers}
        return msgspec.json.encode(update)

    def close(self) -> None:
        """Stop the updates of the page."""
        self._emulator.board.do(self.view.pause)

    # On the board's thread, where the parts are encoded too, so that the loop has only to join them

    def _show(self, parts: dict[str, Any]) -> None:
        encoded = {name: msgspec.Raw(msgspec.json.encode(part)) for name, part in parts.items()}
        with self._lock:
            self._parts |= encoded
        self._wake()

    def _answer(self, message: dict[str, Any]) -> None:
        encoded = msgspec.json.encode(message)
        with self._lock:
            self._answers.append(encoded)
            self._answer_bytes += len(encoded)
            while self._answer_bytes > MAX_ANSWER_BYTES and len(self._answers) > 1:
                self._answer_bytes -= len(self._answers.popleft())
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed, and with it the page's connection
            self._loop.call_soon_threadsafe(self.changed.set)


def _title(emulator: Emulator) -> str:
    running = emulator.lifecycle.count()[JobStatus.RUNNING]
    return f"{running:,} running · cmemu" if running else "cmemu"


def _check(message: dict[str, Any]) -> None:
    action = message.get("do")
    if action not in ("look", "stay", "close") and action not in ACTIONS:
        raise InvalidRequest(f"A message's 'do' must be one of: {', '.join(['look', 'stay', 'close', *ACTIONS])}.")
    if not isinstance(message.get("window"), str):
        raise InvalidRequest("A message needs a 'window', the name of the part of the page that sends it.")
    if action == "look":
        _check_changes(message.get("changes"), message.get("number"))


def _check_changes(changes: object, number: object) -> None:
    if not (isinstance(changes, dict) and isinstance(number, int)):
        raise InvalidRequest("A change of the options needs 'changes', an object, and 'number', which counts changes.")
    try:
        msgspec.convert(msgspec.to_builtins(Options()) | changes, Options)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"Changing the options: {error}.") from None
