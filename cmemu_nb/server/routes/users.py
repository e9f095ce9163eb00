"""The routes that say to whom a token belongs: a user of the seed file, or else the user `cmemu` [foundry]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.errors import ApiError
from cmemu_nb.foundry.users import DEFAULT_LOGIN, user_id, user_record
from cmemu_nb.phrases import listed, quoted
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi.schemas import USER, USER_STATUS
from cmemu_nb.server.response import Response, json_response
from cmemu_nb.server.routing import Route, query_options
from cmemu_nb.wire.paths import API, MULTIPASS

if TYPE_CHECKING:
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request

USERS = f"{API}v2/admin/users"


def me(context: Context, request: Request) -> Response:
    """Answer with the user to whom the bearer token belongs, as command-line tools ask for it to check a token."""
    return json_response(200, user_record(context.tokens.user(request) or DEFAULT_LOGIN))


def get_current(context: Context, request: Request) -> Response:
    """Answer with the user to whom the bearer token belongs."""
    return me(context, request)


def get_user(context: Context, request: Request) -> Response:
    """Answer with the user with an id. A login is accepted, too, because it is the `userId` of a job [ours]."""
    wanted = request.params["userId"]
    login = context.tokens.users.find(wanted)
    if login is None:
        known = listed([quoted(each) for each in context.tokens.users.logins])
        message = f"There is no user {quoted(wanted)}. The users are {known}; a seed file names them under 'tokens'."
        raise ApiError(404, "UserNotFound", message, userId=wanted)
    if query_options(request).get("status") == "DELETED":
        message = f"The user {quoted(login)} is active, and status=DELETED asks for a deleted one. Omit the status."
        raise ApiError(400, "UserIsActive", message, principalId=user_id(login))
    return json_response(200, user_record(login))


routes = (
    Route(
        "GET",
        f"{MULTIPASS}/me",
        me,
        Auth.BEARER,
        {200: "The user"},
        "Get the user of a bearer token",
        answer=USER,
    ),
    Route(
        "GET",
        f"{USERS}/getCurrent",
        get_current,
        Auth.BEARER,
        {200: "The user"},
        "Get the user of a bearer token",
        answer=USER,
    ),
    Route(
        "GET",
        f"{USERS}/{{userId}}",
        get_user,
        Auth.BEARER,
        {200: "The user", 400: "The user is not deleted", 404: "No user has this id or login"},
        "Get a user",
        answer=USER,
        query={"status": USER_STATUS},
        error_names={400: "UserIsActive", 404: "UserNotFound"},
    ),
)
