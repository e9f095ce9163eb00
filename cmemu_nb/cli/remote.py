"""A running emulator as the commands use it: its routes, called with the bearer token."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode

import msgspec

from cmemu_nb.clients.contour import ContourClient
from cmemu_nb.clients.http import HttpClient, Reply, wire_error
from cmemu_nb.errors import InvalidBearerToken, InvalidRequest, NotRunning
from cmemu_nb.server.routes.tools import MAX_PAGE
from cmemu_nb.tokens import Token, can_be_sent
from cmemu_nb.wire.json_values import read_exactly
from cmemu_nb.wire.paths import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ANSWER_SECONDS = 30.0
OK, NOTHING = 200, 204


class Remote:
    """An emulator that may be in another process; `async with` closes its connections."""

    def __init__(self, url: str, token: str) -> None:
        if not can_be_sent(token):
            raise InvalidRequest("The token can't be sent in a header: it must be printable ASCII without blanks.")
        self.url = url
        self.token = Token(token)
        self.contour = ContourClient(url, token)
        self._http = HttpClient(url)
        self._headers = {"Authorization": Token(f"Bearer {token}"), "Content-Type": "application/json"}

    async def get(self, path: str, **options: Any) -> Any:
        """Return the answer of a route as Python values. An error on the wire is raised."""
        given = {name: value for name, value in options.items() if value is not None}
        return read_exactly(await self._send("GET", f"{path}?{urlencode(given)}" if given else path))

    async def runtimes(self) -> list[dict[str, Any]]:
        """Return all runtimes, in the form that the tool routes list them in."""
        found: list[dict[str, Any]] = []
        more = True
        while more:
            after = found[-1]["runtime_id"] if found else None
            answer = await self.get(RUNTIMES, limit=MAX_PAGE, after=after)
            found += answer["runtimes"]
            more = answer["more"]
        return found

    async def post(self, path: str, fields: dict[str, Any]) -> Any:
        """Post JSON and return the answer as Python values. An error on the wire is raised."""
        return read_exactly(await self._send("POST", path, msgspec.json.encode(fields)))

    async def change(self, path: str, fields: dict[str, Any]) -> None:
        """Post JSON to a route that answers nothing. An error on the wire is raised."""
        await self._send("POST", path, msgspec.json.encode(fields))

    async def download(self, path: str, receive: Callable[[bytes], object]) -> None:
        """Call `receive` with each piece of a route's answer, without a time limit."""
        exchange = await self._http.begin("GET", path, {"Content-Length": "0", **self._headers})
        with receiving(receive) as take:
            self._check(await exchange.end(receive=take))

    async def _send(self, method: str, path: str, body: bytes = b"") -> bytes:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return self._check(await self._http.request(method, path, self._headers, body)).body
        except TimeoutError:
            raise NotRunning(f"The emulator at {self.url} does not answer. Is its process stopped or busy?") from None

    def _check(self, reply: Reply) -> Reply:
        if reply.status in (OK, NOTHING):
            return reply
        error = wire_error(reply)
        if isinstance(error, InvalidBearerToken):
            raise InvalidBearerToken(
                f"The emulator at {self.url} rejected the token. If it is your own emulator, omit --token and "
                "CMEMU_TOKEN; otherwise use the token that 'cmemu serve --print-token' shows, or print() of "
                "the emulator's .token in a notebook."
            )
        raise error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.contour.close()
        self._http.close()


@contextlib.contextmanager
def receiving(receive: Callable[[bytes], object]) -> Iterator[Callable[[bytes], None]]:
    """Raise the exceptions of `receive`; Tornado would log them and close the connection instead."""
    failures: list[Exception] = []

    def take(piece: bytes) -> None:
        try:
            receive(piece)
        except Exception as error:
            failures.append(error)
            raise

    logging.getLogger("tornado").addHandler(logging.NullHandler())
    try:
        yield take
    except NotRunning:
        if failures:
            raise failures[0] from None
        raise


def runtime_path(runtime_id: str) -> str:
    """Return the path of a runtime's routes."""
    return f"{RUNTIMES}/{quote(runtime_id, safe='', errors='replace')}"
