"""A client of the standard library, for what is too large or too unusual for the cheap one in wire.py."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable


class KeepAlive:
    """One connection that is kept, and the headers that go with every request."""

    def __init__(self, url: str, **headers: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a request and return the answer's body; anything but 2xx ends the benchmark."""
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        data = answer.read()
        assert answer.status < 300, (answer.status, data)
        return data

    def post_chunks(self, path: str, chunks: Iterable[bytes]) -> None:
        """Post a body in chunks; anything but 2xx ends the benchmark."""
        headers = {**self._headers, "Transfer-Encoding": "chunked"}
        self._connection.request("POST", path, chunks, headers, encode_chunked=True)
        answer = self._connection.getresponse()
        assert answer.status < 300, (answer.status, answer.read())
