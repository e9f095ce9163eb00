"""The emulators that run on this machine: `cmemu list`, and which of them a command uses."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from cmemu_nb.cli.parser import Commands, Parser, add_command, complain, does
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
    """No program listens at the address, or the one that listens does not speak HTTP."""


class Health(msgspec.Struct):
    """The answer of the health route."""

    status: str
    id: str


def add_commands(commands: Commands, parsers: dict[str | None, Parser]) -> None:
    """Add `list`."""
    parser = parsers["list"] = add_command(
        commands,
        "list",
        "List the emulators that run on this machine under your account.",
        "  cmemu list\n  cmemu list --json",
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object for each emulator, without tokens.")
    does(parser, _list)


def _list(_: Parser, options: argparse.Namespace) -> int:
    found = asyncio.run(live_emulators())
    if options.json:
        for each in found:
            fields = msgspec.structs.asdict(each)
            del fields["token"]
            print(msgspec.json.encode(fields).decode())
    elif found:
        print(as_table(found))
    else:
        complain(NONE_RUNS)
    return 0


def add_where(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose an emulator."""
    group = parser.add_argument_group("which emulator")
    group.add_argument(
        "--url",
        metavar="URL",
        help="The emulator's address. Default: CMEMU_URL, or else the only emulator that runs here.",
    )
    group.add_argument(
        "--token",
        metavar="TEXT",
        type=Token,
        help="The emulator's bearer token, which other users can read in the list of processes. Default: CMEMU_TOKEN, "
        "or else the token in the emulator's file; with --url the file comes first.",
    )


async def find(options: argparse.Namespace) -> Remote:
    """Return the emulator that a command uses. The token is sent only after it has identified itself.

    Raises `InvalidRequest` when several emulators could be meant, and `NotRunning` when there is none.
    """
    url = options.url or os.environ.get("CMEMU_URL")
    token = options.token or (None if options.url else Token(os.environ.get("CMEMU_TOKEN", "")) or None)
    if url is None:
        chosen = _only(await live_emulators())
        return Remote(chosen.url, token or chosen.token)
    url = _checked(url)
    await _check_identity(url)
    return Remote(url, token or await _token_of(url))


async def _check_identity(url: str) -> None:
    hint = "'cmemu list' shows the emulators that run here."
    try:
        if await identity(url) is None:
            raise NotRunning(f"The program that answers at {url} is not a cmemu_nb emulator. {hint}")
    except TimeoutError:
        raise NotRunning(f"The program that listens at {url} does not answer. Is it stopped or busy?") from None
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
        raise InvalidRequest(f"{len(found)} emulators run here. Choose one with --url URL.\n{as_table(found)}")
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
            f"{url!r} can't be the URL of an emulator. Use the form http://HOST:PORT, as 'cmemu list' shows it."
        )
    return url.rstrip("/")


def _address(url: str) -> tuple[str | None, int]:
    split = urlsplit(url)
    return "127.0.0.1" if split.hostname in ("localhost", "::1") else split.hostname, split.port or 80


async def identity(url: str) -> str | None:
    """Return the id of the emulator at a URL, or None if another program answers there.

    Raises `Unreachable` when nothing answers over HTTP, and `TimeoutError` when the answer takes too long.
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
    """Return the running emulators of this machine and account, oldest first; files of dead ones are removed."""
    paths = sorted(live_file.folder().glob(live_file.PATTERN))
    found = await asyncio.gather(*map(_read_if_alive, paths))
    return sorted(filter(None, found), key=lambda each: each.started_at)


async def _read_if_alive(path: Path) -> LiveEmulator | None:
    found = live_file.read(path)
    # Machines may share a home directory, and whether an emulator of another machine runs can't be found out here.
    if found is None or found.hostname != socket.gethostname():
        return None
    if await _is_alive(found):
        return found
    live_file.remove(path, found.id)
    return None


async def _is_alive(found: LiveEmulator) -> bool:
    try:
        return await identity(_checked(found.url)) == found.id
    except TimeoutError:
        return True  # a process that hangs has not ended
    except (InvalidRequest, Unreachable):
        return False
