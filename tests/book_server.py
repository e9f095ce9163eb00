"""The server module among the tests' programs, for the tests that launch it."""

from __future__ import annotations

import random
import socket
from pathlib import Path

BOOKS = Path(__file__).parent / "programs" / "book_server"


def free_port() -> int:
    """Find a port below those that the system gives to connections, so that no connection takes it meanwhile."""
    while True:
        port = random.SystemRandom().randrange(10_000, 30_000)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
