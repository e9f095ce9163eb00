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
# The prefix, and in base64 the 22 bytes with their signature of 32 bytes.
LENGTH = len(ACCESS_TOKEN_START) + 72


class OAuthClient:
    """One confidential client. Applications get access tokens for its id and secret.

    Modules whose configuration has a client of their own get them, too: `modules` are the secrets of those clients by
    their ids, and may change.
    A token is valid for the given number of `seconds`. It is signed with the secret, so an emulator that continues
    with the same secret accepts it. `revoked` are the revoked tokens with the Unix milliseconds at which they would
    have expired; `keep` is called with them whenever they change.
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

    def issue(self) -> Token:
        """Issue a new access token."""
        expires = _now() + self.seconds * 1000
        head = expires.to_bytes(EXPIRY_BYTES) + secrets.token_bytes(HEAD_BYTES - EXPIRY_BYTES)
        return Token(ACCESS_TOKEN_START + base64.urlsafe_b64encode(head + self._signature(head)).decode())

    def accepts(self, token: bytes) -> bool:
        """Return whether this is an access token that is still valid."""
        head = self._read(token)
        return head is not None and _expiry(head) > _now() and head.hex() not in self._revoked

    def revoke(self, token: str) -> None:
        """Revoke an access token. It does nothing for any other text."""
        head = self._read(_bytes(token))
        if head is None:
            return
        now = _now()
        self._revoked = {each: expires for each, expires in self._revoked.items() if expires > now}
        self._revoked[head.hex()] = _expiry(head)
        self._keep(self._revoked)

    def _read(self, token: bytes) -> bytes | None:
        """Return the signed part of an access token of this client; None for anything else."""
        start = ACCESS_TOKEN_START.encode()
        try:
            whole = base64.b64decode(token.removeprefix(start), b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        head, signature = whole[:HEAD_BYTES], whole[HEAD_BYTES:]
        sound = token.startswith(start) and len(token) == LENGTH
        return head if sound and hmac.compare_digest(signature, self._signature(head)) else None

    def _signature(self, head: bytes) -> bytes:
        return hmac.digest(_bytes(self.secret), head, hashlib.sha256)


def _same(given: str | None, known: str) -> bool:
    return hmac.compare_digest(_bytes(given), _bytes(known))


def _bytes(text: str | None) -> bytes:
    return (text or "").encode(errors="surrogatepass")


def _expiry(head: bytes) -> int:
    return int.from_bytes(head[:EXPIRY_BYTES])


def _now() -> int:
    return time.time_ns() // NS_PER_MS
