"""Signing in as an application in a browser does: the authorization code flow with PKCE, and refresh tokens [foundry].

RFC 6749 defines the flow, RFC 7636 the proof (PKCE), and RFC 9700 what makes it safe. All of this is kept in memory: a
sign-in ends when the emulator is stopped, except for its access token, which is valid until it expires.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cmemu_nb.errors import InvalidClient, InvalidGrant, InvalidRequest, InvalidScope
from cmemu_nb.tokens import CODE_START, REFRESH_TOKEN_START, Token

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.foundry.oauth import OAuthClient

T = TypeVar("T")
CODE_SECONDS = 60
PAGE_SECONDS = 600
# Of each kind: open sign-in pages, codes and sign-ins; beyond it the oldest ones end.
MAX_SIGN_INS = 1_000
OFFLINE = "offline_access"
GRANT_BYTES = 14
_CHALLENGE = re.compile(r"[\w-]{43}", re.ASCII)


@dataclass(frozen=True)
class Wanted:
    """What an application asks for: the redirect URI, the challenge of its PKCE, its scopes and its state."""

    redirect_uri: str
    challenge: str
    scopes: tuple[str, ...] = ()
    state: str | None = None


@dataclass
class Grant:
    """What a user has granted by signing in. `refresh_secret` changes each time when the refresh token is used."""

    login: str
    scopes: tuple[str, ...]
    grant_id: bytes = field(default_factory=lambda: secrets.token_bytes(GRANT_BYTES))
    refresh_secret: str = ""


@dataclass
class _Code:
    wanted: Wanted
    login: str
    grant: Grant | None = None


class SignIns:
    """The sign-ins for the OAuth client of an emulator, which may use them only if there are `redirect_uris`."""

    def __init__(self, oauth: OAuthClient, redirect_uris: Iterable[str]) -> None:
        self._oauth = oauth
        self._redirect_uris = frozenset(redirect_uris)
        self._pages: _Kept[Wanted] = _Kept(PAGE_SECONDS)
        self._codes: _Kept[_Code] = _Kept(CODE_SECONDS)
        self._grants: _Kept[Grant] = _Kept(None)

    def check_client(self, client_id: str | None) -> None:
        """Raise `InvalidClient` unless this is the id of the emulator's client and users can sign in for it.

        It needs no secret, because it proves in another way that it has started the sign-in (RFC 7636).
        """
        if not (self._redirect_uris and hmac.compare_digest(_bytes(client_id or ""), _bytes(self._oauth.client_id))):
            raise InvalidClient

    def check_redirect(self, client_id: str | None, redirect_uri: str | None) -> str:
        """Return the redirect URI of an application, or raise `InvalidRequest`: nobody may be sent to another one."""
        if client_id != self._oauth.client_id:
            raise InvalidRequest(
                "Signing in: the client_id is unknown. It is the emulator's attribute .client_id; there is a setting "
                "of the same name."
            )
        if redirect_uri is None or redirect_uri not in self._redirect_uris:
            raise InvalidRequest(
                "Signing in: the redirect_uri is not one of the setting redirect_uris, which must have exactly the "
                "same text (cmemu serve --redirect-uris URL). The browser is not sent to it."
            )
        return redirect_uri

    def wanted(self, redirect_uri: str, options: dict[str, str]) -> Wanted:
        """Read what an application asks for. Raises `InvalidRequest`, which the application may be sent."""
        if options.get("response_type") != "code":
            raise InvalidRequest("response_type must be 'code'.")
        challenge = options.get("code_challenge", "")
        if options.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
            raise InvalidRequest("PKCE is missing: send a code_challenge with code_challenge_method=S256.")
        return Wanted(redirect_uri, challenge, tuple(options.get("scope", "").split()), options.get("state"))

    def open_page(self, wanted: Wanted) -> str:
        """Return the ticket of a new sign-in page."""
        ticket = secrets.token_urlsafe(32)
        self._pages.keep(ticket, wanted)
        return ticket

    def close_page(self, ticket: str) -> Wanted:
        """Return what was asked for on the page with that ticket, whose answer counts once, within ten minutes."""
        wanted = self._pages.find(ticket)
        if wanted is None:
            raise InvalidRequest(
                "Signing in: this page was answered already, or is older than ten minutes. Start again from the "
                "application."
            )
        self._pages.drop(ticket)
        return wanted

    def issue_code(self, wanted: Wanted, login: str) -> Token:
        """Return a code for what was asked for, which is valid for a minute and once."""
        code = Token(CODE_START + secrets.token_urlsafe(32))
        self._codes.keep(code, _Code(wanted, login))
        return code

    def redeem(self, code: str, redirect_uri: str | None, verifier: str) -> dict[str, Any]:
        """Return the tokens for a code. A code that is used again ends the sign-in that it was used for.

        Raises `InvalidGrant`, and the code is no longer valid then.
        """
        known = self._codes.find(code)
        if known is None:
            raise _no_grant("the code is unknown or older than a minute, or the emulator was restarted")
        if known.grant is not None:
            self.end(known.grant.grant_id)
            raise _no_grant("the code was used before, so the sign-in has ended")
        if redirect_uri != known.wanted.redirect_uri or not _proves(verifier, known.wanted.challenge):
            self._codes.drop(code)
            raise _no_grant("the redirect_uri or the code_verifier is not the one that the sign-in began with")
        known.grant = Grant(known.login, known.wanted.scopes)
        if OFFLINE in known.wanted.scopes:
            self._grants.keep(known.grant.grant_id.hex(), known.grant)
        return self._tokens(known.grant, known.grant.scopes)

    def refresh(self, token: str, scope: str | None) -> dict[str, Any]:
        """Return new tokens for a refresh token, which is not valid any more; `scope` may ask for less than before.

        Raises `InvalidGrant`. A refresh token that was used before ends its sign-in: somebody else may have it.
        """
        grant = self._grant_of(token)
        if grant is None:
            raise _no_grant("the refresh_token is unknown or revoked, or the emulator was restarted")
        if not _same_refresh(token, grant):
            self.end(grant.grant_id)
            raise _no_grant("the refresh_token was used before, so the sign-in has ended")
        scopes = grant.scopes if scope is None else tuple(scope.split())
        if not set(scopes) <= set(grant.scopes):
            raise InvalidScope("Refreshing an access token: 'scope' asks for more than the sign-in did. Leave it out.")
        return self._tokens(grant, scopes)

    def revoke(self, token: str) -> None:
        """Revoke an access token or a refresh token with its whole sign-in. Any other text has no effect."""
        grant = self._grant_of(token)
        if grant is not None and _same_refresh(token, grant):
            self.end(grant.grant_id)
            return
        grant_id = self._oauth.revoke(token)
        if grant_id is not None:
            self._grants.drop(grant_id.hex())

    def end(self, grant_id: bytes) -> None:
        """End a sign-in with its tokens."""
        self._grants.drop(grant_id.hex())
        self._oauth.revoke_grant(grant_id)

    def _tokens(self, grant: Grant, scopes: tuple[str, ...]) -> dict[str, Any]:
        access_token = self._oauth.issue(grant.login, grant.grant_id)
        answer = {"access_token": str(access_token), "token_type": "bearer", "expires_in": self._oauth.seconds}
        if scopes:
            answer["scope"] = " ".join(scopes)
        if OFFLINE in grant.scopes:
            grant.refresh_secret = secrets.token_urlsafe(32)
            answer["refresh_token"] = f"{REFRESH_TOKEN_START}{grant.grant_id.hex()}{grant.refresh_secret}"
        return answer

    def _grant_of(self, token: str) -> Grant | None:
        if not token.startswith(REFRESH_TOKEN_START):
            return None
        return self._grants.find(token.removeprefix(REFRESH_TOKEN_START)[: 2 * GRANT_BYTES])


class _Kept(Generic[T]):
    """Values by a secret, for a number of seconds or for ever, and never more than `MAX_SIGN_INS` of them."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._values: dict[bytes, tuple[float, T]] = {}

    def keep(self, secret: str, value: T) -> None:
        if len(self._values) >= MAX_SIGN_INS:
            del self._values[next(iter(self._values))]
        self._values[_digest(secret)] = (time.monotonic(), value)

    def find(self, secret: str) -> T | None:
        since, value = self._values.get(_digest(secret), (0.0, None))
        if self._seconds is not None and time.monotonic() - since >= self._seconds:
            self.drop(secret)
            return None
        return value

    def drop(self, secret: str) -> None:
        self._values.pop(_digest(secret), None)


def _proves(verifier: str, challenge: str) -> bool:
    """Return whether a challenge was made from a verifier (RFC 7636, 4.6)."""
    made = base64.urlsafe_b64encode(_digest(verifier)).rstrip(b"=")
    return hmac.compare_digest(made, challenge.encode())


def _same_refresh(token: str, grant: Grant) -> bool:
    secret = token.removeprefix(REFRESH_TOKEN_START)[2 * GRANT_BYTES :]
    return hmac.compare_digest(_bytes(secret), _bytes(grant.refresh_secret))


def _digest(text: str) -> bytes:
    # A lookup by the digest takes a time that says nothing about the secret.
    return hashlib.sha256(_bytes(text)).digest()


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _no_grant(reason: str) -> InvalidGrant:
    return InvalidGrant(f"Getting an access token: {reason}. Sign in again.")
