"""The server of a launched program: where it listens, and the functions of its OpenAPI document."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cmemu_nb.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmemu_nb.executors.servers.operations import Operation
    from cmemu_nb.lifecycle.configuration import ServerOptions

ADDRESSES = ("127.0.0.1", "::1")
"""What `localhost` may mean; a program may listen on one of them only."""


@dataclass(frozen=True)
class Server:
    """An HTTP server that a launched program runs on `port`; a request may take `timeout` seconds.

    `operations` are the operations of its document by function; `documented_port` is the port in it.
    """

    port: int
    documented_port: int
    timeout: float
    operations: Mapping[str, Operation]

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://localhost:{self.port}"

    def in_use(self) -> bool:
        """Return whether any program listens on the port now."""
        return any(_listens(address, self.port) for address in ADDRESSES)


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True


def read_server(options: ServerOptions, cwd: str | None) -> Server:
    """Read the document of a server; a relative path starts at `cwd`, or at the current directory.

    Raises `InvalidRequest` for a document that can't be read, `FunctionRefused` for one that the platform excludes.
    """
    try:
        from cmemu_nb.executors.servers.document import read_document  # noqa: PLC0415 - an extra of the package
    except ImportError:
        raise InvalidRequest(
            "A server module needs the package openapi-pydantic. Install it: pip install 'cmemu_nb[server]'"
        ) from None
    try:
        path = Path(options.openapi).expanduser()
    except RuntimeError as error:
        raise InvalidRequest(f"The OpenAPI document {options.openapi} can't be read: {error} Check the path.") from None
    document = read_document(Path(cwd or "", path))
    return Server(options.port or document.port, document.port, options.timeout, document.operations)
