"""Web applications for the tests: folders of files that are served as origins of their own, and their users."""

from __future__ import annotations

import contextlib
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import requests
from client import closed

from cmemu_nb.server.openapi import examples
from cmemu_nb.wire.paths import AUTHORIZE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cmemu_nb import Emulator


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


def open_sign_in_page(emu: Emulator, **options: str | None) -> requests.Response:
    """Open the address to which an application sends its user; an option that is None is left out."""
    given = {**examples.SIGN_IN, "client_id": emu.client_id, **options}
    parameters = {name: value for name, value in given.items() if value is not None}
    return closed(requests.get(emu.url + AUTHORIZE, parameters, allow_redirects=False, timeout=10))


def answer_sign_in_page(
    emu: Emulator, login: str | None, origin: str | None = None, **options: str
) -> requests.Response:
    """Open the sign-in page and choose a user, or press Cancel if the login is None."""
    ticket = re.findall(r'name="ticket" value="([\w-]+)"', open_sign_in_page(emu, **options).text)[0]
    form = {"ticket": ticket, **({} if login is None else {"login": login})}
    headers = {"Origin": origin or emu.url}
    return closed(requests.post(emu.url + AUTHORIZE, form, headers=headers, allow_redirects=False, timeout=10))


def sent_back(answer: requests.Response) -> dict[str, str]:
    """Return what an application gets in the address to which its user is sent back."""
    assert answer.status_code == 303
    return dict(parse_qsl(urlsplit(answer.headers["Location"]).query))
