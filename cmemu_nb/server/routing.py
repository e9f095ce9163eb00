"""Routes as data: what the server matches against, and what the OpenAPI document is made from."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote_to_bytes

from cmemu_nb.errors import InvalidRequest, MethodNotAllowed, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

    from cmemu_nb.errors import WireError
    from cmemu_nb.server.auth import Auth
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.handlers import Handler, Receiver
    from cmemu_nb.server.request import Request


@dataclass(frozen=True)
class Route:
    """One method of one path. A `{name}` segment of the path is a parameter.

    `handler` answers when the body is there; a route with a `receiver` takes the body as it arrives.
    `answers` says in words what each status means; `errors` are those that the route has beside the common ones, at
    least one for each of its statuses from 400 on; under `/api/`, where an error's name is no class's, `error_names`
    has the usual one of a status. `body` is the JSON schema of the request, which is of `body_media`,
    `answer` that of a 200, both with `examples`, and with a `description` of each member; without `answer`, a 200 is
    of the type `media`. `query` has the JSON schemas of the query options, by name. The handler's documentation
    describes the route.
    """

    method: str
    path: str
    handler: Handler | None
    auth: Auth
    answers: dict[int, str]
    summary: str
    body: dict[str, Any] | None = None
    answer: dict[str, Any] | None = None
    query: dict[str, dict[str, Any]] = field(default_factory=dict)
    waits: bool = False
    body_media: str = "application/json"
    receiver: Callable[[Context, Request], Receiver] | None = None
    errors: tuple[type[WireError], ...] = ()
    error_names: dict[int, str] = field(default_factory=dict)
    media: str = "application/octet-stream"


@dataclass(frozen=True)
class Surface:
    """The routes of one module: what one kind of client calls. The module's documentation describes them."""

    name: str
    description: str
    routes: tuple[Route, ...]

    @classmethod
    def of(cls, name: str, module: ModuleType) -> Surface:
        """Make a surface of a module such as `routes.runtime`. Its name is a tag of the OpenAPI document."""
        return cls(name, inspect.cleandoc(module.__doc__ or ""), module.routes)


@dataclass
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    name: str = ""
    methods: dict[str, Route] = field(default_factory=dict)


class Router:
    """Finds the route of a method and a path; `masked(path)` is what an error shows of it."""

    def __init__(self, routes: Iterable[Route], masked: Callable[[str], str] = str) -> None:
        self.routes = tuple(routes)
        self._masked = masked
        self._root = _Node()
        for route in self.routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        node = self._root
        for segment in route.path.split("/")[1:]:
            if segment.startswith("{"):
                node.parameter = node.parameter or _Node(name=segment[1:-1])
                node = node.parameter
            else:
                node = node.literals.setdefault(segment, _Node())
        node.methods[route.method] = route

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route and its decoded parameters; HEAD goes where GET goes.

        Raises `NotFound` for an unknown path, `MethodNotAllowed` for an unknown method of a known one
        and `InvalidRequest` for a parameter that is no UTF-8.
        """
        node: _Node | None = self._root
        params = {}
        for segment in path.split("/")[1:]:
            following = node.literals.get(segment) if node else None
            if following is None and node and node.parameter and segment:
                following = node.parameter
                params[following.name] = decode_segment(segment)
            node = following
        if node is None or not node.methods:
            raise NotFound(f"There is no route {_shown(self._masked(path))}. GET /openapi.json lists them all.")
        route = node.methods.get("GET" if method == "HEAD" else method)
        if route is None:
            allowed = {*node.methods, *(["HEAD"] if "GET" in node.methods else [])}
            raise MethodNotAllowed(method, _shown(self._masked(path)), allowed)
        return route, params


def query_options(request: Request) -> dict[str, str]:
    """Return the options behind the path's question mark; of a repeated one the last counts."""
    return {name: values[-1] for name, values in parse_qs(request.query, keep_blank_values=True).items()}


def decode_segment(segment: str) -> str:
    """Decode one path segment; the header bytes came as Latin-1."""
    if segment.isascii() and "%" not in segment:
        return segment
    try:
        return unquote_to_bytes(segment.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"The path segment {_shown(segment)} is not UTF-8. Percent-encode it as UTF-8.") from None


def _shown(text: str) -> str:
    return text.encode("latin-1", "replace").decode("utf-8", "replace")[:200]
