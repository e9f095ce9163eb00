"""`cmemu ui`: open the dashboard of a running emulator in a browser."""

from __future__ import annotations

import asyncio
import html
import os
import sys
import webbrowser
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from cmemu_nb.cli.discovery import add_where, find
from cmemu_nb.cli.parser import Commands, Parser, add_command, complain, does
from cmemu_nb.storage import live_file
from cmemu_nb.wire.jupyterhub import proxy_url
from cmemu_nb.wire.paths import RUNTIMES, UI

if TYPE_CHECKING:
    import argparse


def add_commands(commands: Commands, parsers: dict[str | None, Parser]) -> None:
    """Add `ui`."""
    parser = parsers["ui"] = add_command(
        commands,
        "ui",
        "Open the dashboard of a running emulator in a browser, and print its address.",
        "  cmemu ui\n  cmemu ui --no-browser --url http://127.0.0.1:4000",
        "The address has the bearer token in its fragment, which browsers do not send; the page removes it from the\n"
        "address bar. Whoever has the address can use the emulator.",
    )
    parser.add_argument("--no-browser", action="store_true", help="Only print the address.")
    add_where(parser)
    does(parser, _ui)


def _ui(_: Parser, options: argparse.Namespace) -> int:
    url, token = asyncio.run(_found(options))
    print(address(url, token), flush=True)
    if not options.no_browser:
        open_browser(url, token)
    return 0


async def _found(options: argparse.Namespace) -> tuple[str, str]:
    async with await find(options) as remote:
        await remote.get(RUNTIMES, limit=1)  # raises the error of a token that the emulator rejects
        return remote.url, remote.token


def address(url: str, token: str = "") -> str:
    """Return the address of the dashboard, through the hub if there is one; with the token if it is given."""
    fragment = f"#token={quote(token, safe='')}" if token else ""
    return f"{proxy_url(urlsplit(url).port or 80) or url}{UI}{fragment}"


def open_browser(url: str, token: str) -> None:
    """Open the dashboard in a browser, or print why that is impossible.

    Other users can see the arguments of programs. So the browser is given the path of a private file, which leads to
    the address with the token.
    """
    if not _has_display():
        complain("No browser was opened, because this terminal has no display. Open the address yourself.")
        return
    target = html.escape(address(url, token))
    link = f'<!doctype html><meta http-equiv="refresh" content="0; url={target}"><a href="{target}">The dashboard</a>'
    page = live_file.write_page(token, link.encode())
    if not webbrowser.open(address(url) if page is None else page.as_uri()):
        complain("No browser was opened, because none was found. Open the address yourself.")


def _has_display() -> bool:
    return sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))
