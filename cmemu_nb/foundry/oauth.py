"""The OAuth client of an emulator, and the access tokens that are issued for its id and secret [foundry]."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from typing import TYPE_CHECKING

from cmemu_nb.errors import InvalidClient
from cmemu_nb.lifecycle.records import NS_PER_MS
from cmemu_nb.tokens import ACCESS_TOKEN_START, Token

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_CLIENT_ID = "cmemu-client"
EXPIRY_BYTES = 8
HEAD_BYTES = 22
SIGNATURE_BYTES = 32
# Before the id of a module's client, where the login of a user is in other tokens; no login begins with it.
OF_CLIENT = b"\1"


class OAuthClient:
    """One client. Applications get access tokens for its id and secret.

    Modules whose configuration has a client of their own get them, too: `modules` are the secrets of those clients by
    their ids, and may change.
    A token is valid for the given number of `seconds`. It is signed with the secret, so an emulator that continues
    with the same secret accepts it. `revoked` are the ids of the revoked grants with the Unix milliseconds at which
    their last token would have expired; `keep` is called with them whenever they change.
    """

    def __init__(
        self,
        client_id: str,
        secret: str,
        seconds: int,
        revoked: Mapping[str, int],
        keep: Callable[[Mapping[str, int]], object],
        modules: Mapping[str, Token],
    ) -> None:
        self.client_id = client_id
        self.secret = Token(secret)
        self.seconds = seconds
        self._revoked = dict(revoked)
        self._keep = keep
        self._modules = modules

    def check(self, client_id: str | None, secret: str | None) -> None:
        """Raise `InvalidClient`, which does not say what is wrong, unless id and secret are a known client's."""
        clients = [(self.client_id, self.secret), *list(self._modules.items())]
        known = [_same(client_id, each) & _same(secret, its_secret) for each, its_secret in clients]
        if not any(known):
            raise InvalidClient

    def issue(self, login: str = "", grant_id: bytes | None = None) -> Token:
        """Issue a new access token, for a user who has signed in with the login and the id of the grant."""
        return self._issued(login.encode(), grant_id)

    def issue_to(self, client_id: str | None) -> Token:
        """Issue a new access token to a client: this one, or that of a module."""
        known = client_id is not None and client_id in self._modules and client_id != self.client_id
        return self._issued(OF_CLIENT + client_id.encode() if known and client_id else b"")

    def _issued(self, user: bytes, grant_id: bytes | None = None) -> Token:
        grant_id = secrets.token_bytes(HEAD_BYTES - EXPIRY_BYTES) if grant_id is None else grant_id
        # In groups of three bytes base64 needs no padding.
        return self._signed(self._latest_expiry().to_bytes(EXPIRY_BYTES) + grant_id + user + bytes(-len(user) % 3))

    def _signed(self, content: bytes) -> Token:
        return Token(ACCESS_TOKEN_START + base64.urlsafe_b64encode(content + self._signature(content)).decode())

    def _latest_expiry(self) -> int:
        return _now() + self.seconds * 1000

    def accepts(self, token: bytes) -> bool:
        """Return whether this is an access token that is still valid."""
        content = self._read(token)
        return content is not None and _expiry(content) > _now() and _grant_id(content).hex() not in self._revoked

    def user(self, token: bytes) -> str | None:
        """Return the login of the user who has signed in for an access token; None for any other token."""
        user = self._user(token)
        return None if user.startswith(OF_CLIENT) else user.decode() or None

    def module_client(self, token: bytes) -> str | None:
        """Return the id of the module's client to which an access token was issued; None for any other token."""
        user = self._user(token)
        return user.removeprefix(OF_CLIENT).decode() if user.startswith(OF_CLIENT) else None

    def _user(self, token: bytes) -> bytes:
        return (self._read(token) or b"")[HEAD_BYTES:].rstrip(b"\0")

    def revoke(self, token: str) -> bytes | None:
        """Revoke an access token and return the id of its grant. It does nothing for any other text."""
        content = self._read(_bytes(token))
        if content is None:
            return None
        self.revoke_grant(_grant_id(content))
        return _grant_id(content)

    def revoke_grant(self, grant_id: bytes) -> None:
        """Revoke every access token of a grant."""
        now = _now()
        self._revoked = {each: expires for each, expires in self._revoked.items() if expires > now}
        self._revoked[grant_id.hex()] = self._latest_expiry()
        self._keep(self._revoked)

    def _read(self, token: bytes) -> bytes | None:
        """Return the signed part of an access token of this client; None for anything else."""
        start = ACCESS_TOKEN_START.encode()
        try:
            whole = base64.b64decode(token.removeprefix(start), b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        content = whole[:-SIGNATURE_BYTES]
        # The comparison of the whole token also refuses other ways to write the same bytes in base64.
        sound = len(content) >= HEAD_BYTES and hmac.compare_digest(token, self._signed(content).encode())
        return content if sound else None

    def _signature(self, content: bytes) -> bytes:
        return hmac.digest(_bytes(self.secret), content, hashlib.sha256)


def _same(given: str | None, known: str) -> bool:
    return hmac.compare_digest(_bytes(given), _bytes(known))


def _bytes(text: str | None) -> bytes:
    return (text or "").encode(errors="surrogatepass")


def _expiry(content: bytes) -> int:
    return int.from_bytes(content[:EXPIRY_BYTES])


def _grant_id(content: bytes) -> bytes:
    return content[EXPIRY_BYTES:HEAD_BYTES]


def _now() -> int:
    return time.time_ns() // NS_PER_MS
