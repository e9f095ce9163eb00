"""The OAuth routes: an application gets access tokens for its secret, or for a user who signed in [foundry].

Requests are forms. Errors have the format of RFC 6749, which is also the format of the emulator's other routes.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote_plus

from cmemu_nb.errors import InvalidGrant, InvalidRequest, InvalidScope, PayloadTooLarge, UnsupportedGrant
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import examples
from cmemu_nb.server.openapi.schemas import ACCESS_TOKEN, TEXT, described, one_of, with_examples
from cmemu_nb.server.response import Response, json_response
from cmemu_nb.server.routing import Route
from cmemu_nb.tokens import Token
from cmemu_nb.wire.paths import OAUTH

if TYPE_CHECKING:
    from cmemu_nb.foundry.sign_in import SignIns
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request

FORM = "application/x-www-form-urlencoded"
NOTHING = "text/plain"
# Forms need no token, and reading a large one would hold up every other request.
MAX_FORM_BYTES = 65_536


def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form; the first value counts if a field is repeated.

    The client's id and secret may also come as HTTP Basic authentication (RFC 6749, 2.3.1). Raises `PayloadTooLarge`
    for a form of more than `MAX_FORM_BYTES`.
    """
    if len(request.body) > MAX_FORM_BYTES:
        raise PayloadTooLarge(f"The form is larger than {MAX_FORM_BYTES:,} bytes. Send only the fields of this route.")
    text = Token(request.body.decode("latin-1"))
    try:
        form = {name: values[0] for name, values in parse_qs(text, max_num_fields=100).items()}
    except ValueError:
        form = {}
    return form | _basic(request.headers.get("Authorization", ""))


def _check_client(context: Context, form: dict[str, str], *, may_be_public: bool) -> None:
    if may_be_public and "client_secret" not in form:
        context.sign_ins.check_client(form.get("client_id"))
    else:
        context.oauth.check(form.get("client_id"), form.get("client_secret"))


def _field(form: dict[str, str], name: str, what: str) -> str:
    if name not in form:
        raise InvalidRequest(f"{what}: the form has no '{name}'.")
    return form[name]


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
    """Answer with a new access token for a client's secret, for the code of a sign-in, or for a refresh token.

    The last two need no `client_secret`, because applications in browsers can keep none. With the scope
    `offline_access` a sign-in also gets a refresh token, which is valid once: the answer has the next one.
    """
    form = read_form(request)
    grant = form.get("grant_type")
    _check_client(context, form, may_be_public=grant in _OF_USERS)
    if grant == "client_credentials":
        token = str(context.oauth.issue_to(form.get("client_id")))
        answer = {"access_token": token, "token_type": "bearer", "expires_in": context.oauth.seconds}
    elif grant in _OF_USERS:
        if form["client_id"] != context.oauth.client_id:  # the client of a module
            raise InvalidGrant(
                "Getting an access token: users sign in only for the emulator's own client, and this is another one. "
                "Send the emulator's .client_id."
            )
        answer = _OF_USERS[grant](context.sign_ins, form)
    else:
        raise UnsupportedGrant(
            f"Getting an access token: grant_type is {_shown(grant)}. Send grant_type=client_credentials, which needs "
            "no browser, or authorization_code or refresh_token."
        )
    return json_response(200, answer, headers={"Pragma": "no-cache"})


def _redeem(sign_ins: SignIns, form: dict[str, str]) -> dict[str, Any]:
    what = "Getting an access token for a code"
    code, verifier = _field(form, "code", what), _field(form, "code_verifier", what)
    return sign_ins.redeem(code, form.get("redirect_uri"), verifier)


def _refresh(sign_ins: SignIns, form: dict[str, str]) -> dict[str, Any]:
    token = _field(form, "refresh_token", "Refreshing an access token")
    return sign_ins.refresh(token, form.get("scope"))


_OF_USERS = {"authorization_code": _redeem, "refresh_token": _refresh}


def revoke(context: Context, request: Request) -> Response:
    """Revoke an access token or a refresh token, and all tokens of its sign-in.

    A token that is not valid is not an error (RFC 7009).
    """
    form = read_form(request)
    _check_client(context, form, may_be_public=True)
    context.sign_ins.revoke(_field(form, "token", "Revoking an access token"))
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
_SCOPE = described(TEXT, "Accepted, but every access token is valid for all routes")
_GRANT = described(one_of(("client_credentials", *_OF_USERS)), "What the access token is for")
_OF_A_SIGN_IN = {
    "code": described(TEXT, "For `authorization_code`: the code"),
    "redirect_uri": described(TEXT, "For `authorization_code`: the same URI as when the sign-in began"),
    "code_verifier": described(TEXT, "For `authorization_code`: the text whose digest was the challenge (RFC 7636)"),
    "refresh_token": described(TEXT, "For `refresh_token`: the refresh token"),
}
_GRANT_BODY = with_examples(
    {
        "type": "object",
        "required": ["grant_type"],
        "properties": {**_CLIENT, **_OF_A_SIGN_IN, "grant_type": _GRANT, "scope": _SCOPE},
    },
    examples.GRANT,
)
_REVOCATION_BODY = with_examples(
    {
        "type": "object",
        "required": ["token"],
        "properties": {**_CLIENT, "token": described(_FILLED, "The access token or refresh token to revoke")},
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
        errors=(UnsupportedGrant, InvalidGrant, InvalidScope),
    ),
    Route(
        "POST",
        f"{OAUTH}/revoke_token",
        revoke,
        Auth.CLIENT,
        {200: "The token is no longer valid"},
        "Revoke an access token or refresh token",
        body=_REVOCATION_BODY,
        body_media=FORM,
        media=NOTHING,
    ),
)
