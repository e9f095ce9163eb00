"""The routes that describe the emulator's routes [ours]: as an OpenAPI document and as HTML pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import schemas
from cmemu_nb.server.openapi.document import document
from cmemu_nb.server.openapi.page import front_page, page, policy
from cmemu_nb.server.response import Response, json_response
from cmemu_nb.server.routing import Route

if TYPE_CHECKING:
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request


def show(context: Context, _: Request) -> Response:
    """Answer with the OpenAPI 3.1 document of all routes, the same that `emu.openapi()` returns."""
    return json_response(200, document(context.surfaces, context.version))


def show_page(context: Context, request: Request) -> Response:
    """Answer with the OpenAPI document as an HTML page, with a curl line for each route.

    The page loads nothing and runs no script.
    """
    return _html(page(document(context.surfaces, context.version), request.base_url))


def show_front_page(context: Context, _: Request) -> Response:
    """Answer a browser that opens the emulator's address: what this server is, and where its routes are described."""
    return _html(front_page(document((), context.version)["info"]))


def _html(text: str) -> Response:
    headers = {"Content-Security-Policy": policy()}
    return Response(200, text.encode(), "text/html; charset=utf-8", headers=headers)


routes = (
    Route(
        "GET",
        "/openapi.json",
        show,
        Auth.NONE,
        {200: "The OpenAPI document"},
        "Describe every route (OpenAPI 3.1)",
        answer=schemas.DOCUMENT,
    ),
    Route(
        "GET",
        "/docs",
        show_page,
        Auth.NONE,
        {200: "The page"},
        "Describe every route (HTML page)",
        media="text/html",
    ),
    Route(
        "GET",
        "/",
        show_front_page,
        Auth.NONE,
        {200: "The page"},
        "Show what this server is (HTML page)",
        media="text/html",
    ),
)
