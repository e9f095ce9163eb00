"""The updates of a dashboard's page, read without a browser."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import requests
from client import DEADLINE, Api

from cmemu_nb.wire.paths import UI

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def updates(api: Api) -> Iterator[Iterator[dict[str, Any]]]:
    """Open a page, and give its updates as they arrive."""
    with requests.Session() as session:
        answer = session.get(f"{api.url}{UI}/updates", headers=api.bearer, stream=True, timeout=DEADLINE)
        with answer:
            lines = answer.iter_lines(chunk_size=1)
            yield (json.loads(line.removeprefix(b"data: ")) for line in lines if line)


@contextlib.contextmanager
def open_updates(api: Api) -> Iterator[str]:
    """Open a page, and give its id."""
    with updates(api) as following:
        yield next(following)["page"]
