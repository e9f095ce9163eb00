"""Pages of lists in Foundry's public API: how long one is, and where the next one begins [foundry]."""

from __future__ import annotations

import base64
import itertools
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cmemu_nb.errors import ApiError
from cmemu_nb.phrases import quoted
from cmemu_nb.server.listing import listing
from cmemu_nb.server.openapi.schemas import TEXT, described

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from cmemu_nb.server.response import Response

T = TypeVar("T")
DEFAULT_PAGE = 100
MAX_PAGE = 1000


def page_size(given: str | None) -> int:
    """Return how many records a page has, at most. Raises the platform's error for what is no positive number."""
    if given is None:
        return DEFAULT_PAGE
    try:
        size = int(given[:20])
    except ValueError:
        size = 0
    if size < 1:
        message = f"pageSize is {quoted(given)}. It must be a positive number; a page has at most {MAX_PAGE} records."
        raise ApiError(400, "InvalidPageSize", message, pageSize=given[:20])
    return min(size, MAX_PAGE)


def token_after(key: Any) -> str:
    """Return the token of the page that begins after the record with this key."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode()


def key_of(token: str, kind: type[T]) -> T:
    """Return the key that `token_after` got. Raises the platform's error for any other text."""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token), type=kind)
    except ValueError:
        message = f"pageToken is {quoted(token)}. It must be the nextPageToken of an answer."
        raise ApiError(400, "InvalidPageToken", message, pageToken=token[:100]) from None


def page(
    options: dict[str, str], records: Iterable[T], key: Callable[[T], str], make: Callable[[T], dict[str, Any]]
) -> Response | Awaitable[Response]:
    """Answer with a page of records, each as `make` describes it. A record that was deleted ends the paging."""
    size, token = page_size(options.get("pageSize")), options.get("pageToken")
    rest = iter(records)
    if token is not None:
        last = key_of(token, str)
        for _ in itertools.takewhile(lambda record: key(record) != last, rest):
            pass
    found = list(itertools.islice(rest, size + 1))
    fields = {"nextPageToken": token_after(key(found[size - 1]))} if len(found) > size else {}
    return listing(fields, "data", found[:size], make)


PAGE_OPTIONS: dict[str, dict[str, Any]] = {
    "pageSize": {
        "type": "integer",
        "minimum": 1,
        "default": DEFAULT_PAGE,
        "description": f"The most records of a page, at most {MAX_PAGE}",
    },
    "pageToken": described(TEXT, "`nextPageToken` of the page before"),
}
