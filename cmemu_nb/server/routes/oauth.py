"""The OAuth routes: an application gets access tokens for its client id and secret, as on the platform [foundry].

Requests are forms. Errors have the format of RFC 6749, which is also the format of the emulator's other routes.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote_plus

from cmemu_nb.errors import InvalidRequest, UnsupportedGrant
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import examples
from cmemu_nb.server.openapi.schemas import ACCESS_TOKEN, TEXT, described, with_examples
from cmemu_nb.server.response import Response, json_response
from cmemu_nb.server.routing import Route
from cmemu_nb.tokens import Token
from cmemu_nb.wire.paths import OAUTH

if TYPE_CHECKING:
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request

FORM = "application/x-www-form-urlencoded"
NOTHING = "text/plain"


def _read_form(context: Context, request: Request) -> dict[str, str]:
    """Return the fields of a form after checking its client; the first value counts if a field is repeated.

    The client's id and secret may also come as HTTP Basic authentication (RFC 6749, 2.3.1).
    """
    text = Token(request.body.decode("latin-1"))
    try:
        form = {name: values[0] for name, values in parse_qs(text, max_num_fields=100).items()}
    except ValueError:
        form = {}
    form |= _basic(request.headers.get("Authorization", ""))
    context.oauth.check(form.get("client_id"), form.get("client_secret"))
    return form


def _basic(header: str) -> dict[str, str]:
    """Return the client of an `Authorization: Basic` header as fields of a form; none for any other header."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return {}
    try:
        client_id, _, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:
        return dict.fromkeys(("client_id", "client_secret"), "")
    return {"client_id": unquote_plus(client_id), "client_secret": Token(unquote_plus(secret))}


def issue(context: Context, request: Request) -> Response:
    """Answer with a new access token for `grant_type=client_credentials`."""
    form = _read_form(context, request)
    grant = form.get("grant_type")
    if grant != "client_credentials":
        raise UnsupportedGrant(
            f"Getting an access token: grant_type is {_shown(grant)}. Send grant_type=client_credentials, which needs "
            "no browser. Other grants are not supported, because the emulator has no users."
        )
    answer = {"access_token": str(context.oauth.issue()), "token_type": "bearer", "expires_in": context.oauth.seconds}
    return json_response(200, answer, headers={"Pragma": "no-cache"})


def revoke(context: Context, request: Request) -> Response:
    """Revoke an access token. A token that is not valid is not an error (RFC 7009)."""
    token = _read_form(context, request).get("token")
    if token is None:
        raise InvalidRequest("Revoking an access token: the form has no 'token'. Send the access token to revoke.")
    context.oauth.revoke(token)
    return Response(200, content_type=NOTHING)


def _shown(grant: str | None) -> str:
    return "missing" if grant is None else repr(grant[:60])


_FILLED = {**TEXT, "minLength": 1}
_CLIENT = {
    "client_id": described(_FILLED, "The emulator's `client_id`, unless it is sent as HTTP Basic authentication"),
    "client_secret": described(
        _FILLED, "The emulator's `client_secret`, unless it is sent as HTTP Basic authentication"
    ),
}
_SCOPE = described(TEXT, "Accepted and ignored: every access token is valid for all routes")
_GRANT_BODY = with_examples(
    {
        "type": "object",
        "required": ["grant_type"],
        "properties": {**_CLIENT, "grant_type": {"const": "client_credentials"}, "scope": _SCOPE},
    },
    examples.GRANT,
)
_REVOCATION_BODY = with_examples(
    {
        "type": "object",
        "required": ["token"],
        "properties": {**_CLIENT, "token": described(_FILLED, "The access token to revoke")},
    },
    examples.REVOCATION,
)

routes = (
    Route(
        "POST",
        f"{OAUTH}/token",
        issue,
        Auth.CLIENT,
        {200: "An access token, which is valid for every route that requires a bearer token"},
        "Get an access token for a client's id and secret",
        body=_GRANT_BODY,
        answer=ACCESS_TOKEN,
        body_media=FORM,
        errors=(UnsupportedGrant,),
    ),
    Route(
        "POST",
        f"{OAUTH}/revoke_token",
        revoke,
        Auth.CLIENT,
        {200: "The token is no longer valid"},
        "Revoke an access token",
        body=_REVOCATION_BODY,
        body_media=FORM,
        media=NOTHING,
    ),
)
