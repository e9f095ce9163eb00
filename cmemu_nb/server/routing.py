"""Routes as data: the server matches requests against them, and the OpenAPI document is generated from them."""

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

    `handler` answers when the body is complete; a route with a `receiver` takes the body while it arrives.
    `answers` describes each status. `errors` are the errors of the route besides the common ones, at least one for
    each of its statuses from 400 on; under `/api/`, where the names of errors are not those of classes, `error_names`
    has the usual name for a status. `body` is the JSON schema of the request body, whose media type is `body_media`;
    `answer` is the JSON schema of the body of a 200. Both have `examples` and a `description` of each member. Without
    `answer`, the body of a 200 has the media type `media`, or one of `other_media` if the request
    accepts that. `query` has the JSON schemas of the query options, by name. `waits` says whether the route supports
    `Prefer: wait=N`. `denied` is the platform's error for a module's token that does not reach the dataset or stream of
    the path. The docstring of the handler describes the route.
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
    other_media: tuple[str, ...] = ()
    denied: str = ""


@dataclass(frozen=True)
class Surface:
    """The routes of one module, for one kind of client. The module's docstring describes them."""

    name: str
    description: str
    routes: tuple[Route, ...]

    @classmethod
    def of(cls, name: str, module: ModuleType) -> Surface:
        """Make a surface from a module such as `routes.runtime`. Its name is a tag of the OpenAPI document."""
        return cls(name, inspect.cleandoc(module.__doc__ or ""), module.routes)


@dataclass
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    name: str = ""
    methods: dict[str, Route] = field(default_factory=dict)


class Router:
    """Finds the route for a method and a path. Error messages show `masked(path)`."""

    def __init__(self, routes: Iterable[Route], masked: Callable[[str], str] = str) -> None:
        self.routes = tuple(routes)
        self._masked = masked
        self._root = _Node()
        for route in self.routes:
            self._add(route)
        paths = [route.path for route in self.routes]
        whole = "GET /openapi.json lists them all."
        self._listed = whole if "/openapi.json" in paths else f"The routes are {', '.join(paths)}."

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
        """Return the route and its decoded parameters. HEAD uses the route of GET.

        Raises `NotFound` for an unknown path, `MethodNotAllowed` for a method that a known path does not have,
        and `InvalidRequest` for a parameter that is not UTF-8.
        """
        node, params = self._find(path)
        route = node.methods.get("GET" if method == "HEAD" else method)
        if route is None:
            raise MethodNotAllowed(method, _shown(self._masked(path)), _methods(node))
        return route, params

    def methods(self, path: str) -> list[str]:
        """Return the methods of a known path, sorted; it raises what `match` does for other paths."""
        return _methods(self._find(path)[0])

    def _find(self, path: str) -> tuple[_Node, dict[str, str]]:
        node: _Node | None = self._root
        params = {}
        for segment in path.split("/")[1:]:
            following = node.literals.get(segment) if node else None
            if following is None and node and node.parameter and segment:
                following = node.parameter
                params[following.name] = decode_segment(segment)
            node = following
        if node is None or not node.methods:
            node, params = _find(self._root, path.split("/")[1:])
        if node is None:
            raise NotFound(f"There is no route {_shown(self._masked(path))}. {self._listed}")
        return node, params


def _methods(node: _Node) -> list[str]:
    return sorted({*node.methods, *(["HEAD"] if "GET" in node.methods else [])})


def _find(node: _Node, segments: list[str]) -> tuple[_Node | None, dict[str, str]]:
    """Find the node of a path in which a parameter has a value that is a literal of another path, such as `v2`."""
    if not segments:
        return (node, {}) if node.methods else (None, {})
    segment, *rest = segments
    for following in filter(None, (node.literals.get(segment), node.parameter if segment else None)):
        found, params = _find(following, rest)
        if found is not None:
            return found, {following.name: decode_segment(segment), **params} if following.name else params
    return None, {}


def query_options(request: Request) -> dict[str, str]:
    """Return the query options of the URL; the last value counts if an option is repeated."""
    return {name: values[-1] for name, values in parse_qs(request.query, keep_blank_values=True).items()}


def decode_segment(segment: str) -> str:
    """Decode one path segment. Tornado has decoded its bytes as Latin-1."""
    if segment.isascii() and "%" not in segment:
        return segment
    try:
        return unquote_to_bytes(segment.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"The path segment {_shown(segment)} is not UTF-8. Percent-encode it as UTF-8.") from None


def _shown(text: str) -> str:
    return text.encode("latin-1", "replace").decode("utf-8", "replace")[:200]
