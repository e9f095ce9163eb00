"""Authorization: which token each route requires, and whether a request carries it."""

from __future__ import annotations

import hmac
from enum import Enum
from typing import TYPE_CHECKING

from cmemu_nb.errors import InvalidBearerToken, InvalidModuleAuthToken, NotebookProtected, NotFound
from cmemu_nb.foundry.users import Users
from cmemu_nb.lifecycle.records import NOTEBOOK
from cmemu_nb.tokens import ACCESS_TOKEN_START
from cmemu_nb.wire.paths import MODULE_HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmemu_nb.foundry.oauth import OAuthClient
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.server.request import Request
    from cmemu_nb.tokens import Token

_ACCESS_TOKEN = ACCESS_TOKEN_START.encode()


class Auth(Enum):
    """The kind of token that a route requires."""

    NONE = "none"
    MODULE = "module"
    BEARER = "bearer"
    EITHER = "either"
    REPLICA = "replica"
    CLIENT = "client"
    SCRATCH = "scratch"


class TokenChecks:
    """Checks the token of a request: the emulator's bearer tokens, access tokens of `oauth`, and sessions' tokens.

    `logins` are the user names that belong to some of the bearer tokens, and `users` are their users;
    `protect_notebook` and `sign_in_as` are the settings.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        oauth: OAuthClient,
        tokens: tuple[str, ...],
        logins: Mapping[Token, str],
        *,
        protect_notebook: bool,
        sign_in_as: str | None = None,
    ) -> None:
        self._lifecycle = lifecycle
        self._oauth = oauth
        self._tokens = tuple(token.encode() for token in tokens)
        self._logins = {token.encode(): login for token, login in logins.items()}
        self._protect_notebook = protect_notebook
        self.users = Users(filter(None, (sign_in_as, *logins.values())))

    def authorize(self, auth: Auth, request: Request) -> None:
        """Refuse a request without the token that a route requires; set the replica to which a module token belongs."""
        bearer = request.headers.get("Authorization")
        if auth is Auth.MODULE:
            self.authorize_runtime(request)
        elif auth is Auth.REPLICA:
            # A forwarder knows the replica by other means, but its session may have ended since.
            token = _only_token(request) if request.replica is None else request.replica.token
            request.replica = self._lifecycle.authenticate_replica(token)
            request.params["runtimeId"] = request.replica.runtime_id
        elif auth is Auth.SCRATCH:
            request.replica = self._lifecycle.authenticate_scratch(bearer)
            request.params["runtimeId"] = request.replica.runtime_id
        elif auth is Auth.BEARER and not self._bearer_valid(bearer):
            raise InvalidBearerToken
        elif auth is Auth.EITHER:
            self._lifecycle.runtime(request.params["runtimeId"])
            if bearer is None:
                self.authorize_runtime(request)
            elif not self._bearer_valid(bearer):
                raise InvalidBearerToken

    def authorize_runtime(self, request: Request) -> None:
        """Refuse an unknown runtime (404), and then a token that is not the token of its session (401)."""
        self._lifecycle.authenticate(request.params["runtimeId"], _only_token(request))

    def has_token(self, request: Request) -> bool:
        """Return whether a request carries any valid token, even if it is not the kind that its route requires."""
        if self._bearer_valid(request.headers.get("Authorization")):
            return True
        try:
            self._lifecycle.authenticate_replica(_only_token(request))
        except InvalidModuleAuthToken:
            return False
        return True

    def check_may_open(self, runtime_id: str, request: Request) -> None:
        """Refuse to reset a protected notebook's session without its module token or a bearer token."""
        if not self._protect_notebook or runtime_id != NOTEBOOK:
            return
        if self._bearer_valid(request.headers.get("Authorization")):
            return
        try:
            self._lifecycle.authenticate(NOTEBOOK, _only_token(request))
        except NotFound:  # the session is not open, so nothing is reset
            return
        except InvalidModuleAuthToken:
            raise NotebookProtected(
                "The session of the runtime 'notebook' is open, and the setting protect_notebook protects it from "
                "resets. Send its Module-Auth-Token or a bearer token, or choose another runtime id."
            ) from None

    def user(self, request: Request) -> str | None:
        """Return the login of the user who signed in for a bearer token, or who has it by the seed file, if any."""
        value = _scheme_and_value(request.headers.get("Authorization"))[1]
        return self._oauth.user(value) if value.startswith(_ACCESS_TOKEN) else self._logins.get(value)

    def bearer(self, request: Request) -> str | None:
        """Return the bearer token of an authorized request; None if it was authorized by a module token."""
        header = request.headers.get("Authorization")
        return None if header is None else _scheme_and_value(header)[1].decode("latin-1")

    def _bearer_valid(self, header: str | None) -> bool:
        scheme, value = _scheme_and_value(header)
        matches = [hmac.compare_digest(value, token) for token in self._tokens]
        return scheme.lower() == "bearer" and (any(matches) or self._oauth.accepts(value))


def _scheme_and_value(header: str | None) -> tuple[str, bytes]:
    scheme, _, given = (header or "").partition(" ")
    return scheme, given.strip().encode("latin-1", "replace")


def _only_token(request: Request) -> str | None:
    tokens = request.headers.get_list(MODULE_HEADER)
    return tokens[0] if len(tokens) == 1 else None
