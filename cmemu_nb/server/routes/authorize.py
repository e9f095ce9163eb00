"""Signing in with a browser: an application sends its user here and gets a code for access tokens [foundry].

The page lets one choose a user of the seed file. There are no passwords: everybody who can open it can sign in as any.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from cmemu_nb.errors import ForbiddenOrigin, InvalidRequest
from cmemu_nb.phrases import closest, quoted
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import examples
from cmemu_nb.server.openapi.page import html_page, policy
from cmemu_nb.server.openapi.schemas import TEXT, described, one_of, with_examples
from cmemu_nb.server.response import Response
from cmemu_nb.server.routes.oauth import FORM, read_form
from cmemu_nb.server.routing import Route, query_options
from cmemu_nb.wire.paths import AUTHORIZE

if TYPE_CHECKING:
    from cmemu_nb.foundry.sign_in import Wanted
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request

MAX_QUERY = 8_192
# The Referer would show the query to the application; with `no-referrer` browsers send `Origin: null` with the form.
HEADERS = {"X-Frame-Options": "DENY", "Referrer-Policy": "same-origin"}


def authorize(context: Context, request: Request) -> Response:
    """Show the sign-in page, or with the setting `sign_in_as` send the browser back to the application at once.

    A browser is only ever sent to one of the `redirect_uris`. It gets `code` and `state`, or `error` (RFC 6749, 4.1.2).
    """
    if len(request.query) > MAX_QUERY:
        raise InvalidRequest(f"Signing in: the query is longer than {MAX_QUERY:,} characters. Send a shorter state.")
    options = query_options(request)
    redirect_uri = context.sign_ins.check_redirect(options.get("client_id"), options.get("redirect_uri"))
    try:
        wanted = context.sign_ins.wanted(redirect_uri, options)
    except InvalidRequest as refusal:
        is_code = options.get("response_type") == "code"
        code = refusal.code if is_code else "unsupported_response_type"
        return _back(redirect_uri, options.get("state"), error=code, error_description=str(refusal))
    if context.sign_in_as is not None:
        return _signed_in(context, wanted, context.sign_in_as)
    return _page(context, wanted)


def choose_user(context: Context, request: Request) -> Response:
    """Take the answer of the sign-in page, which counts once, and send the browser back to the application."""
    # Its own origin and a ticket that only the page has: no other page can choose for the person at the browser.
    if request.headers.get("Origin") != f"{request.scheme}://{request.headers.get('Host')}":
        raise ForbiddenOrigin("Only the sign-in page itself can be answered. Open it again from the application.")
    form = read_form(request)
    wanted = context.sign_ins.close_page(form.get("ticket", ""))
    login = form.get("login")
    if login is None:
        return _back(wanted.redirect_uri, wanted.state, error="access_denied", error_description="Nobody signed in.")
    users = context.tokens.users.logins
    if login not in users:
        raise InvalidRequest(f"Signing in: there is no user {quoted(login)}.{closest(login, users)}")
    return _signed_in(context, wanted, login)


def _signed_in(context: Context, wanted: Wanted, login: str) -> Response:
    context.lifecycle.note("signed_in", detail=f"{login} for {wanted.redirect_uri}")
    return _back(wanted.redirect_uri, wanted.state, code=context.sign_ins.issue_code(wanted, login))


def _back(redirect_uri: str, state: str | None, **answer: str) -> Response:
    fields = urlencode(answer if state is None else {**answer, "state": state})
    target = f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{fields}"
    return Response(303, content_type="text/html", headers={**HEADERS, "Location": target})


def _page(context: Context, wanted: Wanted) -> Response:
    split = urlsplit(wanted.redirect_uri)
    # Browsers apply form-action to the redirect after the form, too.
    application = f"{split.scheme}://{split.netloc}" if split.scheme in ("http", "https") else f"{split.scheme}:"
    buttons = "".join(
        f'<p><button name="login" value="{html.escape(login)}">{html.escape(login)}</button></p>'
        for login in context.tokens.users.logins
    )
    scopes = ", ".join(f"<code>{html.escape(scope)}</code>" for scope in wanted.scopes)
    text = (
        f"<p>The application at <code>{html.escape(wanted.redirect_uri)}</code> wants to call functions of cmemu_nb, "
        "an emulator of compute modules. Choose the user as whom it calls them. No password is needed: these are the "
        "users of the seed file, and this is not Foundry.</p>"
        f"{f'<p>It asks for the scopes {scopes}. Scopes restrict nothing here.</p>' if scopes else ''}"
    )
    ticket = context.sign_ins.open_page(wanted)
    form = (
        f'<form method="post" action="authorize"><input type="hidden" name="ticket" value="{ticket}">{buttons}'
        "<p><button>Cancel</button></p></form>"
    )
    headers = {**HEADERS, "Content-Security-Policy": policy(f"'self' {application}")}
    body = html_page("Sign in", text, f"<main>{form}</main>").encode()
    return Response(200, body, "text/html; charset=utf-8", headers=headers)


_QUERY = {
    "response_type": described(one_of(("code",)), "What the application gets"),
    "client_id": described(TEXT, "The emulator's `client_id`"),
    "redirect_uri": described(TEXT, "One of the `redirect_uris`, exactly"),
    "code_challenge": described(TEXT, "The SHA-256 digest of the verifier, in base64url (RFC 7636)"),
    "code_challenge_method": described(one_of(("S256",)), "How the challenge was made"),
    "scope": described(TEXT, "Scopes, which have no effect, except that `offline_access` asks for a refresh token"),
    "state": described(TEXT, "Any text, which is sent back"),
}
_ANSWER = {
    "ticket": described(TEXT, "The ticket of the page"),
    "login": described(TEXT, "The user who signs in; nobody does if it is omitted"),
}
_BACK = "The browser is sent back to the application, with a code or an error"

routes = (
    Route(
        "GET",
        AUTHORIZE,
        authorize,
        Auth.NONE,
        {200: "The sign-in page", 303: _BACK},
        "Sign in with a browser (HTML page)",
        query={name: with_examples(schema, examples.SIGN_IN[name]) for name, schema in _QUERY.items()},
        media="text/html",
    ),
    Route(
        "POST",
        AUTHORIZE,
        choose_user,
        Auth.NONE,
        {303: _BACK},
        "Answer the sign-in page",
        body=with_examples({"type": "object", "required": ["ticket"], "properties": _ANSWER}, examples.CHOSEN_USER),
        body_media=FORM,
        media="text/html",
    ),
)
