"""The sockets that an emulator listens on."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING

from cmemu_nb.errors import ExposedWarning, PortTakenWarning, SettingError
from cmemu_nb.eventloop.forks import close, close_in_children, closed_in_children
from cmemu_nb.settings import is_loopback
from cmemu_nb.tracebacks import warn_user

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


IPV4, IPV6 = "127.0.0.1", "::1"
# The address of this machine's own name in /etc/hosts of Debian and Ubuntu, which gethostbyname(gethostname()) returns.
OWN_NAME = "127.0.1.1"
TRIES = 20
BACKLOG = 1024


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on a port of a host; if it is taken, on a free one with a `PortTakenWarning`.

    For 127.0.0.1 and localhost it also listens on ::1 and on 127.0.1.1, if the machine has them: some clients resolve
    localhost to the one, and the client in Palantir's documentation resolves the machine's name to the other.
    """
    hosts = [IPV4, *filter(_exists, (IPV6, OWN_NAME))] if host in (IPV4, "localhost") else [host]
    try:
        sockets = bind(hosts, port)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES) or port == 0:
            known = error.errno is not None and error.errno > 0
            why = os.strerror(error.errno or 0) if known else "the name is unknown"
            raise SettingError(f"Listening on {host} port {port} failed: {why}. Set another host.") from None
        sockets = bind(hosts, 0)
        taken = sockets[0].getsockname()[1]
        in_use = "in use by another emulator of this process" if _is_ours(port) else "in use"
        why = in_use if error.errno == errno.EADDRINUSE else "not permitted"
        try:
            warn_user(PortTakenWarning(f"Port {port} is {why}; the emulator listens on port {taken}."))
        except PortTakenWarning:  # where warnings are errors
            close(sockets)
            raise
    close_in_children(sockets)
    return sockets


def _is_ours(port: int) -> bool:
    """Return whether an emulator of this process listens on a port."""
    sockets = [each for each in list(closed_in_children()) if isinstance(each, socket.socket) and each.fileno() >= 0]
    return port in [each.getsockname()[1] for each in sockets]


def warn_if_exposed(host: str, sockets: Sequence[socket.socket], *, can_sign_in: bool) -> None:
    """Emit an `ExposedWarning` for a host that other machines can reach: it says what they can do.

    `can_sign_in` says whether users can sign in, which needs no password.
    """
    if is_loopback(host):
        return
    port = sockets[0].getsockname()[1]
    sign_in = "They can also sign in as any user, because redirect_uris is set. " if can_sign_in else ""
    message = (
        f"The emulator listens on {host} port {port}, which other machines can reach. They can, "
        "without any token, open and reset sessions, take over deployed apps and receive the queries for them, and so "
        f"run the functions of your cells. {sign_in}It is plain HTTP: tokens, queries and results can be "
        "read on the way."
    )
    warn_user(ExposedWarning(message))


def bind(hosts: list[str], port: int) -> list[socket.socket]:
    """Listen on one port of each host, a free one if it is 0; `OSError` if the port is taken."""
    for attempt in range(TRIES):
        sockets: list[socket.socket] = []
        try:
            for host in hosts:
                number = sockets[0].getsockname()[1] if sockets else port
                sockets.append(socket.create_server((host, number), family=_family(host), backlog=BACKLOG))
                sockets[-1].settimeout(0)
        except OSError:
            close(sockets)
            # A port that is free on one address may be taken on another: try another one.
            if port != 0 or not sockets or attempt == TRIES - 1:
                raise
        else:
            return sockets
    raise AssertionError


def _exists(address: str) -> bool:
    """Return whether an address is one of this machine's."""
    try:
        with socket.socket(_family(address)) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def stop_listening(sockets: Iterable[socket.socket]) -> None:
    """Free the ports of sockets at once, even if another process, such as a forked one, has copies of them."""
    for each in sockets:
        with contextlib.suppress(OSError):  # macOS has it closed only
            each.shutdown(socket.SHUT_RDWR)
