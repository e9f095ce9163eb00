"""Who may talk to the emulator: requests to this machine's own names, from no other site's pages.

A page in the same browser can reach a server on localhost, under a name that it makes point there (DNS
rebinding) or from its own origin. Both are refused, as Jupyter Server does. Behind a hub the names are the hub's:
there a token takes the place of the two checks, because no page of another site can know one.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cmemu_nb.errors import ForbiddenHost, ForbiddenOrigin, InvalidRequest

if TYPE_CHECKING:
    from cmemu_nb.server.request import Request


# The same few names come with every request.
MAX_CACHED_NAMES = 256
# A name has at most 253 characters in the DNS, and a port 5.
MAX_HOST_LENGTH = 300
CONTEXT_HEADER = "X-Forwarded-Context"
# What stands in a URL's path.
_PATH = re.compile(r"[\w.~!$&'()*+,;=:@%/-]+", re.ASCII)
LOGIN_IS_NOT_ENOUGH = (
    "This request comes through the hub's proxy, where a login alone does not tell people from web pages, so it needs "
    "a token: send 'Authorization: Bearer <token>' with the emulator's token, or a runtime's valid Module-Auth-Token. "
    "Programs beside the notebook use the emulator's own URL, without the proxy."
)


def forwarded_prefix(request: Request, hub_prefix: str) -> str:
    """Return where the hub's proxy has taken a request from, or nothing when it does not say so."""
    told = request.headers.get_list(CONTEXT_HEADER)
    fits = len(told) == 1 and told[0].startswith(hub_prefix) and _PATH.fullmatch(told[0])
    return told[0].rstrip("/") if fits else ""


def check_host(request: Request, local_hostnames: frozenset[str]) -> None:
    """Refuse a request whose `Host` is neither local nor one of the names set."""
    hosts = request.headers.get_list("Host")
    if len(hosts) != 1:
        raise InvalidRequest("A request needs exactly one Host header.")
    name = hostname(hosts[0])
    if name is None or not is_local(name, local_hostnames):
        raise ForbiddenHost(
            f"The Host header '{hosts[0][:200]}' is not of this machine. Use 127.0.0.1 or localhost, or add the "
            "name to local_hostnames (cmemu serve --local-hostname NAME)."
        )


def check_origin(request: Request, local_hostnames: frozenset[str]) -> None:
    """Refuse a request that a web page of another site sent."""
    origin = request.headers.get("Origin")
    if origin is None:
        return
    name = _origin_hostname(origin)
    if name is None or not is_local(name, local_hostnames):
        raise ForbiddenOrigin(
            f"Web pages of '{origin[:200]}' may not use this emulator. Add the page's host name to local_hostnames "
            "if it is yours."
        )


def hostname(host: str) -> str | None:
    """Return the name of a `host:port` in lower case, without brackets; None when it is malformed or too long."""
    return _hostname(host) if len(host) <= MAX_HOST_LENGTH else None


@functools.lru_cache(MAX_CACHED_NAMES)
def _hostname(host: str) -> str | None:
    try:
        split = urlsplit(f"//{host}")
        _ = split.port
    except ValueError:
        return None
    return split.hostname if split.netloc == host and "@" not in host else None


@functools.lru_cache(MAX_CACHED_NAMES)
def is_local(name: str, local_hostnames: frozenset[str]) -> bool:
    """Tell whether a host name is this machine's: loopback, `localhost`, or one of the names set."""
    if name == "localhost" or name in local_hostnames:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _origin_hostname(origin: str) -> str | None:
    scheme, separator, host = origin.partition("://")
    return hostname(host) if separator and scheme in ("http", "https") else None
