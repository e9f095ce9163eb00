"""The OAuth routes: an application gets access tokens for its client id and secret, as on the platform [foundry].

Requests are forms, and errors have the shape of RFC 6749, which is the one of all routes here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from cmemu_nb.errors import InvalidRequest, UnsupportedGrant
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import examples
from cmemu_nb.server.openapi.schemas import ACCESS_TOKEN, TEXT, said, shown
from cmemu_nb.server.response import Response, json_response
from cmemu_nb.server.routing import Route
from cmemu_nb.tokens import Token

if TYPE_CHECKING:
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request

OAUTH = "/multipass/api/oauth2"
FORM = "application/x-www-form-urlencoded"
NOTHING = "text/plain"


def _read_form(context: Context, request: Request) -> dict[str, str]:
    """Return the fields of a form whose client is the emulator's; of a repeated one the first counts."""
    text = Token(request.body.decode("latin-1"))
    try:
        form = {name: values[0] for name, values in parse_qs(text, max_num_fields=100).items()}
    except ValueError:
        form = {}
    context.oauth.check(form.get("client_id"), form.get("client_secret"))
    return form


def issue(context: Context, request: Request) -> Response:
    """Answer a new access token for `grant_type=client_credentials`."""
    form = _read_form(context, request)
    grant = form.get("grant_type")
    if grant != "client_credentials":
        raise UnsupportedGrant(
            f"Getting an access token: grant_type is {_shown(grant)}. Send grant_type=client_credentials, which needs "
            "no browser; there are no users here whom another grant could ask."
        )
    answer = {"access_token": str(context.oauth.issue()), "token_type": "bearer", "expires_in": context.oauth.seconds}
    return json_response(200, answer, headers={"Pragma": "no-cache"})


def revoke(context: Context, request: Request) -> Response:
    """End an access token; what is none is no error (RFC 7009)."""
    token = _read_form(context, request).get("token")
    if token is None:
        raise InvalidRequest("Revoking an access token: the form has no 'token'. Send the token that is to end.")
    context.oauth.revoke(token)
    return Response(200, content_type=NOTHING)


def _shown(grant: str | None) -> str:
    return "missing" if grant is None else repr(grant[:60])


_FILLED = {**TEXT, "minLength": 1}
_CLIENT = {
    "client_id": said(_FILLED, "The emulator's `client_id`"),
    "client_secret": said(_FILLED, "The emulator's `client_secret`"),
}
_SCOPE = said(TEXT, "Taken and not looked at: a token is good for everything")
_GRANT_BODY = shown(
    {
        "type": "object",
        "required": [*_CLIENT, "grant_type"],
        "properties": {**_CLIENT, "grant_type": {"const": "client_credentials"}, "scope": _SCOPE},
    },
    examples.GRANT,
)
_REVOCATION_BODY = shown(
    {
        "type": "object",
        "required": [*_CLIENT, "token"],
        "properties": {**_CLIENT, "token": said(_FILLED, "The access token that is to end")},
    },
    examples.REVOCATION,
)

routes = (
    Route(
        "POST",
        f"{OAUTH}/token",
        issue,
        Auth.CLIENT,
        {200: "An access token, which every route takes that wants a bearer token"},
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
        {200: "The token is valid no longer"},
        "End an access token",
        body=_REVOCATION_BODY,
        body_media=FORM,
        media=NOTHING,
    ),
)
