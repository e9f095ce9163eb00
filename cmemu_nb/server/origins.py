"""The checks of the Host and Origin headers: requests must name this machine, and not come from other sites' pages.

A web page in the same browser can reach a server on localhost, either under a host name that it makes resolve to
127.0.0.1 (DNS rebinding) or from its own origin. Both are refused, as in Jupyter Server. Behind a hub the host names
are the hub's: there a token replaces the two checks, because no page of another site can know one.
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


# Requests use the same few names, so the results are cached.
MAX_CACHED_NAMES = 256
# A DNS name has at most 253 characters, and a port number 5.
MAX_HOST_LENGTH = 300
CONTEXT_HEADER = "X-Forwarded-Context"
# The characters that the path of a URL may contain.
_PATH = re.compile(r"[\w.~!$&'()*+,;=:@%/-]+", re.ASCII)
LOGIN_IS_NOT_ENOUGH = (
    "This request comes through the hub's proxy, where a login alone does not distinguish people from web pages, so it "
    "needs a token: send 'Authorization: Bearer <token>' with the emulator's token, or a runtime's valid "
    "Module-Auth-Token. Programs on the notebook's machine can use the emulator's own URL, without the proxy."
)


def forwarded_prefix(request: Request, hub_prefix: str) -> str:
    """Return the path prefix that the hub's proxy removed from a request; "" when the proxy does not name one."""
    prefixes = request.headers.get_list(CONTEXT_HEADER)
    valid = len(prefixes) == 1 and prefixes[0].startswith(hub_prefix) and _PATH.fullmatch(prefixes[0])
    return prefixes[0].rstrip("/") if valid else ""


def check_host(request: Request, local_hostnames: frozenset[str]) -> None:
    """Refuse a request whose `Host` is neither local nor one of `local_hostnames`."""
    hosts = request.headers.get_list("Host")
    if len(hosts) != 1:
        raise InvalidRequest("A request needs exactly one Host header.")
    name = hostname(hosts[0])
    if name is None or not is_local(name, local_hostnames):
        raise ForbiddenHost(
            f"The Host header '{hosts[0][:200]}' does not name this machine. Use 127.0.0.1 or localhost, or add the "
            "name to local_hostnames (cmemu serve --local-hostname NAME)."
        )


def check_origin(request: Request, local_hostnames: frozenset[str]) -> None:
    """Refuse a request from a web page of another site."""
    origin = request.headers.get("Origin")
    if origin is None:
        return
    name = _origin_hostname(origin)
    if name is None or not is_local(name, local_hostnames):
        raise ForbiddenOrigin(
            f"Web pages of '{origin[:200]}' may not use this route. If the page is yours, add its host name to "
            "local_hostnames; to have it call functions, add its origin to allowed_origins."
        )


def hostname(host: str) -> str | None:
    """Return the host name of `host:port` in lower case, without brackets; None if it is malformed or too long."""
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
    """Return whether a host name is this machine's: loopback, `localhost`, or one of `local_hostnames`."""
    if name == "localhost" or name in local_hostnames:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _origin_hostname(origin: str) -> str | None:
    scheme, separator, host = origin.partition("://")
    return hostname(host) if separator and scheme in ("http", "https") else None
