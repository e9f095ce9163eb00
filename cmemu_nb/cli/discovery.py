"""Which emulator a command talks to: the one that is named, or the only one that runs here."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from cmemu_nb.cli.remote import Remote
from cmemu_nb.cli.tables import table
from cmemu_nb.clients.http import HttpClient
from cmemu_nb.display.text import when
from cmemu_nb.errors import InvalidRequest, NotRunning
from cmemu_nb.server.routes.tools import HEALTH
from cmemu_nb.storage import live_file
from cmemu_nb.tokens import Token

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from cmemu_nb.storage.live_file import LiveEmulator

HEALTH_SECONDS = 3.0
NONE_RUNS = "No emulator runs here. Start one: cmemu serve in a terminal, or %cmemu start in a notebook."


class Unreachable(Exception):
    """Nobody listens, or whoever does speaks no HTTP."""


class Health(msgspec.Struct):
    """What the health route answers."""

    status: str
    id: str


def add_where(parser: argparse.ArgumentParser) -> None:
    """Add the options that name an emulator."""
    group = parser.add_argument_group("which emulator")
    group.add_argument(
        "--url", metavar="URL", help="Its address; CMEMU_URL if left out, else that of the only one that runs here."
    )
    group.add_argument(
        "--token",
        metavar="TEXT",
        type=Token,
        help="Its bearer token; if left out CMEMU_TOKEN, which no list of processes shows, or what its file says.",
    )


async def find(options: argparse.Namespace) -> Remote:
    """Return the emulator that a command means; whoever else answers there is not told the token.

    Raises `InvalidRequest` when it is not clear which, `NotRunning` when none is there.
    """
    url = options.url or os.environ.get("CMEMU_URL")
    token = options.token or (None if options.url else Token(os.environ.get("CMEMU_TOKEN", "")) or None)
    if url is None:
        chosen = _only(await live_emulators())
        return Remote(chosen.url, token or chosen.token)
    url = _checked(url)
    await _check_that_it_is_one(url)
    return Remote(url, token or await _token_of(url))


async def _check_that_it_is_one(url: str) -> None:
    hint = "'cmemu list' shows those that run here."
    try:
        if await identity(url) is None:
            raise NotRunning(f"What answers at {url} is no emulator of cmemu_nb. {hint}")
    except TimeoutError:
        raise NotRunning(f"What listens at {url} does not answer. Is its process stopped, or busy?") from None
    except Unreachable:
        raise NotRunning(f"No emulator answers at {url}. {hint}") from None


async def _token_of(url: str) -> str:
    for each in await live_emulators():
        if _address(each.url) == _address(url):
            return each.token
    if os.environ.get("CMEMU_TOKEN"):
        return Token(os.environ["CMEMU_TOKEN"])
    raise InvalidRequest(f"The token of the emulator at {url} is not known here. Set CMEMU_TOKEN, or give --token.")


def _only(found: list[LiveEmulator]) -> LiveEmulator:
    if not found:
        raise NotRunning(NONE_RUNS)
    if len(found) > 1:
        raise InvalidRequest(f"{len(found)} emulators run here: say which one, --url URL.\n{as_table(found)}")
    return found[0]


def as_table(found: list[LiveEmulator]) -> str:
    """Return the emulators as a table, without their tokens."""
    rows = [[each.url, str(each.pid), when(each.started_at)[:19], each.cwd, each.version] for each in found]
    return table(["url", "process", "started (UTC)", "directory", "version"], rows)


def _checked(url: str) -> str:
    try:
        split = urlsplit(url)
        sound = split.scheme == "http" and split.hostname and split.port != 0 and split.path in ("", "/")
        sound = sound and not (split.query or split.fragment or split.username) and url.isascii() and url.isprintable()
    except ValueError:
        sound = False
    if not sound:
        raise InvalidRequest(
            f"{url!r} can't be an emulator's URL. Give it as http://HOST:PORT, as cmemu serve says it."
        )
    return url.rstrip("/")


def _address(url: str) -> tuple[str | None, int]:
    split = urlsplit(url)
    return "127.0.0.1" if split.hostname in ("localhost", "::1") else split.hostname, split.port or 80


async def identity(url: str) -> str | None:
    """Ask who answers at a URL: an emulator's id, or None for anything else.

    `Unreachable` when nobody does, `TimeoutError` when somebody takes too long.
    """
    client = HttpClient(url)
    try:
        async with asyncio.timeout(HEALTH_SECONDS):
            reply = await client.request("GET", HEALTH, {})
        return msgspec.json.decode(reply.body, type=Health).id
    except NotRunning as error:
        raise Unreachable from error
    except msgspec.MsgspecError:
        return None
    finally:
        client.close()


async def live_emulators() -> list[LiveEmulator]:
    """Return the emulators of this machine and account that run, oldest first; files of dead ones are removed."""
    paths = sorted(live_file.folder().glob(live_file.PATTERN))
    states = await asyncio.gather(*map(_look, paths))
    return sorted(filter(None, states), key=lambda each: each.started_at)


async def _look(path: Path) -> LiveEmulator | None:
    found = live_file.read(path)
    # Of another machine with the same home directory nothing can be said.
    if found is None or found.hostname != socket.gethostname():
        return None
    if await _is_there(found):
        return found
    live_file.remove(path, found.id)
    return None


async def _is_there(found: LiveEmulator) -> bool:
    try:
        return await identity(_checked(found.url)) == found.id
    except TimeoutError:
        return True  # one that hangs has not ended
    except (InvalidRequest, Unreachable):
        return False
