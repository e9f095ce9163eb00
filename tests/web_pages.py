"""Web applications for the tests: folders of files, each served as an origin of its own."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Write nothing to stderr."""


@contextlib.contextmanager
def web_site(folder: Path) -> Iterator[str]:
    """Serve the files of a folder, and give the origin of its pages."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(folder))) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        try:
            yield f"http://localhost:{server.server_address[1]}"
        finally:
            server.shutdown()
            serving.join()
