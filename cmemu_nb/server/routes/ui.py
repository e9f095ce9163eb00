"""The dashboard as a page for any browser [ours].

`GET /ui` is the page. It takes the bearer token from the fragment of its address, `/ui#token=...`, or asks for it. The
page itself has no data: all data comes from `GET /ui/updates`, which needs the token.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol

from cmemu_nb.errors import InvalidRequest, NotFound
from cmemu_nb.server.api.streams import EVENTS
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import examples
from cmemu_nb.server.openapi.schemas import array, described, with_examples
from cmemu_nb.server.response import Response, StreamResponse
from cmemu_nb.server.routes.tools import known_options
from cmemu_nb.server.routing import Route
from cmemu_nb.wire.json_input import Fields
from cmemu_nb.wire.paths import UI

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request

MAX_UPDATES = 1_000_000
MAX_MESSAGES = 100
# The dashboard sets attributes `style` of the SVGs that it draws. Pages of this machine may show it in a frame, and so
# may VS Code's browser; a frame does not share the token with other tabs.
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self' http://localhost:* http://127.0.0.1:* vscode-webview: vscode-file:"
)
HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "same-origin"}
FILES = frozenset({UI, f"{UI}/page.js", f"{UI}/page.css", f"{UI}/dashboard.js"})


class Pages(Protocol):
    """The dashboard of the emulator, as these routes need it."""

    def file(self, name: str) -> bytes:
        """Return one of the files of which the page consists."""

    def updates(self, most: int | None) -> AsyncGenerator[bytes]:
        """Open a page, and give its updates as JSON, at most `most`."""

    def receive(self, page_id: str, messages: Sequence[dict[str, Any]]) -> None:
        """Accept messages of an open page."""


def show_page(context: Context, _: Request) -> Response:
    """Answer with the page. It has no data, so it needs no token."""
    return Response(200, context.pages().file("page.html"), "text/html; charset=utf-8", headers=HEADERS)


def show_page_script(context: Context, _: Request) -> Response:
    """Answer with the module that connects the page with the emulator."""
    return _script(context, "page.js")


def show_dashboard_script(context: Context, _: Request) -> Response:
    """Answer with the module that draws the dashboard, the same that the widget in notebooks uses."""
    return _script(context, "dashboard.js")


def show_style(context: Context, _: Request) -> Response:
    """Answer with the page's stylesheet."""
    return Response(200, context.pages().file("page.css"), "text/css; charset=utf-8")


def _script(context: Context, name: str) -> Response:
    return Response(200, context.pages().file(name), "text/javascript; charset=utf-8")


def send_updates(context: Context, request: Request) -> StreamResponse:
    """Open a page and answer with its updates as Server-Sent Events, until the client disconnects.

    Each event has the `page`'s id, its `title`, the `parts` of the dashboard that have changed since the event before,
    and `answers` to messages. There are at most five events in a second; a client that reads slowly gets fewer, with
    the latest version of each part.
    """
    most = known_options(request, {"most"}).get("most")
    return StreamResponse(_events(context.pages().updates(None if most is None else _number(most))), EVENTS.media)


async def _events(updates: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(updates):
        async for update in updates:
            yield b"".join([EVENTS.before, update, EVENTS.after])


def _number(text: str) -> int:
    digits = text if text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_UPDATES)) else "0"
    if not 1 <= int(digits) <= MAX_UPDATES:
        raise InvalidRequest(f"'most' must be a whole number from 1 to {MAX_UPDATES}.")
    return int(digits)


def receive_messages(context: Context, request: Request) -> Response:
    """Take messages of an open page: what is open in it, and its buttons. Their answers come with its updates."""
    fields = Fields(request.body, "Messages of a page")
    context.pages().receive(fields.required_text("page"), fields.objects("messages", MAX_MESSAGES))
    return Response(204)


_MESSAGES = with_examples(
    {
        "type": "object",
        "required": ["page", "messages"],
        "properties": {
            "page": described({"type": "string", "minLength": 1}, "The page's id, from its updates"),
            "messages": described(
                {**array({"type": "object"}), "maxItems": MAX_MESSAGES}, "The messages, in the order of sending"
            ),
        },
    },
    examples.PAGE_MESSAGES,
)
_MOST = {"type": "integer", "minimum": 1, "maximum": MAX_UPDATES}

routes = (
    Route("GET", UI, show_page, Auth.NONE, {200: "The page"}, "Show the dashboard (HTML page)", media="text/html"),
    Route(
        "GET",
        f"{UI}/page.js",
        show_page_script,
        Auth.NONE,
        {200: "The module"},
        "Send the page's own script",
        media="text/javascript",
    ),
    Route(
        "GET",
        f"{UI}/dashboard.js",
        show_dashboard_script,
        Auth.NONE,
        {200: "The module"},
        "Send the dashboard's script",
        media="text/javascript",
    ),
    Route(
        "GET",
        f"{UI}/page.css",
        show_style,
        Auth.NONE,
        {200: "The stylesheet"},
        "Send the page's stylesheet",
        media="text/css",
    ),
    Route(
        "GET",
        f"{UI}/updates",
        send_updates,
        Auth.BEARER,
        {200: "The updates, as Server-Sent Events"},
        "Open a page and follow its updates",
        query={"most": with_examples(described(_MOST, "After how many updates the answer ends; never if omitted"), 1)},
        media=EVENTS.media,
    ),
    Route(
        "POST",
        f"{UI}/messages",
        receive_messages,
        Auth.BEARER,
        {204: "The messages were accepted"},
        "Send messages of an open page",
        body=_MESSAGES,
        errors=(NotFound,),
    ),
)
