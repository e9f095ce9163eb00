"""Authorization: which token each route requires, and whether a request carries it."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING

from cmemu_nb.errors import ApiError, InvalidBearerToken, InvalidModuleAuthToken, NotebookProtected, NotFound
from cmemu_nb.foundry.users import DEFAULT_LOGIN, Users
from cmemu_nb.lifecycle.records import NOTEBOOK
from cmemu_nb.phrases import quoted
from cmemu_nb.tokens import ACCESS_TOKEN_START
from cmemu_nb.wire.paths import MODULE_HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmemu_nb.foundry.oauth import OAuthClient
    from cmemu_nb.foundry.reach import Reach
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.server.request import Request
    from cmemu_nb.tokens import Token

_ACCESS_TOKEN = ACCESS_TOKEN_START.encode()


class Auth(Enum):
    """The kind of token that a route requires."""

    NONE = "none"
    MODULE = "module"
    BEARER = "bearer"
    DATA = "data"
    EITHER = "either"
    REPLICA = "replica"
    CLIENT = "client"
    SCRATCH = "scratch"


@dataclass(frozen=True)
class Caller:
    """Whose requests the limits of Foundry's API count together: a user, or the `service` user of an OAuth client."""

    name: str
    service: bool = False

    def __str__(self) -> str:
        return f"{'the service user' if self.service else 'user'} {quoted(self.name)}"


class TokenChecks:
    """Checks the token of a request: the emulator's bearer tokens, access tokens of `oauth`, and sessions' tokens.

    `logins` are the user names that belong to some of the bearer tokens, and `users` are their users; `reach` knows the
    tokens of modules;
    `protect_notebook` and `sign_in_as` are the settings.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        oauth: OAuthClient,
        tokens: tuple[str, ...],
        logins: Mapping[Token, str],
        reach: Reach,
        *,
        protect_notebook: bool,
        sign_in_as: str | None = None,
    ) -> None:
        self._lifecycle = lifecycle
        self._oauth = oauth
        self._reach = reach
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
        elif auth in (Auth.BEARER, Auth.DATA) and not self._bearer_valid(bearer):
            if auth is Auth.BEARER or self._build_token(bearer) is None:
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

    def check_reach(self, request: Request, denied: str, **parameters: str) -> None:
        """Refuse a module's token for a dataset or stream that its aliases do not name.

        `denied` is the name of the platform's error, which has the parameters of the path and perhaps others.
        """
        rid = request.params.get("datasetRid", "")
        if self.reaches(request, rid):
            return
        names = ", ".join(sorted(map(self._named, self._reached(request) or ()))) or "none"
        message = (
            f"This token does not reach {f'the resource {quoted(rid)}' if rid else 'new resources'}: it belongs to a "
            f"module, whose aliases name {names}. Bind the resource to an alias of the module's runtime: "
            "configure(runtime, aliases={alias: name})."
        )
        status = HTTPStatus.NOT_FOUND if denied.endswith("NotFound") else HTTPStatus.FORBIDDEN
        raise ApiError(status, denied, message, **request.params, **parameters)

    def _named(self, rid: str) -> str:
        """Return the name of a dataset or stream, or the RID if the emulator has none with this RID."""
        history, log = self._lifecycle.find_dataset(rid), self._lifecycle.find_data_stream(rid, None)
        found = history.dataset if history is not None else log.stream if log is not None else None
        return rid if found is None else quoted(found.name)

    def reaches(self, request: Request, rid: str) -> bool:
        """Return whether the token of a request reaches a dataset or stream."""
        rids = self._reached(request)
        return rids is None or rid in rids

    def _reached(self, request: Request) -> frozenset[str] | None:
        """Return the RIDs that the token of a request reaches, None for all."""
        header = request.headers.get("Authorization")
        build, value = self._build_token(header), _scheme_and_value(header)[1]
        if build is not None and value not in self._tokens:
            return self._reach.of_build(build)
        client = self._oauth.module_client(value) if value.startswith(_ACCESS_TOKEN) else None
        return None if client is None else self._reach.of_client(client)

    def user(self, request: Request) -> str | None:
        """Return the login of the user who signed in for a bearer token, or who has it by the seed file, if any."""
        value = _scheme_and_value(request.headers.get("Authorization"))[1]
        return self._oauth.user(value) if value.startswith(_ACCESS_TOKEN) else self._logins.get(value)

    def caller(self, request: Request) -> Caller | None:
        """Return who sent an authorized request; None for a module that has sent its build token."""
        header = request.headers.get("Authorization")
        value = _scheme_and_value(header)[1]
        if value in self._tokens:
            return Caller(self._logins.get(value, DEFAULT_LOGIN))
        if not self._oauth.accepts(value):
            return None
        login = self._oauth.user(value)
        client_id = self._oauth.module_client(value) or self._oauth.client_id
        return Caller(client_id, service=True) if login is None else Caller(login)

    def bearer(self, request: Request) -> str | None:
        """Return the bearer token of an authorized request; None if it was authorized by a module token."""
        header = request.headers.get("Authorization")
        return None if header is None else _scheme_and_value(header)[1].decode("latin-1")

    def _build_token(self, header: str | None) -> str | None:
        """Return the build token of an `Authorization` header; None if it has none."""
        scheme, value = _scheme_and_value(header)
        found = [each for each in self._reach.build_tokens() if hmac.compare_digest(value, each.encode())]
        return found[0] if found and scheme.lower() == "bearer" else None

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
